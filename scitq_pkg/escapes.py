"""Text for a terminal."""

from __future__ import annotations

import os
from typing import TextIO


def safe(text: str) -> str:
    """The text with its control characters written as escapes: names and output are data, never orders to a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def obeyed(stream: TextIO | None) -> bool:
    """Whether somebody looks at what is written there, through a terminal that obeys escapes (one of `TERM=dumb` does not)."""
    return stream is not None and not stream.closed and stream.isatty() and os.environ.get("TERM") != "dumb"


def colored(stream: TextIO | None) -> bool:
    """Whether it may be in colors: not for a program or a file that reads it, and not where `NO_COLOR` is set."""
    return obeyed(stream) and not os.environ.get("NO_COLOR")
