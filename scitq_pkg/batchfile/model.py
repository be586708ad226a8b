"""What a batch file may say, by its schema, and what it came to: tasks by their names."""

from __future__ import annotations

import functools
import json
import pkgutil
from dataclasses import dataclass, field


@dataclass(slots=True)
class BatchFile:
    """What a file asks for. A task is a mapping of TaskSpec's fields; its `require` holds names of this file beside ids."""

    path: str
    batch: str
    tasks: list[dict] = field(default_factory=list)


@functools.cache
def schema() -> dict:
    """The JSON schema of batch files."""
    return json.loads(pkgutil.get_data(__package__, "schema.json"))


def task_keys() -> dict:
    """What the schema says of each key of a task."""
    return schema()["$defs"]["task"]["properties"]
