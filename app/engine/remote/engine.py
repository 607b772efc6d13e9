"""The engine that has another server write: vLLM, SGLang, llama.cpp, Ollama, another of us.

Any server that speaks OpenAI's chat completions, or several that serve the same model. It cannot
count that model's tokens, and keeps nothing between requests but which servers are up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx

from app.core.errors import AppError, EngineUnavailable, Overloaded, Unsupported
from app.engine.base import Fitted, GenerateRequest, Item, Status
from app.engine.remote.answer import read_answer
from app.engine.remote.errors import failed, read_refusal, unavailable, unreachable
from app.engine.remote.forced_tools import require_call
from app.engine.remote.replicas import Replica, Replicas, read_bases
from app.engine.remote.request import JSON_FORMS, check_images, encode_request

AGAIN_S = 0.2
# Shorter than the 5 s after which uvicorn, and so vLLM, closes an idle connection: a request must
# not be sent into one that is being closed.
KEEPALIVE_S = 2.0
# What another replica may do better.
_ELSEWHERE = frozenset(("upstream_unavailable", "upstream_failed", "overloaded"))
# A 500 may be the fault of one request; these say that the server, or its key, is not in order.
_DOWN = frozenset((401, 403, 502, 503, 504))


class RemoteEngine:
    """One model behind one or several servers."""

    name = "remote"

    def __init__(
        self,
        urls: Sequence[str],
        *,
        model: str | None = None,
        api_key: str | None = None,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Connect to nothing yet. `urls`: base addresses such as http://host:8000/v1.

        `model` None: the first model that a server lists. `read_timeout_s`: between two pieces.

        Raises:
            ValueError: there is no address, or one is no http or https address.
        """
        bases = read_bases(urls)
        self._given = model
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(read_timeout_s, connect=connect_timeout_s),
            # How many may run is decided where requests are admitted, not by a pool of sockets.
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_S),
            trust_env=False,
            # Reading the authorities' certificates takes 80 ms, and plain HTTP needs none.
            verify=any(str(base).startswith("https:") for base in bases),
            transport=transport,
        )
        self._replicas = Replicas(bases, self._client, self._headers)

    @property
    def model(self) -> str:
        """The model's name at the server, as soon as it is known."""
        return self._given or self._replicas.model or "remote"

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Item, None]:
        """Yield the answer of a replica; another gets the request if it fails before any text.

        Raises:
            GenerationFailed: `upstream_failed`, or `upstream_ignored_tools`.
            EngineUnavailable, Overloaded, Unsupported: as `_answer`.
        """
        required = request.tools and request.tool_choice == "required"
        answer = require_call(self._answer, request) if required else self._answer(request)
        async with aclosing(answer) as items:
            async for item in items:
                yield item

    async def _answer(self, request: GenerateRequest) -> AsyncGenerator[Item, None]:
        """Yield the answer of a replica, whatever it is.

        Raises:
            EngineUnavailable: `upstream_unavailable`, `upstream_unauthorized` or
                `upstream_model_missing`.
            Overloaded: every replica that is up is busy.
            Unsupported: `context_length_exceeded`, or `upstream_rejected` with the server's words.
            GenerationFailed: `upstream_failed`.
        """
        tried: list[Replica] = []
        seen_stages: set[str] = set()
        begun = False
        problem: AppError | None = None
        replica = self._replicas.choose()
        while replica is not None:
            tried.append(replica)
            try:
                async with aclosing(self._send(replica, request)) as items:
                    async for item in items:
                        if not isinstance(item, Status):
                            begun = True
                        elif item.stage in seen_stages:
                            continue
                        else:
                            seen_stages.add(item.stage)
                        yield item
                return
            except AppError as error:
                if begun:
                    raise _broken(error) from error
                if error.code not in _ELSEWHERE:
                    raise
                # A busy replica says more than one that is gone.
                if problem is None or isinstance(error, Overloaded):
                    problem = error
                replica = await self._next(tried, error)
        raise problem or unavailable()

    async def fit(self, request: GenerateRequest, *, may_drop: bool = False) -> Fitted:
        """Check the images, and that some replica may be up; the server counts the tokens.

        Raises:
            Unsupported: an image that could not be sent.
            EngineUnavailable: all replicas are known to be down.
        """
        check_images(request)
        if problem := self._replicas.known_problem():
            raise problem
        return Fitted(request)

    def facts(self) -> dict[str, str]:
        """Nothing: the server does not say how it runs the model."""
        return {}

    def info(self) -> dict[str, Any]:
        """Return what is known of the servers without a request to them, for `/health`."""
        problem = self._replicas.known_problem()
        return {
            "model_id": self.model,
            "loaded": problem is None,
            "error": problem.message if problem else None,
        }

    async def unavailable(self) -> EngineUnavailable | None:
        """Return None when some replica answers."""
        return await self._replicas.problem()

    async def prepare(self) -> None:
        """Nothing to prepare here."""

    async def load(self) -> None:
        """Nothing to load here."""

    async def maintain(self) -> None:
        """Check the replicas' health until cancelled."""
        await self._replicas.watch()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _next(self, tried: list[Replica], error: AppError) -> Replica | None:
        """Return the replica to try after an error: another one, or an only one once more."""
        if other := self._replicas.choose(tried):
            return other
        # A server that was silent for a whole timeout gets no second load of the same work.
        quick = not isinstance(error.__cause__, httpx.TimeoutException)
        if len(tried) == 1 and error.code == "upstream_unavailable" and quick:
            await asyncio.sleep(AGAIN_S)
            return tried[0]
        return None

    async def _send(self, replica: Replica, request: GenerateRequest) -> AsyncGenerator[Item, None]:
        with self._replicas.busy(replica):
            try:
                model = self._given or await self._replicas.model_of(replica)
                async with (
                    self._accepted(replica, request, model) as response,
                    aclosing(read_answer(response, request)) as items,
                ):
                    yield Status("reading")
                    async for item in items:
                        yield item
            except httpx.RequestError as exc:
                problem = unreachable(exc)
                self._replicas.mark_down(replica, problem)
                raise problem from exc

    @asynccontextmanager
    async def _accepted(
        self, replica: Replica, request: GenerateRequest, model: str
    ) -> AsyncIterator[httpx.Response]:
        """Send a request until the server takes it, giving up what it refuses bit by bit."""
        forms = list(JSON_FORMS if request.json_schema is not None else JSON_FORMS[:1])
        thinking = True
        refused: AppError | None = None
        while forms:
            body = await asyncio.to_thread(
                encode_request, request, model, form=forms[0], thinking=thinking
            )
            async with self._client.stream(
                "POST", replica.url("chat/completions"), content=body, headers=self._headers
            ) as response:
                if response.status_code == 200:
                    self._replicas.mark_up(replica)
                    yield response
                    return
                error = await read_refusal(response)
            if isinstance(error, EngineUnavailable) and response.status_code in _DOWN:
                self._replicas.mark_down(replica, error)
            if not isinstance(error, Unsupported) or error.code != "upstream_rejected":
                raise error
            refused = refused or error
            if thinking and request.thinking is False and "chat_template" in error.message:
                thinking = False
            else:
                forms.pop(0)
        raise refused or unavailable()


def _broken(error: AppError) -> AppError:
    """Return the error of an answer of which a part has already been passed on."""
    if error.code == "upstream_failed":
        return error
    return failed("The model server stopped in the middle of its answer; try again.")
