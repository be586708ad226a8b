"""A YAML file becomes tasks, and a server is brought in line with it. `schema.json` says which keys there are.

Every task of a file has a name, the same each time the file is read: with its batch it says which task of the server it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..protocol import DEFAULT_BATCH
from ..substitution import unknown_name
from ..yamlvalues import Value, compose, mapping
from . import params as parameters
from .faults import fault
from .model import BatchFile, schema, task_keys
from .plan import Applied, apply
from .rules import described, notifiers_of, recruiters_of
from .steps import make_steps
from .tasks import Making, make_tasks
from .templates import templates

__all__ = ["Applied", "BatchFile", "apply", "described", "load", "schema"]


def load(
    path: str, batch: str | None = None, workdir: str | None = None, params: Mapping[str, object] | None = None
) -> BatchFile:
    """The tasks of a file, in its order. Raises InvalidRequest: `file:line: what is wrong`.

    `batch` goes before the one that the file names. `workdir` is that of tasks without one, and where relative ones start.
    `params`: values of the file's parameters, by name.
    """
    top = mapping(path, compose(path), {**schema()["properties"], **task_keys()}, "the file")
    given = parameters.read(path, top.pop("params", None), params)
    named = _batch(Value(path, "batch", top.pop("batch"), given.values)) if "batch" in top else None
    making = Making(BatchFile(path, batch or named or DEFAULT_BATCH), given, workdir)
    label = os.path.splitext(os.path.basename(path))[0]
    rules = {key: Value(path, key, top.pop(key), given.values) for key in ("recruit", "notify") if key in top}
    making.file.recruiters = recruiters_of(rules["recruit"]) if "recruit" in rules else []
    making.file.notifiers = notifiers_of(rules["notify"]) if "notify" in rules else []
    canary = Value(path, "canary", top.pop("canary"), given.values) if "canary" in top else None
    found = templates(path, top, label)
    if found[0].is_step:
        make_steps(making, found, canary)
    elif canary is not None:
        raise canary.wrong("`canary` goes with `steps`: make each task a step")
    else:
        make_tasks(making, found)
    return making.file


def _batch(value: Value) -> str | None:
    text = value.text()
    wrong = unknown_name(value.node.value, value.row, strict=True) if text else None
    if wrong:
        raise value.wrong(f"`batch`: {wrong}")
    if text and (found := fault("batch", text)):
        raise value.wrong(f"`batch` {found}")
    return text
