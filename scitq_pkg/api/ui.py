"""The files of the web UI; every path under `/ui/` that is no file is one of its pages."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache

import rcssmin
import rjsmin
from marshmallow import EXCLUDE

from .. import ui
from ..errors import NotFound
from ..ui.bundle import bundle
from .answers import Answer
from .call import Call
from .gate import HEADERS
from .inputs import Body
from .routes import ANYBODY, route

INDEX = "index.html"
MOST_DEPTH = 20
SCRIPTS = ("main", "theme")  # what the page asks for; each comes with all modules that it needs
_POLICY = HEADERS["Content-Security-Policy"] + "; require-trusted-types-for 'script'; trusted-types 'none'"
_TAKES_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))", re.IGNORECASE)


class PageQuery(Body):
    """Filters in the address of a page: it reads them itself."""

    class Meta:
        unknown = EXCLUDE


@dataclass(frozen=True)
class _File:
    kind: str
    plain: bytes
    zipped: bytes
    tag: str


@route("GET", "/", ANYBODY, "Leads to the web UI", status=303)
def home(call: Call) -> Answer:
    return Answer(b"", 303, {"Location": "ui/"})


@route("GET", "/ui", ANYBODY, "Leads to the web UI", status=303)
def without_slash(call: Call) -> Answer:
    return Answer(b"", 303, {"Location": "ui/"})


@route("GET", "/ui/", ANYBODY, "The web UI", query=PageQuery, answer="text/html")
def index(call: Call) -> Answer:
    return _answer(call, _index(0))


@route("GET", "/ui/<name:path>", ANYBODY, "The files and pages of the web UI", query=PageQuery, answer="text/html")
def page(call: Call, name: str) -> Answer:
    """Names like those of files are files, and not found if there is none; all others are for the page itself to read."""
    if ui.kind(name) is None or name == INDEX:
        return _answer(call, _index(min(_depth(call.environ), MOST_DEPTH)))
    file = _file(name)
    if file is None:
        raise NotFound(f"there is no file {name!r:.80}")
    return _answer(call, file)


def _depth(environ: dict) -> int:
    """How many folders below `/ui/` a browser believes to be; a slash that is written `%2F` parts none."""
    asked = environ.get("REQUEST_URI") or environ["PATH_INFO"]
    return asked.partition("?")[0].partition("/ui/")[2].count("/")


@lru_cache(maxsize=100)
def _file(name: str) -> _File | None:
    kind = ui.kind(name)
    plain = script(name) if kind == ui.KINDS["js"] else ui.read(name)
    if plain is not None and kind == ui.KINDS["css"]:
        plain = rcssmin.cssmin(plain)
    return _prepared(kind, plain) if plain is not None and kind else None


@lru_cache(maxsize=MOST_DEPTH + 1)
def _index(depth: int) -> _File:
    """The one page, which finds its files from this deep: a `<base>` is not allowed, and a proxy may add a prefix."""
    plain = ui.read(INDEX)
    if plain is None:
        raise NotFound("the pages of the web UI are not installed here")
    return _prepared(ui.KINDS["html"], plain.replace(b'="./', b'="' + (b"../" * depth or b"./")))


def script(name: str) -> bytes | None:
    """A script and all its modules in one, without what only people read; None for one that no page asks for."""
    module = name.removeprefix("js/").removesuffix(".js")
    return rjsmin.jsmin(bundle(module, _module)).encode() if module in SCRIPTS else None


def _module(name: str) -> str:
    text = ui.read(f"js/{name}.js")
    if text is None:
        raise NotFound(f"the module {name}.js of the web UI is not installed here")
    return text.decode()


def _prepared(kind: str, plain: bytes) -> _File:
    return _File(kind, plain, gzip.compress(plain, 9, mtime=0), hashlib.sha256(plain).hexdigest()[:20])


def _answer(call: Call, file: _File) -> Answer:
    zips = _TAKES_GZIP.search(call.environ.get("HTTP_ACCEPT_ENCODING", "")) is not None
    tag = f'"{file.tag}{"-gz" if zips else ""}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding", "Content-Security-Policy": _POLICY}
    if tag in call.environ.get("HTTP_IF_NONE_MATCH", ""):
        return Answer(b"", 304, headers)
    if zips:
        headers["Content-Encoding"] = "gzip"
    return Answer(file.zipped if zips else file.plain, headers={"Content-Type": file.kind, **headers})
