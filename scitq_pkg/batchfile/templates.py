"""The parts of a file: each item of `tasks` with the defaults it stands on, from which tasks are made row by row."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from ..errors import InvalidRequest
from ..yamlvalues import kind_of, line_of, mapping, wrong_at
from .model import task_keys

Keys = dict[str, yaml.Node]


def templates(path: str, top: Keys) -> Iterator[Keys]:
    """The keys of each item of `tasks` over the defaults; a file without `tasks` is itself the only one."""
    defaults = mapping(path, top.pop("defaults"), task_keys(), "`defaults`") if "defaults" in top else {}
    if "tasks" not in top:
        yield _complete(path, defaults, top, "the file")
        return
    tasks = top.pop("tasks")
    everywhere = top.pop("each", None)
    for name, node in top.items():
        raise wrong_at(path, node, f"beside `tasks`, '{name}' belongs under `defaults`")
    if not isinstance(tasks, yaml.SequenceNode) or not tasks.value:
        raise wrong_at(path, tasks, f"`tasks` must be a list of tasks, not {kind_of(tasks)}")
    if everywhere is not None:
        defaults.setdefault("each", everywhere)
    for node in tasks.value:
        keys = {"command": node} if isinstance(node, yaml.ScalarNode) else mapping(path, node, task_keys(), "a task")
        yield _complete(path, defaults, keys, "this task", node)


def _complete(path: str, defaults: Keys, keys: Keys, what: str, node: yaml.Node | None = None) -> Keys:
    """The keys over the defaults. `env` is merged, the rest replaced."""
    merged = {**defaults, **keys}
    if "env" in defaults and "env" in keys:
        merged["env"] = yaml.MappingNode(
            keys["env"].tag, _merged_pairs(path, defaults["env"], keys["env"]), keys["env"].start_mark
        )
    if "command" not in merged:
        where = f"{path}:{line_of(node)}" if node else path
        raise InvalidRequest(f"{where}: {what} has no `command`" + ("" if node else " and no `tasks`"))
    return merged


def _merged_pairs(path: str, under: yaml.Node, over: yaml.Node) -> list:
    for node in (under, over):
        if not isinstance(node, yaml.MappingNode):
            raise wrong_at(path, node, f"`env` must be a mapping of names to values, not {kind_of(node)}")
    given = {key.value for key, _ in over.value}
    return [pair for pair in under.value if pair[0].value not in given] + over.value
