"""Lists as people and programs want them: a table, JSON, CSV or ids; drawn again when something changed."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

from ...lib.server import Server
from ...protocol import TASK_STATES
from ..options import duration
from ..parser import Parser, one_of

FORMATS = ("table", "wide", "json", "jsonl", "csv", "ids")
WATCH_SECONDS = 2.0  # between two drawings if nothing changes
_LEAST_SECONDS = 0.5  # between two drawings if much does
_GAP = "  "


@dataclass(frozen=True)
class Column:
    """One property of a row. `long`: shown with -L alone. `text` makes what a person reads of the value."""

    key: str
    title: str
    long: bool = False
    text: Callable[[object], str] | None = None
    right: bool = False  # numbers


def add_options(parser: Parser, watch: bool = True) -> None:
    """-o, -H, -L, --limit and --watch of a list."""
    group = parser.add_argument_group("what is shown")
    group.add_argument("-o", "--format", type=one_of(FORMATS, "format"), metavar="FORMAT", help="|".join(FORMATS) + " (default: table)")
    group.add_argument("-H", "--no-header", action="store_true", help="no header line")
    group.add_argument("-L", "--long", action="store_true", help="every column")
    group.add_argument("--limit", type=_limit, metavar="N", help="the first N only")
    group.add_argument("--reverse", action="store_true", help="the newest first")
    if watch:
        group.add_argument(
            "--watch", nargs="?", const=WATCH_SECONDS, type=_seconds, metavar="TIME",
            help=f"draw it again when something changed, at least every TIME (default: {WATCH_SECONDS:g}s), until Ctrl-C",
        )  # fmt: skip


def show(server: Server, rows: Callable[[], Iterable[dict]], columns: tuple[Column, ...], arguments) -> int:
    """Writes the rows as the options of `add_options` say; with --watch again and again. The exit code."""
    if getattr(arguments, "watch", None) is None:
        write(rows(), columns, arguments)
        return 0
    version = None
    while True:
        start = time.monotonic()
        found = list(rows())
        _clear(arguments)
        write(found, columns, arguments)
        sys.stdout.flush()
        version = server.counts(version=version, wait=arguments.watch if version is not None else None)["version"]
        time.sleep(max(0.0, min(_LEAST_SECONDS, arguments.watch) - (time.monotonic() - start)))


def write(rows: Iterable[dict], columns: tuple[Column, ...], arguments) -> None:
    """Writes the rows once to stdout."""
    format = arguments.format or "table"
    if format == "json":
        _write_json(list(rows))
    elif format == "jsonl":
        for row in rows:
            print(json.dumps(row, default=_plain, ensure_ascii=False))
    elif format == "ids":
        for row in rows:
            print(row[columns[0].key])
    elif format == "csv":
        _write_csv(rows, [column for column in columns if arguments.long or not column.long], not arguments.no_header)
    else:
        every = arguments.long or format == "wide"
        _write_table(rows, [column for column in columns if every or not column.long], arguments, cut=format == "table")


def details(row: dict, columns: tuple[Column, ...], format: str | None) -> None:
    """Writes one row: a line a property, or JSON."""
    if format in ("json", "jsonl"):
        print(json.dumps(row, default=_plain, ensure_ascii=False, indent=2 if format == "json" else None))
        return
    width = max(len(column.title) for column in columns)
    for column in columns:
        if row.get(column.key) not in (None, [], {}, ""):
            print(f"{column.title:<{width}}  {cell(row, column)}")


def add_details_options(parser: Parser) -> None:
    """-o of a verb that shows one thing."""
    parser.add_argument("-o", "--format", type=one_of(("table", "json", "jsonl"), "format"), metavar="FORMAT", help="table|json|jsonl")


def cell(row: dict, column: Column) -> str:
    """The text of one property, in one line that cannot move the cursor."""
    value = row.get(column.key)
    return safe(column.text(value) if column.text and value is not None else _text(value))


def safe(text: str) -> str:
    """The text with its control characters written as escapes: names and output are data, never orders to a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


# --- how values are read ----------------------------------------------------------------------------------------------


def ago(value: object) -> str:
    """How long ago a time was: `12s`, `5m`, `3h`, `2d`."""
    return short_duration((datetime.now(timezone.utc) - value).total_seconds()) if isinstance(value, datetime) else _text(value)


def short_duration(seconds: object) -> str:
    """`0.4s`, `12s`, `5m03s`, `3h12m`, `2d05h`."""
    value = max(0.0, float(seconds))  # type: ignore[arg-type]
    if value < 10:
        return f"{value:.1f}s"
    whole = round(value)
    for unit, size, lesser, least in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // least:02}{lesser}"
    return f"{whole}s"


def size(value: object) -> str:
    """Bytes as people read them: `1.5 GB`."""
    amount = float(value)  # type: ignore[arg-type]
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} TB"


def counts(value: object) -> str:
    """`10 succeeded, 2 failed`, in the order of a task's life."""
    found: dict = value  # type: ignore[assignment]
    return ", ".join(f"{found[state]} {state}" for state in TASK_STATES if found.get(state)) or "-"


# --- inside ---------------------------------------------------------------------------------------------------------------


def _write_table(rows: Iterable[dict], columns: list[Column], arguments, cut: bool) -> None:
    texts = [[cell(row, column) or "-" for column in columns] for row in rows]
    if not arguments.no_header:
        texts.insert(0, [column.title for column in columns])
    if not texts:
        return
    widths = [max(len(line[i]) for line in texts) for i in range(len(columns))]
    most = shutil.get_terminal_size().columns if cut and sys.stdout.isatty() else None
    for line in texts:
        parts = [text.rjust(width) if column.right and i else text.ljust(width) for i, (text, width, column) in enumerate(zip(line, widths, columns))]
        print(_cut(_GAP.join(parts).rstrip(), most))


def _cut(line: str, most: int | None) -> str:
    return line if most is None or len(line) <= most else line[: most - 1] + "…"


def _write_json(rows: list[dict]) -> None:
    print(json.dumps(rows, default=_plain, ensure_ascii=False, indent=2))


def _write_csv(rows: Iterable[dict], columns: list[Column], header: bool) -> None:
    out = csv.writer(sys.stdout, lineterminator="\n")
    if header:
        out.writerow(column.key for column in columns)
    for row in rows:
        out.writerow(_plain_text(row.get(column.key)) for column in columns)


def _plain_text(value: object) -> str:
    return json.dumps(value, default=_plain) if isinstance(value, (dict, list)) else _text(value)


def _plain(value: object):
    """JSON of what is none: times in ISO 8601."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone().isoformat(sep=" ", timespec="seconds")
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return str(value)


def _clear(arguments) -> None:
    """A terminal is drawn anew; a file gets one drawing after the other, each under the time."""
    if (arguments.format or "table") not in ("table", "wide"):
        return
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[H\x1b[2J")
    print(datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"))


def _limit(text: str) -> int:
    from ..parser import number

    return number(1, 10**9)(text)


def _seconds(text: str) -> float:
    return max(0.1, min(duration(text, "--watch"), 60.0))
