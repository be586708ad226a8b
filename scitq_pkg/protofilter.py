"""Protofilters: `auto:cpu>=8:ram>=30:region~GRA%`, which machines will do; and which of them is known to.

After `auto`, conditions that must all hold, a colon before each: an item, a comparison, a value.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from .errors import InvalidRequest, nearest

AUTO = "auto"
NUMBERS = {
    "cpu": "processors", "ram": "memory in GB", "disk": "scratch disk in GB", "gpumem": "memory of a GPU in GB",
    "cost": "price of an hour", "eviction": "percent of machines taken away",
}  # fmt: skip
TEXTS = {"region": "where it is", "provider": "whose it is"}
LETTERS = {"tags": "G: GPU, M: bare metal, N: NVMe disk"}
ITEMS = {**NUMBERS, **LETTERS, **TEXTS}
OFFERS = ("cost", "eviction")  # of what is to be had, not of a machine that is there

_ORDERS = {
    "==": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_COMPARISONS = ("==", "!=", ">=", "<=", "!~", "!#", ">", "<", "~", "#")  # longer ones first
_OF_TEXTS = ("==", "!=", "~", "!~")
_OF_LETTERS = ("==", "!=", "#", "!#")
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_%-")
_NUMBER = frozenset("0123456789.")


@dataclass(frozen=True)
class Condition:
    """One of those that must hold."""

    item: str
    comparison: str
    value: str | float  # a number for the items of NUMBERS

    def holds(self, known: str | float) -> bool:
        """Whether it does for a machine of which the item is known to be this."""
        if self.comparison in ("~", "!~"):
            return is_like(str(known), str(self.value)) == (self.comparison == "~")
        if self.comparison in ("#", "!#"):
            return (set(str(self.value)) <= set(str(known))) == (self.comparison == "#")
        if self.item in LETTERS:
            known, value = set(str(known)), set(str(self.value))
            return (known == value) == (self.comparison == "==")
        return _ORDERS[self.comparison](known, self.value)


def is_protofilter(flavor: str) -> bool:
    """Whether a flavor is a protofilter, and not a name."""
    return flavor.partition(":")[0] == AUTO


@lru_cache(maxsize=1000)
def parse(text: str) -> tuple[Condition, ...]:
    """The conditions of a protofilter. Raises InvalidRequest saying at which character it goes wrong, and what is known."""
    first, *parts = text.split(":")
    if first != AUTO:
        raise InvalidRequest(f"a protofilter begins with '{AUTO}', not with {first!r:.60}", field="flavor")
    conditions, place = [], len(first) + 2
    for part in parts:
        conditions.append(_condition(part, place))
        place += len(part) + 1
    return tuple(conditions)


def _condition(part: str, place: int) -> Condition:
    length = next((at for at, sign in enumerate(part) if not (sign.isascii() and sign.isalpha())), len(part))
    item, rest = part[:length], part[length:]
    if item not in ITEMS:
        there_are = f"there are {', '.join(ITEMS)}"
        raise _wrong(part, place, f"{item or part!r:.60} is nothing to compare{nearest(item, ITEMS)}: {there_are}")
    comparison = next((sign for sign in _COMPARISONS if rest.startswith(sign)), None)
    allowed = _OF_LETTERS if item in LETTERS else _OF_TEXTS if item in TEXTS else tuple(_ORDERS)
    if comparison not in allowed:
        raise _wrong(part, place + length, f"{item} is compared with {', '.join(allowed)}")
    value = rest[len(comparison) :]
    return Condition(item, comparison, _value(item, value, part, place + length + len(comparison)))


def _value(item: str, value: str, part: str, place: int) -> str | float:
    if item not in NUMBERS:
        if not value or not _WORD.issuperset(value):
            raise _wrong(part, place, f"{item} wants letters, digits, '_', '-' and '%', not {value!r:.60}")
        return value
    if not _NUMBER.issuperset(value) or value.count(".") > 1 or not value.strip("."):
        raise _wrong(part, place, f"{item} wants a number, not {value!r:.60}")
    return float(value)


def _wrong(part: str, place: int, why: str) -> InvalidRequest:
    return InvalidRequest(f"the protofilter goes wrong at character {place}, in {part!r:.80}: {why}", field="flavor")


def check_flavor(flavor: str) -> None:
    """Raises InvalidRequest for a protofilter that cannot be read, and for a name that looks like one."""
    if is_protofilter(flavor):
        parse(flavor)
    elif any(sign in flavor for sign in ":=<>~#!"):
        raise InvalidRequest(f"{flavor!r:.80} is no name of a flavor; a protofilter begins with '{AUTO}:'", field="flavor")


@lru_cache(maxsize=10_000)
def _is_met(text: str, known: frozenset) -> bool:
    facts = dict(known)
    wanted = (condition for condition in parse(text) if condition.item not in OFFERS)
    return all(condition.item in facts and condition.holds(facts[condition.item]) for condition in wanted)


def is_met(text: str, known: Mapping[str, str | float | None]) -> bool:
    """Whether a machine that is there passes a protofilter.

    `known`: what is known of it, by item; what is not known (missing, None) passes no condition. Price and eviction are no
    matter: the machine is there already.
    """
    return _is_met(text, frozenset((item, value) for item, value in known.items() if value is not None))


def is_like(text: str, pattern: str) -> bool:
    """SQL's LIKE, whatever the case: `%` stands for any letters, `_` for one. Takes no longer than their lengths multiplied."""
    text, pattern = text.casefold(), pattern.casefold()
    at = place = 0
    last, resumed = -1, 0  # the last `%`, and up to where it stands for letters
    while at < len(text):
        if place < len(pattern) and pattern[place] == "%":
            last, resumed = place, at
            place += 1
        elif place < len(pattern) and pattern[place] in ("_", text[at]):
            at, place = at + 1, place + 1
        elif last >= 0:
            resumed += 1
            at, place = resumed, last + 1
        else:
            return False
    return not pattern[place:].strip("%")
