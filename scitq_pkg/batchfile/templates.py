"""The parts of a file: each item of `tasks` or `steps` with the defaults it stands on, from which tasks are made row by row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from ..errors import InvalidRequest
from ..yamlvalues import Value, kind_of, line_of, mapping, wrong_at
from .model import step_keys, task_keys

Keys = dict[str, yaml.Node]
_STEP_NAME = re.compile(r"[\w-]+")
_OF_ALL = ("each", "matrix")  # beside `tasks` or `steps` they are defaults


@dataclass(slots=True)
class Template:
    """What tasks are made of: the keys with the defaults below them.

    `label` names those without a name; of a step it is its name.
    """

    path: str
    keys: Keys
    label: str
    node: yaml.Node
    is_step: bool = False
    text: str = field(default="", init=False)  # all of it, to look for names in

    def __post_init__(self):
        self.text = "\n".join(text for key, node in self.keys.items() if key not in _OF_ALL for text in scalars(node))

    @property
    def line(self) -> int:
        """Where its tasks get their names."""
        return line_of(self.keys.get("name", self.node if self.is_step else self.keys["command"]))

    def uses(self, name: str) -> bool:
        """Whether `{name}` is in one of its texts."""
        return f"{{{name}}}" in self.text or f"{{{name}:" in self.text


def scalars(node: yaml.Node) -> Iterator[str]:
    """All texts of a node, those of keys too."""
    if isinstance(node, yaml.ScalarNode):
        yield node.value
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from scalars(item)
    else:
        for pair in node.value:
            for item in pair:
                yield from scalars(item)


def templates(path: str, top: Keys, label: str) -> list[Template]:
    """Each item of `tasks` or `steps` over the defaults; a file without them is itself the only one."""
    defaults = mapping(path, top.pop("defaults"), task_keys(), "`defaults`") if "defaults" in top else {}
    lists = [key for key in ("tasks", "steps") if key in top]
    if not lists:
        return [_template(path, f"{label}-1", defaults, top, "the file")]
    if len(lists) == 2:
        raise wrong_at(path, top["steps"], "a file has either `tasks` or `steps`: make each task a step")
    [kind] = lists
    items = top.pop(kind)
    for name, node in top.items():
        if name not in _OF_ALL:
            raise wrong_at(path, node, f"beside `{kind}`, '{name}' belongs under `defaults`")
        defaults.setdefault(name, node)
    if not isinstance(items, yaml.SequenceNode):
        raise wrong_at(path, items, f"`{kind}` must be a list of {kind}, not {kind_of(items)}")
    if not items.value:
        raise wrong_at(path, items, f"`{kind}` is empty: give at least one")
    if kind == "steps":
        return _steps(path, items.value, defaults)
    return [_task(path, f"{label}-{number}", defaults, node) for number, node in enumerate(items.value, 1)]


def _task(path: str, label: str, defaults: Keys, node: yaml.Node) -> Template:
    keys = {"command": node} if isinstance(node, yaml.ScalarNode) else mapping(path, node, task_keys(), "a task")
    return _template(path, label, defaults, keys, "this task", node)


def _steps(path: str, nodes: list[yaml.Node], defaults: Keys) -> list[Template]:
    found: dict[str, Template] = {}
    for node in nodes:
        keys = mapping(path, node, step_keys(), "a step")
        named = keys.pop("step", None)
        name = Value(path, "step", named, {}).text() if named is not None else None
        if named is None or name is None:
            raise wrong_at(path, node, "this step has no name: give it one, as step: align")
        if not _STEP_NAME.fullmatch(name):
            raise wrong_at(path, named, f"{name!r:.60} cannot name a step: letters, digits, _ and - are expected")
        if name in found:
            raise wrong_at(path, named, f"two steps are named '{name}': the other is at line {line_of(found[name].node)}")
        under = {key: value for key, value in defaults.items() if key not in _OF_ALL or "gather" not in keys}
        found[name] = _template(path, name, under, keys, f"the step '{name}'", node, is_step=True)
    return list(found.values())


def _template(
    path: str, label: str, defaults: Keys, keys: Keys, what: str, node: yaml.Node | None = None, is_step: bool = False
) -> Template:
    """The keys over the defaults. `env` is merged, the rest replaced."""
    merged = {**defaults, **keys}
    if "env" in defaults and "env" in keys:
        merged["env"] = yaml.MappingNode(
            keys["env"].tag, _merged_pairs(path, defaults["env"], keys["env"]), keys["env"].start_mark
        )
    if "command" not in merged:
        where = f"{path}:{line_of(node)}" if node else path
        raise InvalidRequest(f"{where}: {what} has no `command`" + ("" if node else " and no `tasks`"))
    return Template(path, merged, label, node or merged["command"], is_step)


def _merged_pairs(path: str, under: yaml.Node, over: yaml.Node) -> list:
    for node in (under, over):
        if not isinstance(node, yaml.MappingNode):
            raise wrong_at(path, node, f"`env` must be a mapping of names to values, not {kind_of(node)}")
    given = {key.value for key, _ in over.value}
    return [pair for pair in under.value if pair[0].value not in given] + over.value
