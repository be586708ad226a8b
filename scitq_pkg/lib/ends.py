"""How a task ended, in words, and the last that it said."""

from __future__ import annotations

from .client import Client

_LAST_BYTES = 4096
_LAST_LINES = 10


def exit_words(task: dict) -> str:
    """How the last attempt of a task ended: `exit code 2`, or the reason in words."""
    code = task["exit_code"]
    return task["reason"] or (f"exit code {code}" if code is not None else f"it was {task['state']}")


def last_lines(client: Client, execution: dict, most: int = _LAST_LINES) -> list[str]:
    """The end of what an attempt wrote: of stderr, or of stdout if it complained there."""
    for stream in ("stderr", "stdout"):
        size = execution.get(f"{stream}_size") or 0
        if size:
            path = f"/executions/{execution['id']}/{stream}"
            data = client.get_answer(path, offset=max(0, size - _LAST_BYTES)).body
            lines = data.decode(errors="replace").rstrip("\n").split("\n")
            return ["".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line) for line in lines[-most:]]
    return []
