"""What a batch file may say, by its schema, and what it came to: tasks by their names."""

from __future__ import annotations

import functools
import json
import os
import pkgutil
from dataclasses import dataclass, field

BUILT_IN = ("batch", "name", "row")  # names that every task has


@dataclass(slots=True)
class BatchFile:
    """What a file asks for. A task is a mapping of TaskSpec's fields; its `require` holds names of this file beside ids."""

    path: str
    batch: str
    tasks: list[dict] = field(default_factory=list)
    steps: int = 0  # how many steps the tasks are of; 0: they are of none
    canaries: dict[str, list[str]] = field(default_factory=dict)  # what of `require` says only who goes first
    recruiters: list[dict] | None = None  # of the batch, as the API takes them; None: those there are stay as they are
    notifiers: list[dict] | None = None  # the same of who is told

    @property
    def name(self) -> str:
        """By which the server knows what this file made."""
        return os.path.basename(self.path)

    @property
    def summary(self) -> str:
        """How many tasks in how many steps, and what else the file makes, in words."""
        steps = f" in {counted(self.steps, 'step')}" if self.steps else ""
        found = [counted(len(self.tasks), "task") + steps]
        found += [counted(len(self.recruiters), "recruiter")] if self.recruiters else []
        found += [counted(len(self.notifiers), "notifier")] if self.notifiers else []
        return ", ".join(found)


def counted(number: int, what: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


@functools.cache
def schema() -> dict:
    """The JSON schema of batch files."""
    return json.loads(pkgutil.get_data(__package__, "schema.json"))


def task_keys() -> dict:
    """What the schema says of each key of a task."""
    return schema()["$defs"]["task"]["properties"]


def step_keys() -> dict:
    """What the schema says of each key of a step."""
    return {**task_keys(), **schema()["$defs"]["step"]["properties"]}
