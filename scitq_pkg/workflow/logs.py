"""What the tasks of a workflow wrote, saved as files before the server forgets it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..lib.client import Client
from ..lib.output import pieces
from ..protocol import STREAMS, SUCCEEDED
from ..uris import folder_names

_ENDINGS = dict(zip(STREAMS, ("_output.log", "_error.log"), strict=True))


def save_logs(client: Client, workflow: str, batches: list[str], destination: Path) -> list[Path]:
    """The latest attempt of each task that succeeded: `<destination>/<batch>/<task>_output.log`, and `_error.log`.

    Empty ones are left out; a file that is there is whole. The files.
    """
    saved = []
    for batch, folder in zip(batches, folder_names(name.removeprefix(f"{workflow}.") for name in batches), strict=True):
        tasks = [(row["name"] or str(row["id"]), row["execution_id"]) for row in _succeeded(client, batch)]
        sizes = {row["id"]: row for row in client.pages("/executions", batch=batch) if row["state"] == SUCCEEDED}
        for (_, execution), name in zip(tasks, folder_names(name for name, _ in tasks), strict=True):
            for stream, ending in _ENDINGS.items():
                if sizes.get(execution, {}).get(f"{stream}_size"):
                    saved.append(destination / folder / f"{name}{ending}")
                    _save(client, execution, stream, saved[-1])
    return saved


def _succeeded(client: Client, batch: str) -> Iterator[dict]:
    return client.pages("/tasks", batch=batch, state=SUCCEEDED, order="id")


def _save(client: Client, execution: int, stream: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    with open(partial, "wb") as file:
        for piece in pieces(client, execution, stream):
            file.write(piece)
    os.replace(partial, path)
