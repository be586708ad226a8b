"""`name://path`: any remote of rclone's configuration, through the rclone program where it is installed.

The configuration is rclone's own, or `/etc/rclone.conf` for those who have none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from ..errors import NotAllowed, NotFound, TransferFailed
from ..uris import shown
from .programs import ProgramFailed, program, run
from .progress import Meter
from .scheme import CHUNK_BYTES, STALL_SECONDS, Entry, Replaced, Scheme
from .uri import Uri

SYSTEM_CONFIG = "/etc/rclone.conf"
_HOW = "apt install rclone, or see https://rclone.org/install"
_NOT_FOUND = (3, 4)  # rclone's exit codes: no such directory, no such file
_AGAIN = 5  # temporary, says rclone
_STAMP = re.compile(r"[0-9/]+ [0-9:]+ (?:[A-Z]+ *: )?")  # before the words of a line of its log


def is_here() -> bool:
    """Whether the program is installed."""
    return shutil.which("rclone") is not None


def is_remote(name: str) -> bool:
    """Whether rclone is here and has a remote of that name."""
    if not is_here():
        return False
    done = subprocess.run(["rclone", "listremotes"], capture_output=True, text=True, env=_environment(), check=False)
    return f"{name}:" in done.stdout.splitlines()


class Place(Scheme):
    """One remote."""

    files = 4  # processes

    def info(self, uri: Uri) -> Entry:
        return self._info(uri, "--hash", "--hash-type", "md5")

    def list(self, uri: Uri, recursive: bool = True) -> Iterator[Entry]:
        depth = ("-R", "--files-only") if recursive else ()
        for found in json.loads(self._ask(uri, "lsjson", *depth, "--hash", "--hash-type", "md5", _path(uri))):
            if found["IsDir"]:
                yield Entry(uri.child(found["Path"] + "/"), found["Path"] + "/")
            else:
                yield _entry(uri.child(found["Path"]), found["Path"], found)

    def read(self, entry: Entry, start: int, stop: int | None) -> Iterator[bytes]:
        if start:
            now = self._info(entry.uri)
            if (now.size, now.etag) != (entry.size, entry.etag):
                raise Replaced(entry.uri)
        span = ["--offset", str(start)] + ([] if stop is None else ["--count", str(stop - start)])
        words = [*self._words(), "cat", *span, _path(entry.uri)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(words, env=_environment(), **pipes)
        assert process.stdout is not None and process.stderr is not None
        try:
            while data := process.stdout.read1(CHUNK_BYTES):
                yield data
            said = process.stderr.read()
            if process.wait() != 0:
                raise _fault(entry.uri, process.returncode, said)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()

    def put(self, path: Path, uri: Uri, meter: Meter) -> None:
        if uri.is_folder:
            uri = uri.child(path.name)
        try:
            run([*self._words(), "copyto", str(path), _path(uri)], lambda: 0, meter, stall_seconds=None, env=_environment())
        except ProgramFailed as error:
            raise _fault(uri, error.code, error.said) from None
        meter.add(path.stat().st_size)

    def copy(self, entry: Entry, uri: Uri, meter: Meter) -> bool:
        if uri.scheme != entry.uri.scheme:
            return False
        self._ask(uri, "copyto", _path(entry.uri), _path(uri))
        meter.add(entry.size or 0)
        return True

    def delete(self, entries: list[Entry]) -> None:
        for entry in entries:
            try:
                self._ask(entry.uri, "deletefile", _path(entry.uri))
            except NotFound:
                continue  # it is gone already

    def _info(self, uri: Uri, *more: str) -> Entry:
        found = json.loads(self._ask(uri, "lsjson", "--stat", *more, _path(uri)) or "null")
        if not found or found["IsDir"]:
            raise NotFound(f"{uri}: {'it is a folder: end it with /' if found else 'there is no such file'}")
        return _entry(uri, uri.name, found)

    def _words(self) -> list[str]:
        """rclone as it is called here: it gives up where `transfer` tries again."""
        return [program("rclone", _HOW), "--retries", "1", "--low-level-retries", "3", "--timeout", f"{STALL_SECONDS:g}s"]

    def _ask(self, uri: Uri, *words: str) -> bytes:
        done = subprocess.run([*self._words(), *words], capture_output=True, stdin=subprocess.DEVNULL, env=_environment())
        if done.returncode:
            raise _fault(uri, done.returncode, done.stderr)
        return done.stdout


def _entry(uri: Uri, path: str, found: dict) -> Entry:
    size = found["Size"] if found["Size"] >= 0 else None
    return Entry(uri, path, size, _moment(found["ModTime"]), (found.get("Hashes") or {}).get("md5"), etag=found["ModTime"])


def _moment(text: str) -> datetime:
    """A time with nanoseconds and a zone: what Python 3.10 does not read is left out."""
    return datetime.fromisoformat(text[:19] + ("+00:00" if text.endswith("Z") else text[-6:]))


def _path(uri: Uri) -> str:
    return f"{uri.scheme}:{uri.place}"


def _fault(uri: Uri, code: int, said: bytes) -> Exception:
    """What the end of an rclone means: its last line without the time and the level before it."""
    lines = said.decode(errors="replace").strip().splitlines() or ["it did not say why"]
    last = shown(_STAMP.sub("", lines[-1]))
    if code in _NOT_FOUND:
        return NotFound(f"{uri}: there is no such file or folder")
    if any(word in last for word in ("AccessDenied", "Forbidden", "403", "401", "InvalidAccessKey", "SignatureDoesNotMatch")):
        return NotAllowed(f"{uri}: {last}: look at its part of rclone's configuration")
    return TransferFailed(f"{uri}: rclone: {last}", again=code == _AGAIN)


def _environment() -> dict[str, str]:
    """That of this process, with the system's configuration for those who have none."""
    environment = dict(os.environ)
    own = Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config", "rclone", "rclone.conf")
    if "RCLONE_CONFIG" not in environment and not own.exists() and os.path.exists(SYSTEM_CONFIG):
        environment["RCLONE_CONFIG"] = SYSTEM_CONFIG
    return environment
