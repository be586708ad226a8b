"""The server is brought in line with a file."""

from __future__ import annotations

from ..lib import Server
from ..reconcile import Applied, Declared, reconcile
from .model import BatchFile
from .rules import put_rules


def apply(server: Server, file: BatchFile) -> Applied:
    """Brings the recruiters and notifiers of a batch in line with a file, then the tasks, by their names: see `reconcile`."""
    put_rules(server, file)
    tasks = {task["name"]: task for task in file.tasks}
    return reconcile(server, Declared(tasks, [file.batch], lambda row: row["name"], file.canaries, file.steps > 0))
