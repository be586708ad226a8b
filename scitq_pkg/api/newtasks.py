"""New tasks: thousands in one request pass a table of quick tests; the schema converts and explains what does not pass them.

Measured on 10,000 tasks of a command and a name: 8 ms here, 190 ms through marshmallow.
"""

from __future__ import annotations

import math
from dataclasses import fields

from ..errors import InvalidRequest, nearest
from ..limits import MAX_INT, MAX_LINE, MAX_NAME, MAX_SECONDS, MAX_TEXT, NO_NAME, NO_TEXT
from ..protocol import TaskSpec
from ..uris import is_only_shown
from .inputs import SHELLS, is_requirement, load
from .schemas import NewTask, NewTasks

MOST_TASKS = 100_000

_SCHEMA = NewTask()
_SCHEMA_OF_MANY = NewTasks()
_BESIDE = ("tasks", "newest_known")


def accept(plain: object) -> list[dict]:
    """The fields of each new task, checked, from a task or `{"tasks": [...]}`. Raises InvalidRequest, naming the field."""
    if not isinstance(plain, dict) or "tasks" not in plain:
        return [_accept_one(plain, "")]
    for name in plain:
        if name not in _BESIDE:
            raise InvalidRequest(f"there is no such field beside `tasks`{nearest(str(name), _BESIDE)}", field=str(name)[:100])
    given = plain["tasks"]
    if not isinstance(given, list):
        raise InvalidRequest("wants a list of tasks", field="tasks")
    if not given:
        raise InvalidRequest("is empty: give at least one task", field="tasks")
    if len(given) > MOST_TASKS:
        raise InvalidRequest(f"holds {len(given)} tasks, a request takes {MOST_TASKS}: send them in parts", field="tasks")
    return [_accept_one(task, f"tasks[{index}]") for index, task in enumerate(given)]


def newest_known(plain: object) -> int | None:
    """The newest task that the sender of `{"tasks": [...]}` knows, if no newer one may have a name of these.

    Raises InvalidRequest.
    """
    if not isinstance(plain, dict) or "newest_known" not in plain or "tasks" not in plain:
        return None
    return load(_SCHEMA_OF_MANY, {"command": "x", "newest_known": plain["newest_known"]})["newest_known"]


def _accept_one(task: object, where: str) -> dict:
    if type(task) is dict and "command" in task:
        for name, value in task.items():
            check = _CHECKS.get(name)
            if check is None or not check(value):
                break
        else:
            return task
    return load(_SCHEMA, task, where)  # type: ignore[return-value]


def _quick_checks() -> dict:
    """For each field of a TaskSpec a quick test of a JSON value: true means it is right as it is.

    What does not pass goes through `NewTask`, which converts or explains; so these only have to be quick and never too generous.
    """
    special = {
        "command": lambda v: type(v) is str and 0 < len(v) <= MAX_TEXT and not NO_TEXT.search(v) and not v.isspace(),
        "name": lambda v: v is None or _is_line(v, MAX_NAME),
        "batch": lambda v: _is_line(v, MAX_NAME),
        "input": lambda v: type(v) is list and all(map(_is_uri, v)),
        "resource": lambda v: type(v) is list and all(map(_is_uri, v)),
        "output": lambda v: v is None or _is_uri(v),
        "shell": lambda v: v is None or v in SHELLS,
        "workdir": lambda v: v is None,
        "env": lambda v: type(v) is dict and not v,
        "require": lambda v: type(v) is list and all(map(is_requirement, v)),
        "priority": lambda v: type(v) is int and -MAX_INT <= v <= MAX_INT,
    }
    by_type = {
        "str": _is_line,
        "str | None": lambda v: v is None or _is_line(v),
        "list[str]": lambda v: type(v) is list and all(map(_is_line, v)),
        "int": lambda v: type(v) is int and 0 <= v <= MAX_INT,
        "int | None": lambda v: v is None or (type(v) is int and 0 <= v <= MAX_INT),
        "float | None": lambda v: v is None or (type(v) in (int, float) and math.isfinite(v) and 0 <= v <= MAX_SECONDS),
        "bool": lambda v: type(v) is bool,
    }
    return {f.name: special.get(f.name) or by_type[str(f.type)] for f in fields(TaskSpec)}


def _is_line(value: object, most: int = MAX_LINE) -> bool:
    return type(value) is str and 0 < len(value) <= most and not NO_NAME.search(value)


def _is_uri(value: object) -> bool:
    return _is_line(value) and not is_only_shown(str(value))


_CHECKS = _quick_checks()
