"""Pages for people: the index, and API documentation that needs no other host."""

from __future__ import annotations

from pathlib import Path

import fastapi_offline
import yaml
from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

ASSETS_URL = "/assets/docs"
INDEX = Path(__file__).parent.parent / "web" / "index.html"

router = APIRouter(include_in_schema=False)


def wants_html(accept: str) -> bool:
    """Return whether a client prefers a page: browsers name text/html, programs rarely do."""
    return "text/html" in accept and not accept.strip().startswith("application/json")


@router.get("/")
def index(request: Request) -> Response:
    """The page for a browser, a JSON index for a program."""
    if wants_html(request.headers.get("accept", "")):
        return HTMLResponse(INDEX.read_text(encoding="utf-8"), headers={"Vary": "Accept"})
    paths = sorted(request.app.openapi()["paths"])
    content = {"service": "precis", "docs": "/docs", "health": "/health", "paths": paths}
    return JSONResponse(content, headers={"Vary": "Accept"})


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    """Swagger UI; its script and style come from a package, through this server."""
    root = request.scope.get("root_path", "")
    return get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="Precis: API",
        swagger_js_url=f"{root}{ASSETS_URL}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{ASSETS_URL}/swagger-ui.css",
        swagger_favicon_url=f"{root}{ASSETS_URL}/favicon.png",
    )


@router.get("/redoc")
def redoc(request: Request) -> HTMLResponse:
    """ReDoc, likewise."""
    root = request.scope.get("root_path", "")
    return get_redoc_html(
        openapi_url=f"{root}/openapi.json",
        title="Precis: API",
        redoc_js_url=f"{root}{ASSETS_URL}/redoc.standalone.js",
        redoc_favicon_url=f"{root}{ASSETS_URL}/favicon.png",
        with_google_fonts=False,
    )


@router.get("/openapi.yaml")
def openapi_yaml(request: Request) -> Response:
    """The API's description as YAML."""
    text = yaml.safe_dump(request.app.openapi(), sort_keys=False, allow_unicode=True)
    return Response(text, media_type="application/yaml")


def mount_assets(app: FastAPI) -> None:
    """Serve the scripts and styles of the documentation pages."""
    folder = Path(fastapi_offline.__file__).parent / "static"
    app.mount(ASSETS_URL, StaticFiles(directory=folder), name="docs-assets")
