"""`matrix`: all combinations of some values, without those that are excluded, with what is included."""

from __future__ import annotations

import itertools
from collections import Counter

import yaml

from ..errors import nearest
from ..substitution import Row
from ..yamlvalues import Value

_MOST = 1_000_000  # tasks a file could mean by accident


def combinations(value: Value) -> tuple[list[Row], list[str]]:
    """The combinations of a matrix, and the names that tell them apart. Raises InvalidRequest with the line."""
    given = value.pairs()
    lists = {key: Value(value.path, key, given.pop(key)[1], value.row) for key in ("include", "exclude") if key in given}
    values = {name: _values(Value(value.path, f"matrix: {name}", node, value.row)) for name, (_, node) in given.items()}
    _check_count(value, values)
    rows = [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())] if values else []
    for part, partial in _rows(lists.get("exclude")):
        rows = _without(rows, part, partial, values)
    new: list[Row] = []
    for part, row in _rows(lists.get("include")):
        _include(rows, new, part, row, values)
    rows += new
    if not rows:
        raise value.wrong("`matrix` leaves no combination")
    return _filled(rows), list(values) or list(rows[0])


def _values(value: Value) -> list[str]:
    texts = value.texts() or []
    if not texts:
        raise value.wrong(f"`{value.key}` has no values")
    for text, number in Counter(texts).items():
        if number > 1:
            raise value.wrong(f"`{value.key}` has {text!r:.60} twice")
    return texts


def _check_count(value: Value, values: dict[str, list[str]]) -> None:
    count = 1
    for texts in values.values():
        count *= len(texts)
    if count > _MOST:
        raise value.wrong(f"`matrix` would make {count:,} combinations: {_MOST:,} are the most")


def _rows(value: Value | None) -> list[tuple[Value, Row]]:
    if value is None or (isinstance(value.node, yaml.ScalarNode) and value.text() is None):
        return []
    if not isinstance(value.node, yaml.SequenceNode):
        raise value.wrong(f"`{value.key}` must be a list of rows, such as [{{name: value}}]")
    parts = [Value(value.path, value.key, node, value.row) for node in value.node.value]
    return [(part, part.texts_by_name()) for part in parts]


def _without(rows: list[Row], part: Value, partial: Row, values: dict[str, list[str]]) -> list[Row]:
    for name, text in partial.items():
        if name not in values:
            raise part.wrong(f"`matrix` has no '{name}'{nearest(name, values)}: there are {', '.join(values)}")
        if text not in values[name]:
            raise part.wrong(f"'{name}' is never {text!r:.60}{nearest(text, values[name])}: there are {', '.join(values[name])}")
    return [row for row in rows if any(row[name] != text for name, text in partial.items())]


def _include(rows: list[Row], new: list[Row], part: Value, included: Row, values: dict[str, list[str]]) -> None:
    """More names for the combinations that it agrees with, or a combination of its own if it agrees with none."""
    own = {name: text for name, text in included.items() if name in values}
    agreeing = [row for row in rows if all(row[name] == text for name, text in own.items())]
    for row in agreeing:
        row.update(included)
    if not agreeing:
        missing = [name for name in values if name not in own]
        if missing:
            raise part.wrong(f"a combination of its own needs '{missing[0]}', too")
        new.append(dict(included))


def _filled(rows: list[Row]) -> list[Row]:
    """All with the same names: what `include` did not tell of one is empty."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name, "") for name in names} for row in rows]
