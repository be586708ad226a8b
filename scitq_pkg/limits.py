"""What a server can keep: how long texts may be, how large numbers, and which characters no text may have."""

from __future__ import annotations

import re

MAX_INT = 2**31 - 1  # what a column holds on every database
MAX_SECONDS = 1e9
MAX_NAME = 1000  # characters
MAX_LINE = 8000  # of a URI, which may be signed, or of options
MAX_WORD = 50_000  # of a list of ids; what is longer fits in no URL
MAX_TEXT = 1_000_000
NO_TEXT = re.compile("[\0\ud800-\udfff]")  # what no database keeps: NUL and halves of characters
NO_NAME = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # besides, what breaks the line it is shown in


def text_fault(value: str, most: int = MAX_TEXT) -> str | None:
    """What is wrong with a text, or None."""
    if len(value) > most:
        return f"is longer than {most} characters"
    return "holds a NUL or half a character, which cannot be kept" if NO_TEXT.search(value) else None


def line_fault(value: str, most: int = MAX_LINE) -> str | None:
    """What is wrong with a text of one line, or None."""
    if len(value) > most:
        return f"is longer than {most} characters"
    return "holds a newline or another control character" if NO_NAME.search(value) else None


def is_variable(name: str) -> bool:
    """Whether an environment variable can have this name."""
    return bool(name) and "=" not in name and line_fault(name) is None


def number_fault(value: float, least: float, most: float = MAX_INT) -> str | None:
    """What is wrong with a number, or None."""
    if value < least:
        return f"must be {least:,} or more"
    return f"must be {most:,.0f} or less" if value > most else None
