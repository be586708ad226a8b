"""Texts with `{column}` in them, and the tables whose rows fill them: `scitq launch --each` and batch files.

`{x}` is replaced only when x is a name of the row. What it does not know stays as it is, and so does `${x}`: the shell's
variables, `awk '{print}'` and JSON can be written without any escape.
"""

from __future__ import annotations

import csv
import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from .errors import InvalidRequest, nearest

Row = dict[str, str]
Cells = Mapping[str, "str | list[str]"]
"""Values by their names; several values of one name are told with spaces between, and modified one by one."""

MARK = re.compile(r"(?<!\$)\{([A-Za-z_][\w.-]*)((?::[^{}:\s]*)*)\}")  # what could be meant as one of our names
_PROGRAMS_OWN = ("print", "printf", "next", "exit", "getline", "delete", "return", "break", "continue")  # of awk, mostly
_ALIKE = 0.8  # how near a name must be to one of ours to be taken for a slip
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


def substitute(text: str, row: Cells) -> str:
    """`text` with each `{x}` and `{x:modifier...}` of the row's names replaced. Raises InvalidRequest for an unknown modifier."""
    if "{" not in text or not row:
        return text
    return _pattern(tuple(row)).sub(lambda found: " ".join(_modified(row[found[1]], found)), text)


def substituted(text: str, row: Cells) -> list[str]:
    """The same as texts of their own: several only where the whole text stands for several values."""
    found = _pattern(tuple(row)).fullmatch(text) if row and text.startswith("{") else None
    return _modified(row[found[1]], found) if found and isinstance(row[found[1]], list) else [substitute(text, row)]


def unknown_name(text: str, names: Iterable[str], strict: bool) -> str | None:
    """What is wrong with a `{name}` that is none of the names: with `strict` each is, else those that are nearly one of them."""
    known = list(names)
    for found in MARK.finditer(text) if "{" in text else ():
        name = found[1]
        if name in known or found[0][1:-1] in known or name in _PROGRAMS_OWN:
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6 if strict else _ALIKE) if len(name) > 3 or strict else []
        if close:
            hint = "" if strict else f"; if it is the command's own, write {{ {name} }}"
            return f"there is no {found[0]} (did you mean {{{close[0]}}}?){hint}"
        if strict:
            return f"there is no {found[0]}: there are {', '.join(known) or 'no names here'}"
    return None


@lru_cache(maxsize=64)
def _pattern(names: tuple[str, ...]) -> re.Pattern:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(r"(?<!\$)\{(" + "|".join(map(re.escape, longest_first)) + r")((?::[^{}:\s]*)*)\}")


def _modified(value: str | list[str], found: re.Match) -> list[str]:
    values = value if isinstance(value, list) else [value]
    for modifier in found[2].split(":")[1:]:
        if modifier not in MODIFIERS:
            raise InvalidRequest(
                f"{found[0]} has no modifier {modifier!r}{nearest(modifier, MODIFIERS)}: there are {', '.join(MODIFIERS)}"
            )
        values = [MODIFIERS[modifier](value) for value in values]
    return values


def read_table(path: str, separator: str | None = None) -> list[Row]:
    """The rows of a table with a header: commas, or tabs for `.tsv` and `.tab`, or a separator. Empty lines are passed over.

    Raises InvalidRequest with path and line for what cannot be read, a row of another length, or columns named twice.
    """
    separator = separator or ("\t" if path.lower().endswith((".tsv", ".tab")) else ",")
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
