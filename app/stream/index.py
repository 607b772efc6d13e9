"""Finds the sessions of this process by run, by session id and by what they answer."""

from __future__ import annotations

from app.stream.session import Session


class SessionIndex:
    """The sessions of this process.

    `by_run`: those whose tasks have not ended. The id and the fingerprint of a session are free
    again earlier, with its terminal event.
    """

    def __init__(self) -> None:
        self.by_run: dict[str, Session] = {}
        self._by_id: dict[tuple[str, str], Session] = {}
        self._shared: dict[tuple[str, str], Session] = {}

    def add(self, session: Session, *, shared: bool) -> None:
        """Add a session; if `shared`, other requests may find it by its fingerprint."""
        header = session.header
        self.by_run[header.run] = session
        self._by_id[header.owner, header.session_id] = session
        if shared:
            self._shared[header.owner, header.fingerprint] = session

    def find(self, owner: str, session_id: str) -> Session | None:
        """Return the session that holds an id, running or stopping."""
        return self._by_id.get((owner, session_id))

    def running(self, owner: str, fingerprint: str, session_id: str | None) -> Session | None:
        """Return the running session of an id; without an id, the shared one of a fingerprint."""
        if session_id is None:
            session = self._shared.get((owner, fingerprint))
        else:
            session = self._by_id.get((owner, session_id))
        return session if session is not None and session.running else None

    def release(self, session: Session) -> None:
        """Free the id and the fingerprint of a session."""
        header = session.header
        for index, key in (
            (self._by_id, (header.owner, header.session_id)),
            (self._shared, (header.owner, header.fingerprint)),
        ):
            if index.get(key) is session:
                del index[key]
