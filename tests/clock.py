"""A clock of its own for processes under test, by libfaketime: the time of day jumps, or all time goes faster."""

from __future__ import annotations

import glob
import os
import time
from pathlib import Path

import pytest

PLACES = [f"{place}/faketime/libfaketimeMT.so.1" for place in ("/usr/lib/*", "/usr/lib", "/usr/local/lib")]


class Clock:
    """Processes started with `variables` follow it from then on, and so do their children.

    With `monotonic` all clocks of the system obey, not only the time of day.
    """

    def __init__(self, directory: Path, monotonic: bool = False):
        found = [path for place in PLACES for path in glob.glob(place)]
        if not found:
            pytest.skip("libfaketime is not installed (on Debian: the package faketime)")
        self._file = directory / "clock"
        self._made, self._offset, self._speed = time.monotonic(), 0.0, 1
        self.set("+0")
        self.variables = {"LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1"}
        if not monotonic:
            self.variables["DONT_FAKE_MONOTONIC"] = "1"

    def set(self, offset: str) -> None:
        """As faketime writes it: `+1d` or `-3h` from the true time."""
        beside = self._file.with_suffix(".new")
        beside.write_text(offset + "\n")
        os.replace(beside, self._file)

    def run(self, speed: int) -> None:
        """All time goes so many times as fast from now on; it never goes back, and may leap by what it would have reached."""
        self._offset += self._speed * (time.monotonic() - self._made) + 1
        self._speed = speed
        self.set(f"+{self._offset:.0f} x{speed}")
