"""Text for a terminal."""

from __future__ import annotations


def safe(text: str) -> str:
    """The text with its control characters written as escapes: names and output are data, never orders to a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
