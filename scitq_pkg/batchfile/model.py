"""What a batch file may say, by its schema, and what it came to: tasks by their names."""

from __future__ import annotations

import functools
import json
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

    @property
    def summary(self) -> str:
        """How many tasks in how many steps, in words."""
        count = len(self.tasks)
        steps = f" in {self.steps} step{'s' * (self.steps > 1)}" if self.steps else ""
        return f"{count} task{'s' * (count > 1)}{steps}"


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
