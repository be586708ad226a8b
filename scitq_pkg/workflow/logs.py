"""What the tasks of a workflow wrote, saved as files before the server forgets it."""

from __future__ import annotations

import os
from pathlib import Path

from ..lib.client import Client
from ..lib.objects import range_groups
from ..lib.output import pieces
from ..protocol import STREAMS
from ..uris import folder_names

_ENDINGS = dict(zip(STREAMS, ("_output.log", "_error.log"), strict=True))


def save_logs(client: Client, tasks: list[dict], folder: Path) -> None:
    """The latest attempt of each task: `<folder>/<task>_output.log`, and `_error.log`; empty ones are left out.

    A file that is there is whole.
    """
    latest = [task for task in tasks if task["execution_id"] is not None]
    groups = range_groups(task["execution_id"] for task in latest)
    sizes = {row["id"]: row for group in groups for row in client.pages("/executions", ids=group)}
    names = folder_names(task["name"] or str(task["id"]) for task in latest)
    for task, name in zip(latest, names, strict=True):
        for stream, ending in _ENDINGS.items():
            if sizes.get(task["execution_id"], {}).get(f"{stream}_size"):
                _save(client, task["execution_id"], stream, folder / f"{name}{ending}")


def _save(client: Client, execution: int, stream: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    with open(partial, "wb") as file:
        for piece in pieces(client, execution, stream):
            file.write(piece)
    os.replace(partial, path)
