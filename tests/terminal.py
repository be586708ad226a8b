"""The program on a terminal, where somebody types."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios

from env import PROGRAM, Env


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
    return process.wait(20), seen
