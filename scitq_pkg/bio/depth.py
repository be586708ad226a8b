"""How many reads: `2x20M`, `10Mx2`, `100Kx1` or `5000`, as biologists write it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import InvalidRequest

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_NUMBER = r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*([KMG]?)"
_MATES_FIRST = re.compile(rf"([12])\s*X\s*{_NUMBER}")
_MATES_LAST = re.compile(rf"{_NUMBER}\s*X\s*([12])")
_PLAIN = re.compile(_NUMBER)


@dataclass(frozen=True)
class Depth:
    """A depth of sequencing. `read_number`: reads, of paired ones the pairs; `paired`: None if it was not said."""

    read_number: int
    paired: bool | None = None

    @property
    def total_read_number(self) -> int:
        """Reads, both of a pair counted."""
        return 2 * self.read_number if self.paired else self.read_number

    def to_tuple(self) -> tuple[int, bool | None]:
        """`(read_number, paired)`."""
        return self.read_number, self.paired


def user_friendly_depth(depth: str | int) -> Depth:
    """Reads a depth: `2x20M` and `20Mx2` are 20 million pairs, `1x100K` are single reads, `5000` may be either.

    Raises InvalidRequest.
    """
    text = str(depth).strip().upper()
    if found := _MATES_FIRST.fullmatch(text):
        mates, number, unit = found.groups()
    elif found := _MATES_LAST.fullmatch(text):
        number, unit, mates = found.groups()
    elif found := _PLAIN.fullmatch(text):
        number, unit, mates = *found.groups(), None
    else:
        raise InvalidRequest(f"{str(depth)!r:.60} is no depth: write a number of reads, as 5000, 10M, 2x20M or 100Kx1")
    reads = _reads(number, unit)
    if reads is None or reads < 1:
        raise InvalidRequest(f"the depth {str(depth)!r:.60} is no whole number of reads")
    return Depth(reads, None if mates is None else mates == "2")


def _reads(number: str, unit: str) -> int | None:
    """`2.5`, `M` -> 2500000; None if that is no whole number."""
    whole, _, part = number.replace("_", "").partition(".")
    digits, rest = divmod(int(whole + part) * _UNITS[unit], 10 ** len(part))
    return None if rest else digits
