"""Article jobs (S3): start one, watch it, look at it, cancel it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api.deps import Services, ServicesDep, owner_of_request
from app.api.docs.openapi import error_responses, sse_responses
from app.api.jobs.examples import JOB_EVENTS, request_body
from app.api.jobs.state import fold
from app.api.jobs.wire import JOB, JobEvents
from app.api.resume import OVER, first_event, respond_after, resume_point
from app.core.errors import InvalidInput, UnknownSession
from app.schemas.jobs import JobBody, JobState, StartedAnswer
from app.schemas.summary_v4 import SESSION_ID_PATTERN
from app.stream.event import Draft
from app.stream.log import Header

# How long a cancel waits for the job's own end, which comes at once from a process that lives.
CANCEL_WAIT_S = 10.0
FORM_TYPES = frozenset(("application/x-www-form-urlencoded", "multipart/form-data"))

router = APIRouter(tags=["Article jobs"])

JobId = Annotated[str, Path(description="The `job_id` that `/start-job` answered with")]

_NO_JOB = "`unknown_job`: there is no such job, or no more"


@router.post(
    "/start-job",
    operation_id="start_job",
    status_code=202,
    response_model=StartedAnswer,
    responses=error_responses(
        400, 401, 413, 422, 429, 503, status_400="The form cannot be read, or holds a file"
    ) | {
        415: {"description": "`unsupported_media_type`: the body is neither JSON nor a form"},
        202: {
            "description": "The job has begun",
            "headers": {
                "Location": {"description": "Its state", "schema": {"type": "string"}},
                "X-Session-ID": {"description": "The job's id", "schema": {"type": "string"}},
            },
        },
    },
    openapi_extra=request_body(FORM_TYPES),
    summary="Have an article written",
)  # fmt: skip
async def start_job(request: Request, services: ServicesDep) -> JSONResponse:
    """Takes JSON or a form with a `topic`, and answers at once; the article is written meanwhile.

    Follow it with `GET /progress/{job_id}`. A job ends when nobody has followed it, or asked for
    its state, for the time that `CANCEL_AFTER_DISCONNECT_SECONDS` sets.
    """
    topic = await _topic(request)
    header = await _start(request, services, topic)
    answer = StartedAnswer(job_id=header.session_id, topic=topic)
    headers = {"Location": f"/jobs/{header.session_id}", "X-Session-ID": header.session_id}
    return JSONResponse(answer.model_dump(), 202, headers)


@router.get(
    "/progress/{job_id}",
    operation_id="follow_job",
    responses=sse_responses(
        JOB_EVENTS,
        401,
        404,
        410,
        422,
        429,
        503,
        status_404=_NO_JOB,
        status_422="`invalid_last_event_id`, `invalid_session_id`: the message names the fix",
    )
    | OVER,
    response_class=Response,
    summary="Watch a job",
)
async def progress(request: Request, services: ServicesDep, job_id: JobId) -> Response:
    """Replays the job from its start, or after `Last-Event-ID` (or `?last_event_id=`), then live.

    The pieces of `style` join to the article; a failure is the terminal event of step `error`.
    """
    header = await _find(request, services, job_id)
    point = resume_point(request, job_id)
    return await respond_after(request, services, header, point[1] if point else -1)


@router.get(
    "/jobs/{job_id}",
    operation_id="get_job",
    response_model=JobState,
    response_model_exclude_none=True,
    responses=error_responses(401, 404, 429, 503, status_404=_NO_JOB),
    summary="Where a job stands",
)
async def job(request: Request, services: ServicesDep, job_id: JobId) -> JobState:
    """Answers at once, with the article when it is complete. What is not known is left out."""
    return await _state(services, await _find(request, services, job_id))


@router.delete(
    "/jobs/{job_id}",
    operation_id="cancel_job",
    response_model=JobState,
    response_model_exclude_none=True,
    responses=error_responses(401, 404, 429, 503, status_404=_NO_JOB),
    summary="Cancel a job",
)
async def cancel(request: Request, services: ServicesDep, job_id: JobId) -> JobState:
    """Stops the model and answers with the state after that; an ended job stays as it is."""
    header = await _find(request, services, job_id)
    state = await _state(services, header)
    if state.status != "running":
        return state
    await services.sessions.cancel(header.owner, header.session_id)
    await _ended(services, header)
    return await _state(services, header)


async def _topic(request: Request) -> str:
    """Return the topic of a JSON body or a form.

    Raises:
        InvalidInput: the body is of another type.
        RequestValidationError: there is no topic, or it is not allowed.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            return JobBody.model_validate_json(await request.body()).topic
        if kind not in FORM_TYPES:
            raise InvalidInput(
                "send the topic as JSON, {\"topic\": \"…\"} with Content-Type: application/json, "
                "or as a form",
                code="unsupported_media_type",
                status=415,
            )  # fmt: skip
        async with request.form(max_files=0, max_fields=8) as form:
            return JobBody.model_validate(dict(form)).topic
    except ValidationError as invalid:
        found = invalid.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError(
            [{**error, "loc": ("body", *error["loc"])} for error in found]
        ) from None


async def _start(request: Request, services: Services, topic: str) -> Header:
    """Start the session of a job.

    Raises:
        Overloaded, EngineUnavailable: before any work.
    """
    wire = JobEvents(topic)

    async def drafts() -> AsyncGenerator[Draft, None]:
        async with aclosing(wire.encode(services.writer.write(topic))) as events:
            async for draft in events:
                yield draft

    async with services.sessions.reserve() as reservation:
        await services.writer.accept(topic)
        return await services.sessions.start(
            JOB,
            drafts,
            owner=owner_of_request(request),
            linger_s=services.linger_s,
            reservation=reservation,
            ending=wire.ending,
        )


async def _find(request: Request, services: Services, job_id: str) -> Header:
    """Return the job of that id.

    Raises:
        UnknownSession: the caller has no such job.
    """
    header = None
    if re.fullmatch(SESSION_ID_PATTERN, job_id):
        header = await services.sessions.find(owner_of_request(request), job_id)
    if header is None or header.kind != JOB:
        raise _unknown()
    return header


async def _state(services: Services, header: Header) -> JobState:
    try:
        events = await services.sessions.snapshot(header)
        if not events:
            # It has begun this very moment.
            await first_event(services, header)
            events = await services.sessions.snapshot(header)
    except UnknownSession as gone:
        raise _unknown() from gone
    return fold(header.session_id, events)


async def _ended(services: Services, header: Header) -> None:
    """Wait for a job's terminal event, and for the model to stop, but not for ever."""
    try:
        async with asyncio.timeout(CANCEL_WAIT_S):
            async with aclosing(services.sessions.pages(header)) as pages:
                async for _ in pages:
                    pass
            await services.sessions.wait_stopped(header)
    except (TimeoutError, UnknownSession):
        return


def _unknown() -> UnknownSession:
    return UnknownSession("there is no such job; start a new one", code="unknown_job")
