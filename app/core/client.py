"""The client whose request is being answered, for all that is shared out: rates, places, turns."""

from __future__ import annotations

from contextvars import ContextVar

# A key's owner, else a network; also in the tasks that a request starts. Empty outside of requests.
current_client: ContextVar[str] = ContextVar("current_client", default="")
