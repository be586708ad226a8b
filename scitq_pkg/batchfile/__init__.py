"""A YAML file becomes tasks, and a server is brought in line with it. `schema.json` says which keys there are.

Every task of a file has a name, the same each time the file is read: with its batch it says which task of the server it is.
"""

from __future__ import annotations

from ..protocol import DEFAULT_BATCH
from ..yamlvalues import Value, compose, line_of, mapping
from .model import BatchFile, schema, task_keys
from .plan import Applied, apply
from .tasks import check_new, resolve, rows_of, task_of
from .templates import templates

__all__ = ["Applied", "BatchFile", "apply", "load", "schema"]


def load(path: str, batch: str | None = None, workdir: str | None = None) -> BatchFile:
    """The tasks of a file, in its order. Raises InvalidRequest: `file:line: what is wrong`.

    `batch` goes before the one that the file names. `workdir` is that of tasks without one, and where relative ones start.
    """
    top = mapping(path, compose(path), {**schema()["properties"], **task_keys()}, "the file")
    name = Value(path, "batch", top.pop("batch"), {}).text() if "batch" in top else None
    file = BatchFile(path, batch or name or DEFAULT_BATCH)
    lines: dict[str, int] = {}
    needs: list[tuple[dict, Value | None]] = []
    for index, keys in enumerate(templates(path, top), 1):
        for unnamed, row in rows_of(path, keys, index):
            task, wanted = task_of(file, keys, unnamed, row, workdir)
            check_new(file, task["name"], line_of(keys.get("name", keys["command"])), lines)
            file.tasks.append(task)
            needs.append((task, wanted))
    resolve(file, needs)
    return file
