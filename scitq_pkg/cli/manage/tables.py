"""Lists as people and programs want them: a table, JSON, CSV or ids; drawn again when something changed.

Rows are JSON values as the API gives them. What programs read is those values; what people read is made of them here.
"""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from ...durations import short_duration
from ...escapes import obeyed, safe
from ...lib.client import PAGE
from ...lib.objects import to_datetime
from ...lib.server import Server, find, query
from ...protocol import TASK_STATES
from ..options import duration
from ..parser import OneOf, Parser, number

FORMATS = ("table", "wide", "json", "jsonl", "csv", "ids")
WATCH_SECONDS = 2.0  # between two drawings if nothing changes
_LEAST_SECONDS = 0.5  # between two drawings if much does
_LONGEST_SECONDS = 60.0
_FRAME_LINES = 3  # of a watched table: the time, the header, the cursor's
_WIDEST = 40  # characters that other cells are aligned to; what is longer stands out, on a terminal it is cut
_GAP = "  "


@dataclass(frozen=True)
class Column:
    """One property of a row. `long`: shown with -L alone. `text` makes what is read of the value, or (`whole`) of the row."""

    key: str  # of the row; an empty one is for people alone, and not in CSV
    title: str
    long: bool = False
    text: Callable | None = None
    whole: bool = False
    right: bool = False  # numbers


def add_options(parser: Parser, watch: bool = True) -> None:
    """-o, -H, -L, --limit and --watch of a list."""
    add = parser.add_argument_group("what is shown").add_argument
    add(
        "-o",
        "--format",
        type=OneOf(FORMATS, "format"),
        default="table",
        metavar="FORMAT",
        help="|".join(FORMATS) + " (default: table)",
    )
    add("-H", "--no-header", action="store_true", help="no header line")
    add("-L", "--long", action="store_true", help="every column")
    add("--limit", type=number(1, 10**9), metavar="N", help="the first N only")
    add("--reverse", action="store_true", help="the newest first")
    if watch:
        about = f"show it again when something changed, at least every TIME (default: {WATCH_SECONDS:g}s), until Ctrl-C"
        add("--watch", nargs="?", const=f"{WATCH_SECONDS}", metavar="TIME", help=about)


def rows_of(server: Server, path: str, arguments, **filters) -> Iterator[dict]:
    """The items of a list of the API, page by page, as --limit and --reverse want them."""
    extra = {name: filters.pop(name) for name in ("task", "object", "who") if name in filters}
    return find(server.client, path, arguments.limit, "-id" if arguments.reverse else "id", query(filters) | extra)


def show(server: Server, rows: Callable[[], Iterable[dict]], columns: tuple[Column, ...], arguments) -> int:
    """Writes the rows as the options of `add_options` say; with --watch again and again. The exit code."""
    if arguments.watch is None:
        write(rows(), columns, arguments)
        return 0
    seconds = min(_LONGEST_SECONDS, max(0.1, duration(arguments.watch, "--watch")))
    if sys.stdout.isatty() and arguments.limit is None:
        arguments.limit = max(1, shutil.get_terminal_size().lines - _FRAME_LINES)  # what does not scroll away
    version = None
    while True:
        start = time.monotonic()
        found = list(rows())
        _clear(arguments)
        write(found, columns, arguments)
        sys.stdout.flush()
        version = server.counts(version=version, wait=seconds if version is not None else None)["version"]
        time.sleep(max(0.0, min(_LEAST_SECONDS, seconds) - (time.monotonic() - start)))


def write(rows: Iterable[dict], columns: tuple[Column, ...], arguments) -> None:
    """Writes the rows once to stdout."""
    shown = [column for column in columns if arguments.long or arguments.format == "wide" or not column.long]
    if arguments.format == "json":
        _write_json(rows)
    elif arguments.format == "jsonl":
        for row in rows:
            print(_json(row))
    elif arguments.format == "ids":
        for row in rows:
            print(row[columns[0].key])
    elif arguments.format == "csv":
        _write_csv(rows, shown, not arguments.no_header)
    else:
        write_table(rows, shown, not arguments.no_header, cut=arguments.format == "table" and sys.stdout.isatty())


def add_details_option(parser: Parser) -> None:
    """-o of a verb that shows one thing, or several."""
    formats = ("table", "json", "jsonl")
    parser.add_argument(
        "-o", "--format", type=OneOf(formats, "format"), default="table", metavar="FORMAT", help="|".join(formats)
    )


def details(things: list[dict], columns: tuple[Column, ...], format: str) -> None:
    """Writes things one below the other, a line a property; or JSON: one alone is an object, several are a list."""
    if format == "json":
        print(_json(things[0] if len(things) == 1 else things, indent=2))
        return
    width = max(len(column.title) for column in columns)
    for place, thing in enumerate(things):
        if format == "jsonl":
            print(_json(thing))
            continue
        if place:
            print()
        for column in columns:
            if column.whole or thing.get(column.key) not in (None, [], {}, ""):
                for line, text in enumerate(filter(None, _text(thing, column).rstrip("\n").split("\n"))):
                    print(f"{'' if line else column.title:<{width}}  {safe(text)}")


def cell(row: dict, column: Column) -> str:
    """The text of one property, in one line that cannot move the cursor."""
    return safe(_text(row, column))


def _text(row: dict, column: Column) -> str:
    value = row if column.whole else row.get(column.key)
    return column.text(value) if column.text and value is not None else plain(value)


# --- how values are read ----------------------------------------------------------------------------------------------


def plain(value: object) -> str:
    """A JSON value as one text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(map(plain, value))
    if isinstance(value, dict):
        return " ".join(f"{key}={plain(item)}" for key, item in value.items() if item != {})
    return str(value)


def moment(text: str) -> str:
    """A time, in this machine's zone."""
    return to_datetime(text).astimezone().isoformat(sep=" ", timespec="seconds")


def zoned(text: str | None) -> str | None:
    """A time that somebody typed, with this machine's zone unless it names one, as `moment` shows it. Ages (`2h`) stay."""
    try:
        typed = datetime.fromisoformat(text or "")
        return typed.astimezone().isoformat() if typed.tzinfo is None else text
    except (ValueError, OverflowError):  # no time: the server reads it, or tells what is wrong with it
        return text


def ago(text: str) -> str:
    """How long ago a time was: `12s`, `5m`, `3h`, `2d`."""
    return short_duration((datetime.now(timezone.utc) - to_datetime(text)).total_seconds())


def byte_size(amount: float) -> str:
    """Bytes as people read them: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def counts(found: dict) -> str:
    """`10 succeeded, 2 failed`, in the order of a task's life."""
    return ", ".join(f"{found[state]} {state}" for state in TASK_STATES if found.get(state))


# --- inside ---------------------------------------------------------------------------------------------------------------


def write_table(rows: Iterable[dict], columns: Sequence[Column], header: bool = True, cut: bool = False) -> None:
    """Writes a table; a `cut` one is no wider than the terminal.

    The first page gives the widths; what comes after it is written as it comes.
    """
    lines = ([cell(row, column) or "-" for column in columns] for row in rows)
    first = list(itertools.islice(lines, PAGE))
    titles = [[column.title for column in columns]] if header else []
    widths = [min(_WIDEST, max(map(len, texts))) for texts in zip(*titles, *first)]
    most = shutil.get_terminal_size().columns if cut else None
    for texts in itertools.chain(titles, first, lines):
        if most is not None:
            texts = [*(_cut(text, _WIDEST) for text in texts[:-1]), texts[-1]]
        padded = (
            text.rjust(width) if column.right and place else text.ljust(width)
            for place, (text, width, column) in enumerate(zip(texts, widths, columns))
        )  # fmt: skip
        print(_cut(_GAP.join(padded).rstrip(), most))


def _cut(line: str, most: int | None) -> str:
    return line if most is None or len(line) <= most else line[: most - 1] + "…"


def _write_json(rows: Iterable[dict]) -> None:
    """A list, a row after the other."""
    mark = "["
    for row in rows:
        print(f"{mark}\n{_json(row, indent=2)}", end="")
        mark = ","
    print("\n]" if mark == "," else "[]")


def _write_csv(rows: Iterable[dict], columns: list[Column], header: bool) -> None:
    out = csv.writer(sys.stdout, lineterminator="\n")
    keys = [column.key for column in columns if column.key]
    if header:
        out.writerow(keys)
    for row in rows:
        values = (row.get(key) for key in keys)
        out.writerow(_json(value) if isinstance(value, (dict, list)) else value for value in values)


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=(sys.stdout.encoding or "").lower() != "utf-8", indent=indent)


def _clear(arguments) -> None:
    """A terminal is drawn anew; elsewhere one drawing follows the other, each under its time."""
    if arguments.format not in ("table", "wide"):
        return
    if obeyed(sys.stdout):
        sys.stdout.write("\x1b[H\x1b[2J")
    print(datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"))
