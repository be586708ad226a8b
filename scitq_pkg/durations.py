"""Lengths of time as people write them: `90`, `90s`, `5m`, `2h`, `3d`, `1h30m`."""

from __future__ import annotations

import re

EXAMPLES = "90, 90s, 5m, 2h, 3d or 1h30m"  # for sentences about what is none
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AMOUNT = r"\d{1,9}(?:\.\d{1,9})?"
_WHOLE = re.compile(f"{_AMOUNT}|(?:{_AMOUNT}[smhdw])+", re.ASCII)
_PART = re.compile(f"({_AMOUNT})([smhdw]?)", re.ASCII)


def seconds_of(text: str) -> float | None:
    """The seconds that the text means; None if it is no length of time. A number alone is seconds."""
    if not _WHOLE.fullmatch(text):
        return None
    return sum(float(amount) * _UNIT_SECONDS[unit or "s"] for amount, unit in _PART.findall(text))


def short_duration(seconds: float) -> str:
    """`0.4s`, `12s`, `5m03s`, `3h12m`, `2d05h`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    for unit, size, lesser, least in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // least:02}{lesser}"
    return f"{whole}s"
