"""The process that moves the data of a worker's tasks: one a worker, started when the first task has any.

It is no part of the worker's process, which stays small and quick to answer. It ends with it: standard input is its pipe.

    worker ► {"job": 7, "get": URI, "to": DIRECTORY}                 ◄ {"job": 7, "files": 3, "bytes": 12345, "seconds": 1.5}
    worker ► {"job": 8, "put": DIRECTORY, "to": URI, "within": DIRECTORY}   ◄ {"job": 8, "fault": SENTENCE, "again": true}
    worker ► {"stop": 7}
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

JOBS = 4  # at once; each moves several files at once
_LAST_SECONDS = 3.0  # for what is stopped because the worker is gone


def main(_arguments: list[str]) -> int:
    """`scitq courier`: moves what the lines of standard input ask for, until they end; the exit code."""
    courier = _Courier()
    for line in sys.stdin.buffer:
        courier.hear(json.loads(line))
    courier.stop_all()
    os._exit(0)  # threads that hang in a network must not keep it


class _Courier:
    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(JOBS, thread_name_prefix="job")
        self._meters: dict = {}
        self._out = threading.Lock()

    def hear(self, message: dict) -> None:
        from .fetch.progress import Meter

        if "stop" in message:
            if meter := self._meters.get(message["stop"]):
                meter.stop()
            return
        meter = self._meters[message["job"]] = Meter()
        self._pool.submit(self._do, message, meter)

    def stop_all(self) -> None:
        for meter in list(self._meters.values()):
            meter.stop()
        deadline = time.monotonic() + _LAST_SECONDS
        while self._meters and time.monotonic() < deadline:
            time.sleep(0.02)

    def _do(self, message: dict, meter) -> None:
        start = time.monotonic()
        try:
            _move(message, meter)
        except Exception as error:
            told = {"fault": _sentence(error), "again": bool(getattr(error, "again", False))}
        else:
            told = {"files": meter.files_done, "bytes": meter.bytes_done, "seconds": round(time.monotonic() - start, 3)}
        del self._meters[message["job"]]
        with self._out:
            sys.stdout.write(json.dumps({"job": message["job"], **told}) + "\n")
            sys.stdout.flush()


def _move(message: dict, meter) -> None:
    from . import fetch

    if "get" in message:
        fetch.get(message["get"], message["to"], meter=meter)
    elif any(os.scandir(message["put"])):
        fetch.put(message["put"], message["to"], meter=meter, within=Path(message["within"]) if message.get("within") else None)


def _sentence(error: Exception) -> str:
    """What a task is told. What nobody expected also goes to the log, with where it came from."""
    from .errors import ScitqError

    if isinstance(error, ScitqError):
        return str(error)
    import traceback

    traceback.print_exception(error)
    return f"unexpected {type(error).__name__}: {error}"
