"""What one verb of `scitq manage` is: its name, its words, what it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ..parser import Parser


@dataclass(frozen=True)
class Verb:
    """`run(server, arguments)` does it and returns the exit code; a `local` one is `run(arguments)` and opens no server."""

    object: str
    name: str
    about: str  # one line, without a full stop
    declare: Callable[[Parser], None]  # adds its options
    run: Callable[..., int]
    local: bool = False
    epilog: str | None = None

    @cached_property
    def parser(self) -> Parser:
        """Reads the words after the verb."""
        about = self.about[0].upper() + self.about[1:] + "."
        parser = Parser(
            prog=" ".join(filter(None, ["scitq manage", self.object, self.name])), description=about, epilog=self.epilog
        )
        self.declare(parser)
        return parser
