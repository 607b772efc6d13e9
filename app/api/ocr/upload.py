"""An uploaded image, held in memory only: the usual form parser writes what is large to a file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from app.api.resume import checked_session_id
from app.services.ocr.reader import MAX_BYTES, invalid_image

# The form's own lines come on top of the image.
MAX_FORM_BYTES = MAX_BYTES + 200_000
_MULTIPART = re.compile(r"multipart/form-data\b.*boundary=", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Upload:
    """The form of a card: its image and, if the client chose one, the session's id."""

    data: bytes = field(repr=False)
    session_id: str | None = None


class _InMemory(MultiPartParser):
    spool_max_size = 2 * MAX_FORM_BYTES


async def read_upload(request: Request) -> Upload:
    """Return the form of a request.

    Raises:
        InvalidInput: invalid_image, when there is no form or no file in it; invalid_session_id.
    """
    if not _MULTIPART.match(request.headers.get("content-type", "")):
        raise invalid_image()
    try:
        parser = _InMemory(request.headers, request.stream(), max_files=1, max_fields=8)
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as wrong:
        raise invalid_image() from wrong
    try:
        image, session_id = form.get("image"), form.get("session_id")
        if not isinstance(image, UploadFile):
            raise invalid_image()
        data = await image.read()
    finally:
        await form.close()
    chosen = session_id if isinstance(session_id, str) and session_id else None
    return Upload(data, checked_session_id(chosen) if chosen else None)
