"""The output of a task while it runs, attempt after attempt, byte for byte."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from ..protocol import ENDED, FINAL, STREAMS
from .client import Client
from .output import marked

_POLL_SECONDS = 20.0
_CROWDED_SECONDS = 0.5

Sink = Callable[[str, bytes], None]


def follow(client: Client, task_id: int, write: Sink, after: int = 0) -> dict:
    """Calls `write(stream, bytes)` with all that a task writes from its first attempt on, until it is over; the task then.

    Attempts up to the execution `after` are passed over. `write` is called from two threads, one a stream; what it raises ends
    the following and is raised here.
    """
    seen, version = after, None
    with contextlib.closing(client.another()) as own:
        while True:
            attempts = [item for item in own.pages("/executions", task=task_id, order="id") if item["id"] > seen]
            for execution in attempts:
                follow_execution(client, execution["id"], write)
                seen = execution["id"]
            task = own.get(f"/tasks/{task_id}")
            if task["state"] in FINAL and (task.get("execution_id") or 0) <= seen:
                return task
            version = next_change(own, version, str(task_id))


def next_change(client: Client, version: int | None, ids: str) -> int:
    """Returns when tasks changed since `version`, or after some seconds; the version then."""
    if version is None:
        return client.get("/tasks/counts", ids=ids)["version"]
    start = time.monotonic()
    new = client.get("/tasks/counts", ids=ids, version=version, wait=_POLL_SECONDS)["version"]
    if new == version:
        _breathe(start)
    return new


def follow_execution(client: Client, execution_id: int, write: Sink) -> None:
    """Both streams of one execution until it ended and all of its bytes were written."""
    clients = [client.another() for _ in STREAMS]
    errors: list[BaseException] = []
    threads = [
        threading.Thread(target=_follow_stream, args=(own, execution_id, stream, write, errors), daemon=True)
        for own, stream in zip(clients, STREAMS)
    ]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive() and not errors:
                thread.join(0.2)  # not for ever: the other one may have failed
    finally:
        for own in clients:
            own.interrupt()
    if errors:
        raise errors[0]


def _follow_stream(client: Client, execution_id: int, stream: str, write: Sink, errors: list) -> None:
    offset = 0
    try:
        with contextlib.closing(client):
            while True:
                path = f"/executions/{execution_id}/{stream}"
                start = time.monotonic()
                answer = client.get_answer(path, wait=_POLL_SECONDS, offset=offset)
                if answer.body:
                    write(stream, marked(answer))
                offset = int(answer.headers["X-Scitq-Next"])
                if answer.headers["X-Scitq-State"] in ENDED and offset >= int(answer.headers["X-Scitq-Size"]):
                    return
                if not answer.body:
                    _breathe(start)
    except BaseException as error:  # raised again by the thread that follows
        errors.append(error)


def _breathe(start: float) -> None:
    """A crowded server answers at once that there is nothing new: then it is asked twice a second."""
    time.sleep(max(0.0, _CROWDED_SECONDS - (time.monotonic() - start)))
