"""The API's own pages: its description, and a page to read and try it."""

from __future__ import annotations

import html
import json
from functools import lru_cache

from ..errors import NotFound
from ..layers import documentation_file
from .answers import Answer
from .call import Call
from .openapi import document
from .routes import ANYBODY, TABLE, route

HTML = "text/html; charset=utf-8"
_ASSETS = {"swagger-ui.css": "text/css; charset=utf-8", "swagger-ui-bundle.js": "text/javascript; charset=utf-8"}
_START = """\
window.addEventListener("load", () => SwaggerUIBundle({
  url: "openapi.json", dom_id: "#docs", deepLinking: true, tryItOutEnabled: true, docExpansion: "list", validatorUrl: null,
}));
"""
_SWAGGER_PAGE = """\
<!doctype html><html lang="en"><meta charset="utf-8"><title>scitq API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script>
<div id="docs"></div></html>
"""


@route("GET", "/openapi.json", ANYBODY, "The description of this API")
def openapi(call: Call) -> Answer:
    return Answer(_document_bytes(), headers={"Content-Type": "application/json"})


@lru_cache(maxsize=1)
def _document_bytes() -> bytes:
    return json.dumps(document()).encode()


@route("GET", "/docs", ANYBODY, "A page to read and try this API", answer="text/html")
def docs(call: Call) -> Answer:
    page = _SWAGGER_PAGE if all(map(_asset, _ASSETS)) else _plain_page()
    return Answer(page.encode(), headers={"Content-Type": HTML})


@route("GET", "/docs/<name>", ANYBODY, "The files of that page", answer="application/octet-stream")
def docs_file(call: Call, name: str) -> Answer:
    if name == "start.js":
        return Answer(_START.encode(), headers={"Content-Type": "text/javascript; charset=utf-8"})
    data = _asset(name) if name in _ASSETS else None
    if data is None:
        raise NotFound(f"there is no file {name!r:.80}")
    return Answer(data, headers={"Content-Type": _ASSETS[name], "Cache-Control": "public, max-age=86400"})


@lru_cache(maxsize=len(_ASSETS))
def _asset(name: str) -> bytes | None:
    """A file of Swagger UI; None where those are not installed."""
    try:
        return documentation_file(name)
    except FileNotFoundError:
        return None


def _plain_page() -> str:
    """All routes as a table, where the files of Swagger UI are not installed."""
    rows = "".join(
        f"<tr><td>{entry.method}<td><code>{html.escape(entry.template)}</code><td>{' or '.join(entry.roles) or 'anybody'}"
        f"<td>{html.escape(entry.summary)}</tr>\n"
        for entry in TABLE
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>scitq API</title><h1>scitq API</h1>\n'
        f'<p>Described by <a href="openapi.json">openapi.json</a>.</p><table>{rows}</table></html>\n'
    )
