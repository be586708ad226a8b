"""Options of tasks, as Python programs give them, become JSON values: what no JSON is becomes it where that is clear, or is
refused by name.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import timedelta
from numbers import Integral, Real
from typing import Any

from ..durations import EXAMPLES, seconds_of
from ..errors import InvalidRequest, nearest
from ..protocol import TaskSpec
from ..uris import uris
from .objects import id_of


class _Reset:
    """The type of RESET."""

    def __repr__(self) -> str:
        return "RESET"


RESET = _Reset()  # in an update: back to the default. None means: not changed
"""Give this in an update to set something back to its default."""

_FIELDS = {f.name for f in fields(TaskSpec)}


def task_spec(options: dict) -> dict:
    """The TaskSpec that these options of `task_create` mean, as JSON values.

    Raises InvalidRequest naming an option that is unknown or none.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if "required_task_ids" in given:
        given["require"] = [*_required(given.pop("required_task_ids")), *_required(given.get("require"))]
    elif "require" in given:
        given["require"] = _required(given["require"])
    for name, value in given.items():
        if name not in _FIELDS:
            raise InvalidRequest(f"a task has no such option{nearest(name, _FIELDS)}", field=name)
        given[name] = _READERS.get(name, plain)(value, name)
    if isinstance(given.get("shell"), bool):
        given["shell"] = "sh" if given["shell"] else None
    return {name: value for name, value in given.items() if value is not None}


def changes(options: dict) -> dict:
    """The body of an update: None is left out, RESET becomes the default."""
    kept = task_spec({name: value for name, value in options.items() if value is not RESET})
    if options.get("shell") is False:
        kept["shell"] = None
    default = TaskSpec(command="")
    for name, value in options.items():
        if value is RESET:
            if name == "command" or name not in _FIELDS:
                raise InvalidRequest(f"it has no default{nearest(name, _FIELDS)}", field=name)
            kept[name] = getattr(default, name)
    return kept


def plain(value: Any, name: str) -> Any:
    """A JSON value: a path as its text, numbers of other libraries as our own.

    Raises InvalidRequest for what is no such thing.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, os.PathLike) and isinstance(path := os.fspath(value), str):
        return path
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(value)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, name) for item in value]
    hint = ", which are to be decoded" if isinstance(value, bytes) else ""
    raise InvalidRequest(f"wants texts, numbers, or lists and mappings of them, not {value!r:.80}{hint}", field=name)


def uris_in(given: Any, name: str) -> list[str]:
    """Inputs as people give them, as a list of URIs. Those of a set are sorted: the next start of a script finds the same."""
    if isinstance(given, str):
        return uris(given)
    several = isinstance(given, Iterable) and not isinstance(given, (bytes, Mapping, os.PathLike))
    places = [_place(one, name) for one in (given if several else [given])]
    return sorted(places) if isinstance(given, (set, frozenset)) else places


def _place(one: Any, name: str) -> str:
    text = os.fspath(one) if isinstance(one, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise InvalidRequest(f"wants URIs, and one is {one!r:.80}", field=name)
    return text


def seconds_in(given: Any, name: str) -> Any:
    """A length of time in seconds, of a number of them, a timedelta, or a text such as '2h'."""
    if isinstance(given, timedelta):
        return given.total_seconds()
    if isinstance(given, str) and (seconds := seconds_of(given)) is None:
        raise InvalidRequest(f"wants seconds, or a duration such as {EXAMPLES}, not {given!r:.80}", field=name)
    return seconds if isinstance(given, str) else plain(given, name)


_READERS = {"input": uris_in, "resource": uris_in, "download_timeout": seconds_in, "run_timeout": seconds_in}


def unsendable(body: dict) -> str | None:
    """Which field of a body no JSON can say."""
    for name, value in body.items():
        try:
            json.dumps(value)
        except TypeError:
            return name
    return None


def _required(tasks) -> list:
    """Ids of tasks, and `#N` as they are."""
    if tasks is None:
        return []
    several = [tasks] if isinstance(tasks, (str, int, dict)) or not isinstance(tasks, Iterable) else tasks
    return [task if isinstance(task, str) and task.startswith("#") else id_of(task) for task in several]
