"""URIs as people give them: one, several, or one text of several with spaces between; and as they are shown, without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PASSWORD = re.compile(r"(?<=://)([^/:\s]*):(?:[^/\s]*@|(?!\d+(?:/|\s|$))[^@\s]*@)")  # that may hold a / though it should not
_TOKEN = re.compile(r"(\bhttps?(?:@\w+)*://)[^/:@\s]+:?@", re.IGNORECASE)  # a user alone, which for web servers is a token
_SIGNATURE = re.compile(
    r"([?&](?:(?:[\w.-]*[-_.])?(?:sig|sign|pass|pwd|auth|key)"
    r"|[\w.-]*(?:signature|token|secret|passw(?:or)?d|credential|apikey|accesskeyid))=)[^&|#\s]+",
    re.IGNORECASE,
)
_UNSAFE = re.compile(r"[^\w.+@-]+")  # in the name of a folder
_LONGEST = 200  # characters of it
_LEFT_OUT = "..."
_ONLY_SHOWN = re.compile(r"://(?:[^/:\s]*:)?\.\.\.@|[?&][^=&\s]+=\.\.\.(?=[&#|\s]|$)")


def uris(given: str | Iterable[str]) -> list[str]:
    """A list of URIs. A text is split at spaces only if that leaves nothing but URIs, so that `file:///my data/a` stays whole."""
    if not isinstance(given, str):
        return [str(uri) for uri in given]
    words = given.split()
    return words if all("://" in word for word in words) else [given.strip()]


def uris_of(texts: Iterable[str]) -> list[str]:
    """The URIs of texts of which each may hold several: a cell of a table, the value of an option."""
    return [uri for text in texts for uri in uris(text)]


def shown(text: str) -> str:
    """A text with URIs in it as it may be shown: without passwords, and without what signs a URL."""
    if "://" not in text:
        return text
    return _SIGNATURE.sub(rf"\1{_LEFT_OUT}", _PASSWORD.sub(rf"\1:{_LEFT_OUT}@", _TOKEN.sub(rf"\1{_LEFT_OUT}@", text)))


def is_only_shown(uri: str) -> bool:
    """Whether a URI is what `shown` left of one, which leads nowhere."""
    return _LEFT_OUT in uri and _ONLY_SHOWN.search(uri) is not None


def folder_names(labels: Iterable[str]) -> list[str]:
    """A name of a folder, or of a file, for each label, no two the same."""
    found: dict[str, None] = {}
    for label in labels:
        plain = _UNSAFE.sub("_", label).lstrip(".")[:_LONGEST] or "_"
        name, number = plain, 1
        while name in found:
            number += 1
            name = f"{plain}_{number}"
        found[name] = None
    return list(found)
