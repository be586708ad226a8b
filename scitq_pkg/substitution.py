"""Texts with `{column}` in them, and the tables whose rows fill them: `scitq launch --each` and batch files.

`{x}` is replaced only when x is a name of the row. What it does not know stays as it is, and so does `${x}`: the shell's
variables, `awk '{print}'` and JSON can be written without any escape.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from .errors import InvalidRequest, nearest

Row = dict[str, str]

_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip")


def _stem(value: str) -> str:
    """`data/a.fastq.gz` -> `a`: the name without its extension, a compression's extension not counted."""
    name = os.path.basename(value)
    root, extension = os.path.splitext(name)
    return os.path.splitext(root)[0] if extension.lower() in _COMPRESSIONS else root


def _quoted(value: str) -> str:
    import shlex  # only texts that ask for it

    return shlex.quote(value)


MODIFIERS: dict[str, Callable[[str], str]] = {
    "name": os.path.basename,
    "stem": _stem,
    "dir": lambda value: os.path.dirname(value) or ".",
    "q": _quoted,
}


def substitute(text: str, row: Mapping[str, str]) -> str:
    """`text` with each `{x}` and `{x:modifier...}` of the row's names replaced. Raises InvalidRequest for an unknown modifier."""
    if "{" not in text or not row:
        return text
    return _pattern(tuple(row)).sub(lambda found: _modified(row[found[1]], found), text)


@lru_cache(maxsize=64)
def _pattern(names: tuple[str, ...]) -> re.Pattern:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(r"(?<!\$)\{(" + "|".join(map(re.escape, longest_first)) + r")((?::[^{}:\s]*)*)\}")


def _modified(value: str, found: re.Match) -> str:
    for modifier in found[2].split(":")[1:]:
        if modifier not in MODIFIERS:
            raise InvalidRequest(
                f"{found[0]} has no modifier {modifier!r}{nearest(modifier, MODIFIERS)}: there are {', '.join(MODIFIERS)}"
            )
        value = MODIFIERS[modifier](value)
    return value


def read_table(path: str) -> list[Row]:
    """The rows of a table with a header: commas, or tabs for `.tsv` and `.tab`. Empty lines are passed over.

    Raises InvalidRequest with path and line for what cannot be read, a row of another length, or columns named twice.
    """
    separator = "\t" if path.lower().endswith((".tsv", ".tab")) else ","
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return _rows(path, csv.reader(file, delimiter=separator, strict=True))
    except OSError as error:
        raise InvalidRequest(f"the table {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"the table {path} is not UTF-8 text") from None


def _rows(path: str, lines) -> list[Row]:
    columns: list[str] | None = None
    rows = []
    try:
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = _columns(f"{path}:{lines.line_num}", [cell.strip() for cell in cells])
            elif len(cells) != len(columns):
                raise InvalidRequest(f"{path}:{lines.line_num}: {len(cells)} values for {len(columns)} columns")
            else:
                rows.append(dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise InvalidRequest(f"{path}:{lines.line_num}: {error}") from None
    if not rows:
        raise InvalidRequest(f"the table {path} has no rows: a header and one line a task are expected")
    return rows


def _columns(where: str, names: Iterable[str]) -> list[str]:
    """The header, if it can be one."""
    columns: list[str] = []
    for name in names:
        if not name or any(c in name for c in "{}:"):
            raise InvalidRequest(f"{where}: {name!r} cannot name a column: a name without braces and colons is expected")
        if name in columns:
            raise InvalidRequest(f"{where}: two columns are named {name!r}")
        columns.append(name)
    return columns
