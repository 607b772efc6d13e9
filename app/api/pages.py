"""The web page: one document for all its views, and the files that it loads.

Knows nothing of what the page does: it calls the same endpoints as every other client.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

WEB = Path(__file__).parent.parent / "web"
ASSETS_URL = "/assets/web"
# A Hugging Face Space shows the page in a frame.
FRAMES = "'self' https://huggingface.co https://*.hf.space"
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' data: blob:",
            "connect-src 'self'",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            f"frame-ancestors {FRAMES}",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(include_in_schema=False)


class Assets(StaticFiles):
    """Files that a browser revalidates each time and downloads only when they have changed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def wants_html(accept: str) -> bool:
    """Return whether a client prefers HTML to JSON: browsers name text/html, programs rarely do.

    Format: https://www.rfc-editor.org/rfc/rfc9110#name-accept
    """
    accepted: dict[str, tuple[float, int]] = {}
    for place, entry in enumerate(accept.lower().split(",")):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                with suppress(ValueError):
                    quality = float(parameter[2:])
        # Of two with the same quality, the first one named.
        accepted.setdefault(kind, (quality, -place))
    page = accepted.get("text/html", (0.0, 0))
    return page[0] > 0 and page > accepted.get("application/json", (0.0, 0))


@router.head("/")
@router.get("/")
def index(request: Request) -> Response:
    """The page for a browser, a JSON index for a program."""
    if wants_html(request.headers.get("accept", "")):
        return page()
    paths = sorted(request.app.openapi()["paths"])
    content = {"service": "precis", "docs": "/docs", "health": "/health", "paths": paths}
    return JSONResponse(content, headers={"Vary": "Accept"})


@router.head("/chat")
@router.head("/write")
@router.get("/chat")
@router.get("/write")
def page() -> Response:
    """The page; its own script shows the view that the address names."""
    return FileResponse(WEB / "index.html", media_type="text/html", headers=HEADERS)


def mount_assets(app: FastAPI) -> None:
    """Serve the page's scripts, styles and icon, compressed."""
    app.mount(ASSETS_URL, GZipMiddleware(Assets(directory=WEB / "page")), name="page-assets")
