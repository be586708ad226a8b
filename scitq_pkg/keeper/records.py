"""Small JSON files about one execution each.

They are written over rather than made anew, because making and removing files is the dearest part of a short task on some file
systems. So a record names its execution: one of another execution was left by the directory's earlier use and counts as absent.
"""

from __future__ import annotations

import errno
import json
import os

SPEC_FILE = "spec.json"  # what to run
STARTED_FILE = "started.json"  # its command was, or may have been, started: who its main process is
END_FILE = "end.json"  # how its command ended
RECORDS = (SPEC_FILE, STARTED_FILE, END_FILE)
_PAGE_BYTES = 512


def write(directory: str, name: str, record: dict) -> None:
    """Writes a 0600 file in one system call, so that it holds the new record or the old one. Raises OSError."""
    text = json.dumps(record, separators=(",", ":")).encode()
    text = text.ljust(-(-len(text) // _PAGE_BYTES) * _PAGE_BYTES, b" ")  # covers the end of what was there before
    fd = os.open(os.path.join(directory, name), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_size > len(text):
            os.ftruncate(fd, 0)
        if os.pwrite(fd, text, 0) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)


def read(directory: str, name: str, execution: int) -> dict | None:
    """The record of this execution; None if there is none that is whole."""
    try:
        with open(os.path.join(directory, name), "rb", buffering=0) as file:
            record = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("id") == execution else None


def was_started(directory: str, execution: int) -> bool:
    """Whether its command may have been started: in doubt it was."""
    try:
        with open(os.path.join(directory, STARTED_FILE), "rb", buffering=0) as file:
            text = file.read()
    except FileNotFoundError:
        return False
    try:
        return json.loads(text).get("id", execution) == execution
    except (ValueError, AttributeError):
        return True
