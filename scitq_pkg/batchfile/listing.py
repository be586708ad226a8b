"""Rows that somebody else is asked for: the files of a store or of a folder here, the samples of an archive."""

from __future__ import annotations

import glob as here
import os
import re

from ..errors import InvalidRequest, NotFound
from ..substitution import MODIFIERS, Row

_WILD = re.compile(r"[*?\[]")


def files(pattern: str, folder: str) -> list[Row]:
    """The files that a pattern means, sorted: columns `uri`, `name`, `stem`. `*` and `?` stop at a /, `**/` is any folders.

    A path is relative to `folder`. Raises InvalidRequest if there is none; what the store answers, otherwise.
    """
    uris = _remote(pattern) if "://" in pattern else _local(os.path.abspath(os.path.join(folder, pattern)))
    if not uris:
        raise InvalidRequest(f"no file matches {pattern}")
    return [{"uri": uri, "name": os.path.basename(uri), "stem": MODIFIERS["stem"](uri)} for uri in sorted(uris)]


def _local(pattern: str) -> list[str]:
    return [path for path in here.glob(pattern, recursive=True) if os.path.isfile(path)]


def _remote(pattern: str) -> list[str]:
    from ..fetch import list_content

    scheme, _, place = pattern.partition("://")
    found = _WILD.search(place)
    start = place.rfind("/", 0, found.start()) + 1 if found else len(place)
    if not found:
        raise InvalidRequest(f"{pattern} has no * or ?: a pattern such as s3://bucket/reads/*.fastq.gz is expected")
    rest = place[start:]
    matches = re.compile(_expression(rest)).fullmatch
    try:
        entries = list_content(f"{scheme}://{place[:start]}", no_rec="/" not in rest)
    except NotFound:
        return []
    return [entry.uri.text for entry in entries if matches(entry.path)]


def _expression(pattern: str) -> str:
    """The regular expression of a glob whose `*` stops at a /."""
    wild = {"**/": r"(?:[^/]+/)*", "*": r"[^/]*", "?": r"[^/]"}

    def part(found: re.Match) -> str:
        text = found[0]
        if len(text) > 1 and text[0] == "[":
            inside = text[1:-1].replace("\\", r"\\")
            return f"[^{inside[1:]}]" if inside[0] in "!^" else f"[{inside}]"
        return wild.get(text) or re.escape(text)

    return re.sub(r"\*\*/|\*|\?|\[[!^]?[^\]/]+\]|.", part, pattern, flags=re.DOTALL)


def samples(places: list[str], archive: str, conditions: list[tuple[str, str]], folder: str) -> list[Row]:
    """A row a sample, as `scitq fetch samples` writes them: of accessions, or of one folder.

    Raises InvalidRequest and what bio raises.
    """
    from ..bio import genetics, sheet

    folders = [place for place in places if "/" in place]
    if folders and len(places) > 1 or not places:
        raise InvalidRequest("`samples` takes accessions, or one folder such as s3://lab/reads/")
    if folders:
        place = folders[0] if "://" in folders[0] else os.path.abspath(os.path.join(folder, folders[0])) + "/"
        found = genetics.uri_get_samples(place)
    else:
        found = {"ena": genetics.ena_get_samples, "sra": genetics.sra_get_samples}[archive](places)
    rows = sheet.rows(sheet.where(found, conditions))
    return [{name: str(cell) for name, cell in row.items()} for row in rows]
