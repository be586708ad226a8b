"""The pages of the web UI: plain files, read from wherever this package is, the one file too."""

from __future__ import annotations

import os
import re

KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_NAME = re.compile(rf"(?:js/)?[A-Za-z0-9_-]+\.({'|'.join(KINDS)})")


def kind(name: str) -> str | None:
    """The content type of what has the name of a file of the pages; None for what has not."""
    found = _NAME.fullmatch(name)
    return KINDS[found[1]] if found else None


def read(name: str) -> bytes | None:
    """The bytes of a file of the pages; None if there is none of this name."""
    try:
        return __spec__.loader.get_data(os.path.join(os.path.dirname(__file__), *name.split("/"))) if kind(name) else None
    except OSError:
        return None
