"""The rows of `each`: written in the file, of a table, lines, a listing or a sample sheet; chosen, and those that agree made one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import yaml

from ..errors import ScitqError, nearest
from ..substitution import Row, read_table, unknown_name
from ..yamlvalues import Value, line_of, mapping, wrong_at
from .model import schema

ITEM = "item"  # the column of rows that are plain values
_SHOWN = 10  # values in an error

Cells = dict[str, "str | list[str]"]


@dataclass(slots=True)
class Table:
    """Rows with the same columns. `keys`: the columns that say which row it is; `labels`: what tells each in a task's name."""

    rows: list[Cells]
    keys: tuple[str, ...]
    labels: list[str]


def table_of(value: Value, used: Callable[[str], bool]) -> Table | None:
    """The rows of an `each`, None if it is nothing.

    Raises InvalidRequest with the line, also for an empty cell in a column that is used.
    """
    source, options = _source(value)
    if source is None:
        return None
    rows = _SOURCES[source.key](source, options)
    if "where" in options and source.key != "samples":
        rows = _where(rows, options["where"])
    if source.key not in ("rows", "samples"):
        _check_cells(value, rows, used)
    group = _columns(options["group"], rows[0]) if "group" in options else []
    table = grouped(rows, group) if group else Table(list(rows), tuple(rows[0]), labels(rows, [next(iter(rows[0]), "")]))
    return _first(table, options["limit"]) if "limit" in options else table


def grouped(rows: Iterable[Mapping], columns: list[str]) -> Table:
    """A row for each combination of values of these columns; each other column has the values of all rows that agree, as a list.
    """
    groups: dict[tuple, list[Mapping]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    joined = [
        {**dict(zip(columns, key, strict=True)), **{name: _joined(own, name) for name in own[0] if name not in columns}}
        for key, own in groups.items()
    ]
    return Table(joined, tuple(columns), labels(joined, columns))


def labels(rows: Iterable[Mapping], columns: list[str]) -> list[str]:
    """What these columns say of each row, or its number if they say the same of two."""
    texts = ["-".join(str(row.get(column, "")) for column in columns) for row in rows]
    return texts if len(set(texts)) == len(texts) else [str(number) for number in range(1, len(texts) + 1)]


def _joined(rows: list[Mapping], name: str) -> list[str]:
    values: list[str] = []
    for row in rows:
        values += row[name] if isinstance(row[name], list) else [row[name]]
    return values


# --- where rows come from -----------------------------------------------------------------------------------------------


def _source(value: Value) -> tuple[Value | None, dict[str, Value]]:
    """The one source that an `each` names, and the options that go with it."""
    node = value.node
    if isinstance(node, yaml.SequenceNode):
        return Value(value.path, "rows", node, value.row), {}
    if not isinstance(node, yaml.MappingNode):
        return (None if value.text() is None else Value(value.path, "table", node, value.row)), {}
    known = schema()["$defs"]["source"]["properties"]
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    if not any(key in known or nearest(key, known) for key in keys):
        raise value.wrong(
            "`each` must be a list of rows, or the path of a csv or tsv file, or name a source: {csv: FILE}, {glob: PATTERN}..."
        )
    given = {key: Value(value.path, key, found, value.row) for key, found in mapping(value.path, node, known, "`each`").items()}
    sources = [key for key in given if key in _SOURCES]
    if len(sources) != 1:
        these = f"these are {', '.join(sources)}" if sources else f"such as {', '.join(_SOURCES)}"
        raise value.wrong(f"`each` takes its rows from one source: {these}")
    source = given.pop(sources[0])
    for key in ("from", "layout"):
        if key in given and source.key != "samples":
            raise given[key].wrong(f"`{key}` goes with `samples`, not with `{source.key}`")
    return source, given


def _place(source: Value) -> str:
    """The text of a source, which has no names but those of parameters."""
    text = source.text() if isinstance(source.node, yaml.ScalarNode) else None
    wrong = unknown_name(source.node.value, source.row, strict=True) if text else None
    if wrong or not text:
        raise source.wrong(wrong or f"`{source.key}` must name where the rows come from")
    return text


def _path(source: Value) -> str:
    return os.path.join(os.path.dirname(source.path), _place(source))


def _located(source: Value, ask: Callable[[], list[Row]]) -> list[Row]:
    """What was found; an error says at which line of the file it was asked for."""
    try:
        return ask()
    except ScitqError as error:
        raise type(error)(f"{source.path}:{line_of(source.node)}: {error.message}") from None


def _of_table(source: Value, options: dict[str, Value], separator: str | None = None) -> list[Row]:
    return _located(source, lambda: read_table(_path(source), separator))


def _of_lines(source: Value, options: dict[str, Value]) -> list[Row]:
    """The lines of a text file that are not empty."""
    path = _path(source)
    try:
        with open(path, encoding="utf-8-sig") as file:
            rows = [{ITEM: line.strip()} for line in file if line.strip()]
    except OSError as error:
        raise source.wrong(f"the file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise source.wrong(f"the file {path} is not UTF-8 text") from None
    if not rows:
        raise source.wrong(f"the file {path} has no lines")
    return rows


def _of_rows(source: Value, options: dict[str, Value]) -> list[Row]:
    """Rows, or plain values, that are written here."""
    if not isinstance(source.node, yaml.SequenceNode):
        raise source.wrong("`rows` must be a list of rows or values")
    rows: list[Row] = []
    for node in source.node.value:
        value = Value(source.path, "each", node, source.row)
        rows.append(value.texts_by_name() if isinstance(node, yaml.MappingNode) else {ITEM: value.text() or ""})
        if rows[-1].keys() != rows[0].keys():
            raise value.wrong(f"this row has the columns {', '.join(rows[-1])}, the first one {', '.join(rows[0])}")
    if not rows:
        raise source.wrong("`each` has no rows")
    return rows


def _of_glob(source: Value, options: dict[str, Value]) -> list[Row]:
    from .listing import files  # which asks stores

    return _located(source, lambda: files(_place(source), os.path.dirname(source.path)))


def _of_samples(source: Value, options: dict[str, Value]) -> list[Row]:
    from .listing import samples  # which asks archives

    places = [text for text in source.texts() or [] if text]
    archive = options["from"].text() if "from" in options else "ena"
    if archive not in ("ena", "sra"):
        raise options["from"].wrong(f"samples come from ena or sra, not from {archive!r}{nearest(archive or '', ('ena', 'sra'))}")
    conditions = [
        (name, text)
        for name, wanted in (options["where"].lists_by_name() if "where" in options else {}).items()
        for text in wanted
    ]
    if "layout" in options:
        conditions.append(("library_layout", (options["layout"].text() or "").upper()))
    return _located(source, lambda: samples(places, archive, conditions, os.path.dirname(source.path)))


_SOURCES: dict[str, Callable[..., list[Row]]] = {
    "rows": _of_rows,
    "table": _of_table,
    "csv": lambda source, options: _of_table(source, options, ","),
    "tsv": lambda source, options: _of_table(source, options, "\t"),
    "lines": _of_lines,
    "glob": _of_glob,
    "samples": _of_samples,
}


# --- which of them ------------------------------------------------------------------------------------------------------


def _where(rows: list[Row], condition: Value) -> list[Row]:
    for name, values in condition.lists_by_name().items():
        if name not in rows[0]:
            raise condition.wrong(f"no column is named '{name}'{nearest(name, rows[0])}: there are {', '.join(rows[0])}")
        found = [row for row in rows if row[name] in values]
        if not found:
            there = sorted({row[name] for row in rows})
            told = f"{', '.join(there[:_SHOWN])}{'...' if len(there) > _SHOWN else ''}"
            raise condition.wrong(f"no row has {name} {' or '.join(values)}: there are {told}")
        rows = found
    return rows


def _check_cells(value: Value, rows: list[Row], used: Callable[[str], bool]) -> None:
    for name in filter(used, rows[0]):
        for number, row in enumerate(rows, 1):
            if not row[name].strip():
                raise value.wrong(f"row {number} has nothing in the column '{name}' ({_told(row)})")


def _told(row: Row) -> str:
    return ", ".join(f"{name} {text}" for name, text in row.items() if text.strip())[:100] or "it is empty"


def _columns(value: Value, row: Row) -> list[str]:
    names = value.texts() or []
    for name in names:
        if name not in row:
            raise value.wrong(f"no column is named '{name}'{nearest(name, row)}: there are {', '.join(row)}")
    return list(dict.fromkeys(names))


def _first(table: Table, limit: Value) -> Table:
    count = limit.number()
    if count is not None and count < 1:
        raise limit.wrong(f"`limit` must be 1 or more, not {count}")
    return Table(table.rows[:count], table.keys, table.labels[:count])


def check_apart(path: str, node: yaml.Node, names: Collection[str], lines: Mapping[str, int]) -> None:
    """Raises InvalidRequest if a column or a name of `matrix` is a parameter, too."""
    for name in names:
        if name in lines:
            raise wrong_at(path, node, f"'{name}' is a column here and a parameter at line {lines[name]}: rename one")
