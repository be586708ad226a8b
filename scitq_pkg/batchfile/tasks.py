"""The keys of a template and its rows become tasks; the names that tasks need are looked up."""

from __future__ import annotations

import fnmatch
import functools
import graphlib
import os
from dataclasses import dataclass, field

import yaml

from ..errors import InvalidRequest, nearest
from ..substitution import unknown_name
from ..uris import uris_of
from ..yamlvalues import Value, wrong_at
from .faults import fault
from .matrix import combinations
from .model import BUILT_IN, BatchFile, task_keys
from .params import Params
from .rows import Cells, Table, check_apart, table_of
from .templates import Template, scalars

_OF_ROWS = ("name", "each", "matrix", "needs", "gather")  # keys that are none of a TaskSpec's, or read apart
_OURS = ("name", "input", "resource", "output", "workdir", "container", "needs")  # where no {name} is the command's own


@dataclass(slots=True)
class Making:
    """What all tasks of a file share while they are made."""

    file: BatchFile
    params: Params
    workdir: str | None
    lines: dict[str, int] = field(default_factory=dict)  # of the names that tasks have


def expanded(template: Template, params: Params, gathered: Table | None = None) -> Table | None:
    """The rows of a template with the combinations of its matrix; None if there is neither."""
    keys, path = template.keys, template.path
    table = gathered
    if "each" in keys:
        table = table_of(Value(path, "each", keys["each"], params.values), template.uses)
        if table is not None:
            check_apart(path, keys["each"], table.rows[0], params.lines)
    value = Value(path, "matrix", keys["matrix"], params.values) if "matrix" in keys else None
    if value is None or (isinstance(value.node, yaml.ScalarNode) and value.text() is None):
        return table
    combined, names = combinations(value)
    check_apart(path, value.node, combined[0], params.lines)
    for name in combined[0]:
        if table is not None and name in table.rows[0]:
            raise value.wrong(f"'{name}' is in `matrix` and a column of `each`: rename one")
    return _product(table or Table([{}], (), [""]), combined, names)


def _product(table: Table, combined: list, names: list[str]) -> Table:
    labels = ["-".join(row[name] for name in names) for row in combined]
    return Table(
        [{**row, **more} for row in table.rows for more in combined],
        (*table.keys, *combined[0]),
        [f"{label}-{more}" if label else more for label in table.labels for more in labels],
    )


class Recipe:
    """How a task is made of a row: what is the same in all is read once."""

    def __init__(self, making: Making, template: Template, columns: list[str]):
        self.making, self.template = making, template
        names = [*making.params.values, *BUILT_IN, *columns]
        self.fixed: dict = {}
        self.varying: list[tuple[str, yaml.Node]] = []
        for key, node in template.keys.items():
            if key not in ("each", "matrix", "gather"):
                self._check_names(key, node, names)
            if key not in _OF_ROWS:
                if any("{" in text for text in scalars(node)):
                    self.varying.append((key, node))
                else:
                    self._keep(self.fixed, key, node, {})

    def task(self, label: str, number: int, cells: Cells) -> tuple[dict, Cells]:
        """The task of a row, and all names with their values. Raises InvalidRequest if there is another task of that name."""
        making, template = self.making, self.template
        row: Cells = {**making.params.values, "batch": making.file.batch, "row": str(number), **cells}
        own = self._read("name", template.keys["name"], row) if "name" in template.keys else None
        joint = ":" if template.is_step else "-"
        default = f"{template.label}{joint}{label}" if label else template.label
        name = (f"{template.label}:{own}" if template.is_step else own) if own else default
        self._check("name", name, template.keys.get("name", template.node))
        row.setdefault("name", name)
        task = {"name": name, "batch": making.file.batch, **self.fixed}
        for key, node in self.varying:
            self._keep(task, key, node, row)
        if not task.get("command", "").strip():
            raise wrong_at(template.path, template.keys["command"], "the command is empty")
        if making.workdir is not None:
            task["workdir"] = os.path.normpath(os.path.join(making.workdir, task.get("workdir", "")))
        self._check_new(name)
        return task, row

    def _read(self, key: str, node: yaml.Node, row: Cells):
        return Value(self.template.path, key, node, row).read(task_keys()[key])

    def _keep(self, task: dict, key: str, node: yaml.Node, row: Cells) -> None:
        value = self._read(key, node, row)
        if value is not None:
            task[key] = uris_of(value) if key in ("input", "resource") else value
            self._check(key, task[key], node)

    def _check(self, key: str, value, node: yaml.Node) -> None:
        wrong = fault(key, value)
        if wrong is None and key == "workdir" and self.making.workdir is None and not os.path.isabs(value):
            wrong = "must be an absolute path: only `scitq run` has a directory in which a relative one starts"
        if wrong:
            raise wrong_at(self.template.path, node, f"`{key}` {wrong}")

    def _check_names(self, key: str, node: yaml.Node, names: list[str]) -> None:
        for text in scalars(node):
            wrong = unknown_name(text, names, strict=key in _OURS)
            if wrong:
                raise wrong_at(self.template.path, node, f"`{key}`: {wrong}")

    def _check_new(self, name: str) -> None:
        lines, line = self.making.lines, self.template.line
        if name in lines:
            how = (
                "put a column into the name, such as name: count-{sample}"
                if lines[name] == line
                else f"the other is at line {lines[name]}"
            )
            raise InvalidRequest(f"{self.template.path}:{line}: two tasks are named {name!r}: {how}")
        lines[name] = line


def make_tasks(making: Making, templates: list[Template]) -> None:
    """The tasks of `tasks`, with the needs that they name."""
    needs: list[tuple[dict, Value | None]] = []
    for template in templates:
        table = expanded(template, making.params) or Table([{}], (), [""])
        recipe, wanted = Recipe(making, template, list(table.rows[0])), template.keys.get("needs")
        for number, (label, cells) in enumerate(zip(table.labels, table.rows, strict=True), 1):
            task, row = recipe.task(label, number, cells)
            making.file.tasks.append(task)
            needs.append((task, Value(template.path, "needs", wanted, row) if wanted is not None else None))
    _resolve(making.file, needs)


def _resolve(file: BatchFile, needs: list[tuple[dict, Value | None]]) -> None:
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
