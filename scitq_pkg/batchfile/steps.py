"""Steps: rows of one find the same rows of another, take their values, gather their outputs; some go first."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import yaml

from ..errors import InvalidRequest, nearest
from ..substitution import MARK
from ..uris import folder_names
from ..yamlvalues import Value, mapping, wrong_at
from .model import schema
from .rows import Cells, Table, grouped
from .tasks import Making, Recipe, expanded
from .templates import Template

_VALUES = ("name", "output")  # what `{step.value}` can be


@dataclass(slots=True)
class Gather:
    """The outputs of a step that come as inputs."""

    value: Value
    step: str
    only: Value | None
    by: list[str]


@dataclass(slots=True)
class Links:
    """What a step takes from others: whether of all their rows, which values, which outputs."""

    whole: dict[str, bool] = field(default_factory=dict)  # by step; False: of the same row
    values: list[tuple[str, str]] = field(default_factory=list)
    gathers: list[Gather] = field(default_factory=list)

    @property
    def steps(self) -> list[str]:
        """All steps that it needs."""
        return list(dict.fromkeys([*self.whole, *(gather.step for gather in self.gathers)]))


@dataclass(slots=True)
class Made:
    """The tasks of a step, each with its row."""

    template: Template
    table: Table
    tasks: list[dict] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)  # a name for each that no other of the step has
    index: dict[tuple[str, ...], dict[tuple, list[int]]] = field(default_factory=dict)

    def alike(self, columns: tuple[str, ...], row: Cells) -> list[int]:
        """Which tasks have the same values as a row in these columns."""
        if columns not in self.index:
            found: dict[tuple, list[int]] = {}
            for number, own in enumerate(self.table.rows):
                found.setdefault(tuple(own[column] for column in columns), []).append(number)
            self.index[columns] = found
        return self.index[columns].get(tuple(row[column] for column in columns), [])


def make_steps(making: Making, templates: list[Template], canary: Value | None) -> None:
    """The tasks of all steps, in the file's order. Raises InvalidRequest with the line."""
    by_name = {template.label: template for template in templates}
    links = {name: _links(making, template, by_name) for name, template in by_name.items()}
    made: dict[str, Made] = {}
    for name in _in_order(making.file.path, links):
        made[name] = _Step(making, by_name[name], links[name], made).made
    for name in by_name:
        making.file.tasks += made[name].tasks
    making.file.steps = len(templates)
    if canary is not None:
        _let_some_go_first(making, made, links, canary)


def _in_order(path: str, links: dict[str, Links]) -> list[str]:
    """The steps, what is needed before what needs it."""
    try:
        return list(graphlib.TopologicalSorter({name: link.steps for name, link in links.items()}).static_order())
    except graphlib.CycleError as error:
        circle = " needs ".join(reversed(error.args[1]))
        raise InvalidRequest(f"{path}: steps need each other in a circle: {circle}") from None


# --- what a step says of others -------------------------------------------------------------------------------------------


def _links(making: Making, template: Template, known: dict[str, Template]) -> Links:
    links, keys, params = Links(), template.keys, making.params.values
    if "needs" in keys:
        needs = Value(template.path, "needs", keys["needs"], params)
        for text in needs.texts() or []:
            name, star, _ = text.partition(".*")
            if name not in known or text not in (name, f"{name}.*"):
                raise needs.wrong(f"no step is named {text!r}{nearest(name, known)}: `needs` takes `step` or `step.*`")
            links.whole[name] = bool(star) or links.whole.get(name, False)
    for name, value in _named_values(template, known):
        links.whole.setdefault(name, False)
        links.values.append((name, value))
    if "gather" in keys:
        node = keys["gather"]
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            links.gathers.append(_gather(Value(template.path, "gather", part, params), known))
    return links


def _named_values(template: Template, known: dict[str, Template]) -> Iterable[tuple[str, str]]:
    """Each `{step.value}` of the texts. Raises InvalidRequest for one that is nearly right."""
    found: dict[tuple[str, str], None] = {}
    for spelled in dict.fromkeys(name for name, _ in MARK.findall(template.text) if "." in name):
        name, _, value = spelled.rpartition(".")
        if name in known and value not in _VALUES:
            raise wrong_at(
                template.path,
                template.node,
                f"there is no {{{spelled}}}{nearest(value, _VALUES)}: a step has {', '.join(_VALUES)}",
            )
        if name not in known and value in _VALUES and nearest(name, known):
            raise wrong_at(
                template.path, template.node, f"there is no {{{spelled}}}: no step is named '{name}'{nearest(name, known)}"
            )
        if name in known:
            if value == "output" and "output" not in known[name].keys:
                raise wrong_at(template.path, template.node, f"{{{spelled}}}: the step '{name}' has no `output`")
            found[name, value] = None
    return found


def _gather(value: Value, known: dict[str, Template]) -> Gather:
    about = schema()["$defs"]["gathered"]["properties"]
    given = {
        key: Value(value.path, key, node, value.row)
        for key, node in mapping(value.path, value.node, about, "`gather`", "from").items()
    }
    name = given["from"].text() if "from" in given else None
    if not name:
        raise value.wrong("`gather` does not say from which step: give it, as from: align")
    if name not in known:
        raise given["from"].wrong(f"no step is named '{name}'{nearest(name, known)}")
    if "output" not in known[name].keys:
        raise given["from"].wrong(f"the step '{name}' has no `output` that could be gathered")
    return Gather(value, name, given.get("only"), (given["by"].texts() or []) if "by" in given else [])


# --- the tasks of a step --------------------------------------------------------------------------------------------------


class _Step:
    """Makes the tasks of a step, when those of all that it needs are made."""

    def __init__(self, making: Making, template: Template, links: Links, others: dict[str, Made]):
        self.making, self.template, self.links, self.others = making, template, links, others
        table = expanded(template, making.params, self._gathered()) or Table([{}], (), [""])
        self.made = Made(template, table)
        columns = [*table.rows[0], *(f"{name}.{value}" for name, value in links.values)]
        recipe = Recipe(making, template, columns)
        for number, (label, cells) in enumerate(zip(table.labels, table.rows, strict=True), 1):
            self.made.tasks.append(self._task(recipe, label, number, cells))
        self.made.folders = folder_names(task["name"].partition(":")[2] or template.label for task in self.made.tasks)

    def _gathered(self) -> Table | None:
        """The rows that `by` makes."""
        gathers = self.links.gathers
        if not any(gather.by for gather in gathers):
            return None
        first = gathers[0]
        for gather in gathers:
            if gather.by != first.by:
                raise gather.value.wrong("all that a step gathers is gathered by the same columns")
            keys = self.others[gather.step].table.keys
            for name in gather.by:
                if name not in keys:
                    raise gather.value.wrong(
                        f"the rows of '{gather.step}' are not told apart by '{name}'{nearest(name, keys)}: "
                        f"{', '.join(keys) or 'it has no rows'}"
                    )
        if "each" in self.template.keys:
            raise first.value.wrong("a step that gathers `by` columns has a row for each of their values: leave `each` out")
        return grouped(self.others[first.step].table.rows, first.by)

    def _task(self, recipe: Recipe, label: str, number: int, cells: Cells) -> dict:
        alike = {name: self._alike(name, whole, label, cells) for name, whole in self.links.whole.items()}
        values = {f"{name}.{value}": _one_or_all([task[value] for task in alike[name]]) for name, value in self.links.values}
        task, _ = recipe.task(label, number, {**cells, **values})
        needs = dict.fromkeys(task["name"] for found in alike.values() for task in found)
        for gather in self.links.gathers:
            found, uris = self._brought(gather, cells)
            needs |= found
            task["input"] = [*task.get("input", []), *uris]
        if needs:
            task["require"] = [*task.get("require", []), *needs]
        return task

    def _alike(self, name: str, whole: bool, label: str, cells: Cells) -> list[dict]:
        """The tasks of another step that a row means: those that agree in all columns that both have."""
        other = self.others[name]
        if whole:
            return other.tasks
        columns = tuple(column for column in self.made.table.keys if column in other.table.keys)
        found = other.alike(columns, cells)
        if not found:
            same = ", ".join(f"{column} {cells[column]}" for column in columns)
            raise wrong_at(
                self.template.path, self.template.node,
                f"the step '{self.template.label}' has a row ({same}) that the step '{name}' has not: all rows are `{name}.*`",
            )  # fmt: skip
        return [other.tasks[number] for number in found]

    def _brought(self, gather: Gather, cells: Cells) -> tuple[dict[str, None], list[str]]:
        """The tasks of which outputs are gathered, and these as inputs, each in a folder of its own."""
        other = self.others[gather.step]
        numbers = other.alike(tuple(gather.by), cells) if gather.by else range(len(other.tasks))
        only = (gather.only.text() or "") if gather.only else ""
        names: dict[str, None] = {}
        uris: dict[str, str] = {}
        for number in numbers:
            task = other.tasks[number]
            uri = task["output"].rstrip("/") + "/"
            if uri in uris:
                raise gather.value.wrong(
                    f"tasks of the step '{gather.step}' have the same output {uri}: "
                    "put a column into it, so that each has its own"
                )
            names[task["name"]] = None
            uris[uri] = _input(uri, only, other.folders[number])
        return names, list(uris.values())


def _input(uri: str, only: str, folder: str) -> str:
    """What is fetched of an output, and where it lies: a glob chooses among its files, anything else is a part of it."""
    if any(letter in only for letter in "*?["):
        return f"{uri}|only:{only}|mv:{folder}"
    return f"{uri}{only.lstrip('/')}|mv:{folder}"


def _one_or_all(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values


# --- who goes first -------------------------------------------------------------------------------------------------------


def _let_some_go_first(making: Making, made: dict[str, Made], links: dict[str, Links], canary: Value) -> None:
    """All others of a step require its first tasks, which says in which order they go, not what they are made of."""
    for name, count in _counts(canary, made, links).items():
        tasks = made[name].tasks
        first = [task["name"] for task in tasks[:count]]
        for task in tasks[count:] if first else ():
            task["require"] = [*task.get("require", []), *first]
            making.file.canaries[task["name"]] = first


def _counts(canary: Value, made: dict[str, Made], links: dict[str, Links]) -> dict[str, int]:
    if not isinstance(canary.node, yaml.MappingNode):
        count = _count(canary)
        return {name: count for name in made if not links[name].steps}
    given = canary.pairs()
    for name, (key, _) in given.items():
        if name not in made:
            raise wrong_at(canary.path, key, f"no step is named '{name}'{nearest(name, made)}")
    return {name: _count(Value(canary.path, f"canary: {name}", node, canary.row)) for name, (_, node) in given.items()}


def _count(value: Value) -> int:
    count = value.number() or 0
    if count < 0:
        raise value.wrong(f"`{value.key}` must be a number of tasks, not {count}")
    return count
