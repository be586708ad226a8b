"""How far a set of tasks is, on stderr: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import shutil
import sys
import time

from ..escapes import obeyed
from ..protocol import FINAL, SUCCEEDED, TASK_STATES

_BAR_SECONDS = 0.2  # between two drawings
_FIRST_LINE_SECONDS = 10.0
_LONGEST_SILENCE_SECONDS = 600.0
_BAR_CHARACTERS = 20
_ORDER = (SUCCEEDED, *(state for state in reversed(TASK_STATES) if state != SUCCEEDED))  # the end first


class Progress:
    """Shows counts of states; `on` None means: yes. Nothing is shown if stderr is closed."""

    def __init__(self, total: int, on: bool | None = None):
        self._total = total
        self.on = on is not False and sys.stderr is not None and not sys.stderr.closed
        self._terminal = self.on and obeyed(sys.stderr)
        self._start = time.monotonic()
        self._silence = _BAR_SECONDS if self._terminal else _FIRST_LINE_SECONDS
        self._next = self._start + (0 if self._terminal else self._silence)
        self._last: dict[str, int] = {}
        self._shown: dict[str, int] | None = None

    def show(self, counts: dict[str, int]) -> None:
        """Shows the counts if they are news and it is time."""
        self._last = counts
        now = time.monotonic()
        if not self.on or now < self._next or (counts == self._shown and not self._terminal):
            return
        self._write(counts)
        if not self._terminal:
            self._silence = min(self._silence * 2, _LONGEST_SILENCE_SECONDS)
        self._next = now + self._silence

    def say(self, sentence: str) -> None:
        """A line of its own, above the bar."""
        if self.on:
            self._print(f"\r\x1b[K{sentence}\n" if self._terminal else f"{sentence}\n")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        if self.on and self._last:
            self._write(self._last)
            if self._terminal:
                self._print("\n")

    def _write(self, counts: dict[str, int]) -> None:
        self._shown = counts
        text = self.line(counts)
        width = shutil.get_terminal_size().columns - 1
        self._print(f"\r{text[:width]}\x1b[K" if self._terminal else f"{text}\n")

    def line(self, counts: dict[str, int]) -> str:
        """`12/40 done  10 succeeded, 2 failed, 8 running  0:01:07`, with a bar before it on a terminal."""
        done = sum(number for state, number in counts.items() if state in FINAL or state not in TASK_STATES)
        order = (*_ORDER, *(state for state in sorted(counts) if state not in _ORDER))
        told = ", ".join(f"{counts[state]} {state}" for state in order if counts.get(state))
        filled = _BAR_CHARACTERS * done // max(1, self._total)
        bar = f"[{'#' * filled}{'.' * (_BAR_CHARACTERS - filled)}] " if self._terminal else ""
        return f"{bar}{done}/{self._total} done  {told}  {_clock(time.monotonic() - self._start)}"

    def _print(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:  # nobody reads it any more: the waiting goes on
            self.on = False


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
