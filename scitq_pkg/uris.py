"""URIs as people give them: one, several, or one text of several with spaces between."""

from __future__ import annotations

from collections.abc import Iterable


def uris(given: str | Iterable[str]) -> list[str]:
    """A list of URIs. A text is split at spaces only if that leaves nothing but URIs, so that `file:///my data/a` stays whole."""
    if not isinstance(given, str):
        return [str(uri) for uri in given]
    words = given.split()
    return words if all("://" in word for word in words) else [given.strip()]
