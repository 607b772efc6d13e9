"""API documentation for people, which needs no other host: Swagger UI, ReDoc, and YAML.

The scripts of both come from a package, through this server. The pages name everything relative to
their own address, so that they work behind any prefix. What the description says is not known here.
"""

from __future__ import annotations

from pathlib import Path

import fastapi_offline
import yaml
from fastapi import APIRouter, FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from app.api.pages import FRAMES, WEB, Assets

PACKAGE = Path(fastapi_offline.__file__).parent / "static"
PACKAGE_URL = "/assets/docs"
ASSETS_URL = "/assets/docs-page"

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "frame-ancestors": FRAMES,
    "base-uri": "'none'",
    "form-action": "'none'",
}

router = APIRouter(include_in_schema=False)


@router.head("/docs")
@router.get("/docs")
def docs() -> Response:
    """Swagger UI, with a panel that shows the events of a stream as they come."""
    return _page("swagger.html")


@router.head("/redoc")
@router.get("/redoc")
def redoc() -> Response:
    """ReDoc, likewise without another host."""
    # It writes its styles into the page, and searches in a worker that it makes from a blob.
    return _page("redoc.html", {"style-src": "'self' 'unsafe-inline'", "worker-src": "blob:"})


@router.head("/openapi.yaml")
@router.get("/openapi.yaml")
def openapi_yaml(request: Request) -> Response:
    """The API's description as YAML."""
    text = yaml.safe_dump(request.app.openapi(), sort_keys=False, allow_unicode=True)
    return Response(text, media_type="application/yaml")


def mount_assets(app: FastAPI) -> None:
    """Serve the scripts and styles of the documentation, compressed."""
    for url, folder in ((PACKAGE_URL, PACKAGE), (ASSETS_URL, WEB / "docs")):
        app.mount(url, GZipMiddleware(Assets(directory=folder)), name=url.rpartition("/")[2])


def _page(name: str, also: dict[str, str] | None = None) -> Response:
    policy = "; ".join(f"{name} {value}" for name, value in {**_POLICY, **(also or {})}.items())
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return FileResponse(WEB / name, media_type="text/html", headers=headers)
