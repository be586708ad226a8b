"""`@aria2`: aria2c fetches one file over many connections. It asks much of the server; meant for where others are too slow."""

from __future__ import annotations

from pathlib import Path

from ..errors import TransferFailed
from .programs import program, run
from .progress import Meter

CONNECTIONS = 16
_HOW = "apt install aria2, or leave out @aria2"


def fetch(url: str, part: Path, meter: Meter) -> bool:
    """Brings a URL to `part`, going on with what an aria2c before has left. Always True. Raises TransferFailed."""
    words = [
        program("aria2c", _HOW), "--allow-overwrite=true", "--auto-file-renaming=false", "--continue=true",
        "--file-allocation=none",
        f"--max-connection-per-server={CONNECTIONS}", f"--split={CONNECTIONS}", "--min-split-size=1M", "--max-tries=1",
        "--console-log-level=error", "--summary-interval=0", "--download-result=hide",
        f"--dir={part.parent}", "--input-file=-",
    ]  # fmt: skip
    if "\n" in part.name:
        raise TransferFailed(f"{part.name!r}: aria2c takes no name with a line break: leave out @aria2")
    control = part.with_name(part.name + ".aria2")
    if not control.exists():
        part.write_bytes(b"")  # what is there is not its own
    told = f"{url}\n out={part.name}"  # others see the words of a command, and a URL may hold a password
    run(words, lambda: _blocks(part), meter, told=told)
    return True


def _blocks(path: Path) -> int:
    """Bytes that are really there: the file has holes while it comes."""
    status = path.stat()
    return min(status.st_size, status.st_blocks * 512)
