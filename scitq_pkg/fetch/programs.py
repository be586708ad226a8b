"""Programs of other people that fetch: found on this machine, watched while they work, ended when they are silent."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable

from ..errors import TransferFailed
from ..uris import shown
from .progress import Meter
from .scheme import STALL_SECONDS

_LOOK_SECONDS = 0.2
_GRACE_SECONDS = 5.0
_LAST_BYTES = 2000  # of what it said


class ProgramFailed(TransferFailed):
    """A program ended with another code than 0; `said` are its last words."""

    def __init__(self, name: str, code: int, said: bytes):
        last = shown(" ".join(said.decode(errors="replace").split()))[-300:]
        super().__init__(f"{name} failed ({code}): {last}", again=True)
        self.code, self.said = code, said


def program(name: str, how: str) -> str:
    """The path of a program. Raises TransferFailed that says how to get it."""
    path = shutil.which(name)
    if path is None:
        raise TransferFailed(f"the program {name} is not installed here: {how}")
    return path


def run(
    words: list[str], came: Callable[[], int], meter: Meter, stall_seconds: float | None = STALL_SECONDS, told: str = "",
    **options,
) -> None:  # fmt: skip
    """Runs a program to its end. `came()` says how many bytes are there: the meter counts them, and silence ends the program
    (None: it looks after that itself). It reads the line `told`.

    Raises ProgramFailed if it fails, TransferFailed (`again`) if it is silent.
    """
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, **options)  # fmt: skip
    with contextlib.suppress(BrokenPipeError), process.stdin as stream:  # it has ended: its exit code tells
        stream.write(told.encode(errors="surrogateescape") + b"\n" if told else b"")
    said = bytearray()
    reader = threading.Thread(target=_keep_last, args=(process.stdout, said), daemon=True)
    reader.start()
    try:
        before, moved = came(), time.monotonic()
        while process.poll() is None:
            meter.wait(_LOOK_SECONDS)
            now = came()
            if now != before:
                meter.add(now - before)
                before, moved = now, time.monotonic()
            elif stall_seconds is not None and time.monotonic() - moved > stall_seconds:
                raise TransferFailed(f"{words[0]}: no byte for {stall_seconds:g} s", again=True)
        meter.add(came() - before)
        reader.join(_GRACE_SECONDS)
        if process.returncode:
            raise ProgramFailed(os.path.basename(words[0]), process.returncode, bytes(said))
    finally:
        _end(process)
        process.stdout.close()


def _keep_last(stream, said: bytearray) -> None:
    while data := stream.read1(4096):
        said += data
        del said[:-_LAST_BYTES]


def _end(process: subprocess.Popen) -> None:
    """Ends what it started, too."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
