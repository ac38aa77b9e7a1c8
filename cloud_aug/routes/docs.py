"""The page at /docs. Its scripts come from this server, so that it works without the internet and tells nobody."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, HTMLResponse, Response

from edgewire.errors import NotFound

router = APIRouter(include_in_schema=False)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>cloud-aug</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", validatorUrl: null});\n'
_FILES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}


@router.get("/docs")
def page() -> Response:
    """Swagger UI."""
    return HTMLResponse(_PAGE, headers={"content-security-policy": _POLICY, "referrer-policy": "no-referrer"})


@router.get("/docs/start.js")
def start() -> Response:
    """Apart from the page, so that the policy can forbid scripts inside it."""
    return Response(_START, media_type="text/javascript")


@router.get("/docs/{name}")
def file(name: str) -> Response:
    """Swagger UI's own files, from the package that carries them."""
    if name not in _FILES:
        raise NotFound("there is no such page")
    return FileResponse(_static() / name, media_type=_FILES[name], headers={"cache-control": "max-age=86400"})


def _static() -> Path:
    found = importlib.util.find_spec("fastapi_offline")
    if found is None or found.origin is None:
        raise NotFound("Swagger UI is not installed", hint="pip install 'edgectl[cloud]'")
    return Path(found.origin).parent / "static"
