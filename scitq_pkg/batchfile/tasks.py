"""A row and the keys of a task become a task; names become needs."""

from __future__ import annotations

import fnmatch
import functools
import graphlib
import os

import yaml

from ..errors import InvalidRequest, nearest
from ..substitution import Row
from ..uris import uris_of
from ..yamlvalues import Value, wrong_at
from .model import BatchFile, task_keys


def rows_of(path: str, keys: dict[str, yaml.Node], index: int) -> list[tuple[str, Row]]:
    """The rows of a template, each with the name of a task that has none. Without `each` one row that has only the built-ins."""
    rows = Value(path, "each", keys["each"], {}).rows() if "each" in keys else None
    base = f"{os.path.splitext(os.path.basename(path))[0]}-{index}"
    if rows is None:
        return [(base, {"row": "1"})]
    firsts = [next(iter(row.values()), "") for row in rows]
    telling = len(set(firsts)) == len(rows)
    return [
        (f"{base}-{first if telling else number}", {"row": str(number), **row})
        for number, (first, row) in enumerate(zip(firsts, rows, strict=True), 1)
    ]


def task_of(file: BatchFile, keys: dict[str, yaml.Node], unnamed: str, row: Row, workdir: str | None) -> tuple[dict, Value | None]:
    """The task of one row, and the value of its `needs`."""
    row = {"batch": file.batch, **row}
    name = Value(file.path, "name", keys["name"], row).text() if "name" in keys else None
    row.setdefault("name", name or unnamed)
    task: dict = {"name": name or unnamed, "batch": file.batch}
    for key, node in keys.items():
        if key not in ("name", "each", "needs"):
            value = Value(file.path, key, node, row).read(task_keys()[key])
            if value is not None:
                task[key] = uris_of(value) if key in ("input", "resource") else value
    if not task.get("command", "").strip():
        raise wrong_at(file.path, keys["command"], "the command is empty")
    if workdir is not None:
        task["workdir"] = os.path.normpath(os.path.join(workdir, task.get("workdir", "")))
    return task, Value(file.path, "needs", keys["needs"], row) if "needs" in keys else None


def check_new(file: BatchFile, name: str, line: int, lines: dict[str, int]) -> None:
    if name in lines:
        how = (
            "put a column into the name, such as name: count-{sample}"
            if lines[name] == line
            else f"the other is at line {lines[name]}"
        )
        raise InvalidRequest(f"{file.path}:{line}: two tasks are named {name!r}: {how}")
    lines[name] = line


def resolve(file: BatchFile, needs: list[tuple[dict, Value | None]]) -> None:
    """Puts the names that `needs` stands for into each task's `require`; refuses unknown ones and cycles."""
    names = {task["name"]: None for task in file.tasks}
    matching = functools.cache(lambda pattern: fnmatch.filter(names, pattern))
    graph: dict[str, list[str]] = {}
    for task, wanted in needs:
        found: dict[str, None] = {}
        for text in (wanted.texts() or []) if wanted else []:
            matches = [text] if text in names else [name for name in matching(text) if name != task["name"]]
            if not matches:
                raise wanted.wrong(f"no task of this file is named {text!r}{nearest(text, names)}")
            found.update(dict.fromkeys(matches))
        graph[task["name"]] = list(found)
        if found:
            task["require"] = [*task.get("require", []), *found]
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise InvalidRequest(
            f"{file.path}: tasks need each other in a circle: {' needs '.join(reversed(error.args[1]))}"
        ) from None
