"""The program on a terminal, where somebody types."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

from env import PATIENCE_SECONDS, PROGRAM, Env


def on_terminal(
    env: Env, *words: str, typed: bytes = b"", lines: int = 24, columns: int = 80, interrupt_at: bytes | None = None
) -> tuple[int, bytes]:  # fmt: skip
    """Runs the program until it ends, or shows something and is interrupted; its exit code, and what the terminal has shown."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen([*PROGRAM, *words], env=env.variables, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, typed)
    seen = b""
    try:
        while data := os.read(ours, 65536):
            seen += data
            if interrupt_at is not None and interrupt_at in seen:
                process.send_signal(signal.SIGINT)
    except OSError:  # the program has closed it
        pass
    os.close(ours)
    return process.wait(60), seen


class Session:
    """A program on a terminal of its own: what it shows is waited for, keys are pressed."""

    def __init__(self, env: Env, words: list[str], cwd: Path, variables: dict[str, str] | None = None):
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))
        self.settings = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            words, env={**env.variables, "TERM": "xterm", **(variables or {})}, cwd=cwd, stdin=theirs, stdout=theirs,
            stderr=theirs,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self._theirs = theirs  # open here too: how it is left is looked at
        self.seen = b""

    def until(self, text: str, since: int = 0) -> int:
        """Waits until this is shown after so many bytes; how many have been shown then."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text.encode() not in self.seen[since:]:
            assert time.monotonic() < deadline, f"{text!r} is not shown\n{self.seen[since:].decode(errors='replace')}"
            assert self._read(0.2) or self.process.poll() is None or self._read(0), (
                f"it ended\n{self.seen.decode(errors='replace')}"
            )
        return len(self.seen)

    def press(self, keys: str) -> int:
        """Types; how many bytes were shown before."""
        before = len(self.seen)
        os.write(self._ours, keys.encode())
        return before

    def end(self) -> int:
        """Waits until it ends; its exit code."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None:
            self._read(0.1)
            assert time.monotonic() < deadline, f"it goes on\n{self.seen.decode(errors='replace')}"
        while self._read(0):
            pass
        return self.process.returncode

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal's settings are those of the start."""
        return termios.tcgetattr(self._theirs) == self.settings

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._theirs)
        os.close(self._ours)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        with contextlib.suppress(OSError):  # nobody holds the other end
            self.seen += os.read(self._ours, 65536)
        return True
