"""The process that moves the data of a worker's tasks: one a worker, started when the first task has any.

It is no part of the worker's process, which stays small and quick to answer. It ends with it: standard input is its pipe.

    worker ► {"job": 7, "get": URI, "to": DIRECTORY}         ◄ {"job": 7, "uri": ..., "files": 3, "bytes": 12345, "seconds": 1.5}
    worker ► {"job": 8, "put": DIRECTORY, "to": URI, "within": DIRECTORY}   ◄ {"job": 8, "fault": SENTENCE, "again": true}
    worker ► {"job": 9, "identify": [URI, ...]}                       ◄ {"job": 9, "identities": [[[PATH, SIZE, SUM], ...], ...]}
    worker ► {"job": 10, "reuse": [[PATH, SIZE, SUM], ...], "at": URI, "to": URI}   ◄ as for get, or a fault
    worker ► {"stop": 7}

A SUM is a file's md5, or what else changes with its content. One that cannot be known is null.
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
            told = _did(message, meter)
            told |= {"files": meter.files_done, "bytes": meter.bytes_done, "seconds": round(time.monotonic() - start, 3)}
        except Exception as error:
            fault = _sentence(error).encode(errors="backslashreplace").decode()  # names of files may be no UTF-8
            told = {"fault": fault, "again": bool(getattr(error, "again", False)) and not _is_refusal(error)}
        del self._meters[message["job"]]
        with self._out:
            sys.stdout.write(json.dumps({"job": message["job"], **told}) + "\n")
            sys.stdout.flush()


def _did(message: dict, meter) -> dict:
    """Does what a message asks for; what else there is to tell."""
    from . import fetch

    if "get" in message:
        fetch.get(message["get"], message["to"], meter=meter)
        return {"uri": str(fetch.Uri.of(message["get"]))}
    if "identify" in message:
        return {"identities": [_identity(fetch, uri) for uri in message["identify"]]}
    told: dict = {"uri": str(fetch.Uri.of(message["to"]))}
    if "reuse" in message:
        _reuse(fetch, message, meter)
    elif any(os.scandir(message["put"])):
        fetch.put(message["put"], message["to"], meter=meter, within=Path(message["within"]) if message.get("within") else None)
        if message.get("identify_after"):
            sent = {str(path.relative_to(message["put"])) for path in Path(message["put"]).rglob("*") if path.is_file()}
            told["outputs"] = [file for file in _identity(fetch, message["to"]) if file[0] in sent]
    return told


def _identity(fetch, uri: str) -> list[list]:
    """Path, size and sum of every file that a URI means."""
    found = fetch.entries(uri)
    return sorted([entry.path, entry.size, entry.md5 or entry.etag] for entry in found)


def _reuse(fetch, message: dict, meter) -> None:
    """Makes sure that the outputs of an earlier task are all there and unchanged, and where they should be."""
    from .errors import TransferFailed

    there = {path: [path, size, sum] for path, size, sum in _identity(fetch, message["at"])}
    for path, size, sum in message["reuse"]:
        if sum is None or there.get(path) != [path, size, sum] or "|" in path:  # what follows | would be read as an action
            raise TransferFailed(f"{path} is not there any more, is another file now, or cannot be named")
    if message["at"] != message["to"]:
        at, to = (uri.rstrip("/") + "/" for uri in (message["at"], message["to"]))
        for path, _, _ in message["reuse"]:
            fetch.copy(at + path, to + path)


def _is_refusal(error: Exception) -> bool:
    from .fetch.refusals import behind

    return behind(error) is not None


def _sentence(error: Exception) -> str:
    """What a task is told. What nobody expected also goes to the log, with where it came from."""
    from .errors import ScitqError
    from .uris import shown

    if isinstance(error, ScitqError):
        return shown(str(error))
    import traceback

    sys.stderr.write(shown("".join(traceback.format_exception(error))))
    return shown(f"unexpected {type(error).__name__}: {error}")
