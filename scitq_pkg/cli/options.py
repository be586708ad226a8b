"""Options of the command line: a small parser that stops at the first word that is none, and how their values are read.

`launch` hands the rest of its words to a command, to the letter: argparse would take some of them for itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..errors import InvalidRequest, nearest


class Option:
    """One option: its names, the word for its value (None: a flag), what it does. Its key is the first long name."""

    __slots__ = ("names", "value", "about", "repeated", "bare", "key")

    def __init__(self, names: str, value: str | None, about: str, repeated: bool = False, bare: str | None = None):
        """`bare`: what `--name` alone means when the value may be left out (then it is given as `--name=value`)."""
        self.names, self.value, self.about, self.repeated, self.bare = names.split(), value, about, repeated, bare
        self.key = next(name for name in self.names if name.startswith("--"))[2:].replace("-", "_")


SERVER = Option("-s --server", "SERVER", "host, host:port or URL (default: $SCITQ_SERVER, else this machine; port 5000)")
TOKEN_FILE = Option("--token-file", "FILE", "a file that holds the token (default: $SCITQ_TOKEN, else this user's own)")
HELP = Option("-h --help", None, "show this and leave")
VERBOSE = Option("-v --verbose", None, "show where an unexpected error came from")


def parse(words: list[str], options: Iterable[Option]) -> tuple[dict, list[str]]:
    """The options that were given, by key, and the words from the first one that is no option on. `--` ends the options.

    A flag is True, a repeated option a list. Raises InvalidRequest for an unknown option or a missing value.
    """
    by_name = {name: option for option in options for name in option.names}
    found: dict = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        for name, attached in _names(word, by_name):
            _keep(found, by_name[name], name, attached, rest)
    return found, rest


def _names(word: str, by_name: dict[str, Option]) -> list[tuple[str, str | None]]:
    """The options in one word, and the value written in it: `--name=value`, `-nvalue`, `-tv`."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        if name not in by_name:
            raise InvalidRequest(f"unknown option '{name}'{nearest(name, [n for n in by_name if n.startswith('--')])}")
        return [(name, value if equals else None)]
    found: list[tuple[str, str | None]] = []
    for i in range(1, len(word)):
        letter = f"-{word[i]}"
        if letter not in by_name:
            raise InvalidRequest(f"unknown option '{letter}'" + (f" in '{word}'" if len(word) > 2 else "") + " (-h lists them)")
        if by_name[letter].value is not None:
            return [*found, (letter, word[i + 1 :] or None)]
        found.append((letter, None))
    return found


def _keep(found: dict, option: Option, name: str, attached: str | None, rest: list[str]) -> None:
    if option.value is None:
        if attached is not None:
            raise InvalidRequest(f"the option '{name}' takes no value")
        found[option.key] = True
        return
    value = attached if attached is not None else option.bare
    if value is None:
        if not rest:
            raise InvalidRequest(f"the option '{name}' needs a value: {name} {option.value}")
        value = rest.pop(0)
    if option.repeated:
        found.setdefault(option.key, []).append(value)
    elif option.key in found:
        raise InvalidRequest(f"the option '{name}' is given twice")
    else:
        found[option.key] = value


def described(options: Iterable[Option]) -> str:
    """The lines of a help text."""
    rows = [(", ".join(option.names) + _value_shown(option), option.about) for option in options]
    return "".join(f"  {left:<30}  {about}\n" if len(left) <= 30 else f"  {left}\n{'':34}{about}\n" for left, about in rows)


def _value_shown(option: Option) -> str:
    if option.bare is not None:
        return f"[={option.value}]"
    return f" {option.value}" if option.value else ""


# --- values -------------------------------------------------------------------------------------------------------


def duration(text: str, name: str = "a duration") -> float:
    """Seconds: `90`, `90s`, `5m`, `2h`, `3d`, `1h30m`."""
    from ..durations import EXAMPLES, seconds_of  # few calls of launch need it

    seconds = seconds_of(text)
    if seconds is None:
        raise InvalidRequest(f"{name} cannot be {text!r:.60}: give a duration such as {EXAMPLES}")
    return seconds


def whole_number(text: str, name: str, least: int | None = None) -> int:
    """An integer, of at least `least`."""
    try:
        number = int(text)
    except ValueError:
        number = None
    if number is None or (least is not None and number < least):
        raise InvalidRequest(
            f"{name} cannot be {text!r:.60}: give a whole number" + (f" of at least {least}" if least is not None else "")
        )
    return number


def pair(text: str, name: str) -> tuple[str, str]:
    """`KEY=VALUE`."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise InvalidRequest(f"{name} cannot be {text!r:.60}: give KEY=VALUE")
    return key, value


def token_of(path: str | None) -> str | None:
    """The token in a file that `--token-file` names; None without one."""
    if path is None:
        return None
    try:
        with open(os.path.expanduser(path), encoding="ascii") as file:
            token = file.read().strip()
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"the token file {path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}"
        ) from None
    if not token.isprintable() or len(token.split()) != 1:  # an empty one would mean: with the token of this user
        raise InvalidRequest(f"the token file {path} holds no token: its one line is wanted there")
    return token
