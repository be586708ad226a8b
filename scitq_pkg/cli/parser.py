"""argparse as this program wants it: what is wrong is one sentence, with the nearest word that would be right."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import NoReturn

from ..errors import InvalidRequest, nearest

_MOST_DIGITS = 20


class Parser(argparse.ArgumentParser):
    """Raises InvalidRequest where argparse would print its usage and leave; options cannot be abbreviated."""

    def __init__(self, **options):
        super().__init__(**{"allow_abbrev": False, **options})

    @property
    def names(self) -> list[str]:
        """All the options, those of groups too, which argparse tells nobody else."""
        return list(self._option_string_actions)

    @property
    def actions(self) -> list[argparse.Action]:
        """What describes each option and each word."""
        return list(self._actions)

    def parse_args(self, args=None, namespace=None):
        found, unknown = self.parse_known_intermixed_args(args, namespace)  # words may stand before, between and after options
        if unknown:
            self._refuse(unknown[0])
        return found

    def _get_values(self, action, arg_strings):
        """As argparse, which before 3.13 takes the value out of `--name=--`."""
        if action.option_strings and arg_strings == ["--"]:
            value = self._get_value(action, "--")
            return [value] if action.nargs in ("+", "*") else value
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        raise InvalidRequest(f"{message} ({self.prog} -h tells more)")

    def _refuse(self, word: str) -> NoReturn:
        if word.startswith("-"):
            name = word.partition("=")[0]
            self.error(f"unknown option '{name}'{nearest(name, self.names)}")
        self.error(f"there is one word too many: '{word}'")


class OneOf:
    """A type of argument: one of `words`."""

    def __init__(self, known: Iterable[str], what: str):
        self.words, self._what = tuple(known), what

    def __call__(self, text: str) -> str:
        if text not in self.words:
            hint = f"{nearest(text, self.words)}; there are {', '.join(self.words)}"
            raise argparse.ArgumentTypeError(f"unknown {self._what} '{text}'{hint}")
        return text


class SomeOf(OneOf):
    """A type of argument: several of `words`, commas between."""

    def __call__(self, text: str) -> str:
        return ",".join(super(SomeOf, self).__call__(word.strip()) for word in text.split(","))


def number(least: int, most: int) -> Callable[[str], int]:
    """A type of argument: a whole number between two."""

    def check(text: str) -> int:
        plain = len(text) <= _MOST_DIGITS and text.isascii() and text.removeprefix("-").isdigit()
        if not plain or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r:.60} is not a whole number from {least} to {most}")
        return int(text)

    return check
