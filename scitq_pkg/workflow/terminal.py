"""A terminal that shows one screen and tells each key; as it was before when that is over."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import threading
from collections.abc import Iterator

from ..escapes import obeyed

_ENTER = "\x1b[?1049h\x1b[?25l"  # another screen, no cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"


def is_there() -> bool:
    """Whether somebody can look and type."""
    return obeyed(sys.stdin) and obeyed(sys.stdout)


class Terminal:
    """The screen and the keyboard of this process, between `with` and its end."""

    def __init__(self):
        import termios  # not on every system

        self._termios, self._input = termios, sys.stdin.fileno()
        self._rung, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        self._lock, self._open = threading.Lock(), True  # a number of a closed pipe may soon be another file's

    def __enter__(self) -> Terminal:
        termios = self._termios
        self._before = termios.tcgetattr(self._input)
        ours = termios.tcgetattr(self._input)
        ours[3] &= ~(termios.ICANON | termios.ECHO)
        ours[6][termios.VMIN], ours[6][termios.VTIME] = 1, 0
        ours[6][termios.VSUSP] = b"\0"  # Ctrl-Z would leave the terminal as it is now
        termios.tcsetattr(self._input, termios.TCSADRAIN, ours)
        self._write(_ENTER)
        return self

    def __exit__(self, *_) -> None:
        self._write(_LEAVE)
        self._termios.tcsetattr(self._input, self._termios.TCSADRAIN, self._before)
        with self._lock:
            self._open = False
            os.close(self._rung)
            os.close(self._bell)

    def ring(self) -> None:
        """Ends `keys` of another thread at once."""
        with self._lock, contextlib.suppress(BlockingIOError):  # it rings already
            if self._open:
                os.write(self._bell, b"!")

    def keys(self, seconds: float) -> Iterator[str]:
        """The keys that were typed, as soon as there are some, it rings or the time is over. Without a terminal: `q`."""
        ready, _, _ = select.select([self._input, self._rung], [], [], seconds)
        if self._rung in ready:
            os.read(self._rung, 4096)
        if self._input in ready:
            typed = os.read(self._input, 1024)
            if not typed.startswith(b"\x1b"):  # which begins what keys without a letter send
                yield from typed.decode("utf-8", "replace") or "q"

    def draw(self, lines: list[str]) -> None:
        """These lines and nothing else, each no wider than the screen."""
        self._write("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in lines[:-1]) + f"{lines[-1]}\x1b[K\x1b[J")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone: the next key says so
            sys.stdout.write(text)
            sys.stdout.flush()


def size() -> tuple[int, int]:
    """Columns and lines."""
    return tuple(shutil.get_terminal_size())
