"""What is measured. A scenario is a function of a `Bench`; it adds its figures and, at its end, the bars they must clear."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from results import OURS, Results

ALL: dict[str, Callable[[Bench], None]] = {}
ON_REQUEST: set[str] = set()  # those that take long


def scenario(function: Callable[[Bench], None] | None = None, on_request: bool = False) -> Callable:
    """Names a function as a scenario; one `on_request` runs only when it is named."""
    if function is None:
        return lambda named: scenario(named, on_request)
    ALL[function.__name__] = function
    if on_request:
        ON_REQUEST.add(function.__name__)
    return function


def chosen(words: list[str]) -> list[str]:
    """The scenarios that are meant: globs of names; none of them: all that take not long.

    Raises ValueError for one that is none.
    """
    for word in words:
        if not fnmatch.filter(ALL, word):
            raise ValueError(f"there is no scenario {word!r}; there are {', '.join(ALL)}")
    return [name for name in ALL if any(fnmatch.fnmatch(name, word) for word in words) or not words and name not in ON_REQUEST]


@dataclass
class Bench:
    """What a scenario works with."""

    scenario: str
    systems: dict[str, type]  # those that can run here; "scitq" is one of them
    rounds: int
    results: Results
    say: Callable[[str], None]

    @contextmanager
    def running(self, *names: str, workers: bool = True) -> Iterator[dict]:
        """These systems (default: all), started side by side in a folder of their own and ended afterwards."""
        with TemporaryDirectory(prefix="scitq-bench-", ignore_cleanup_errors=True) as folder, ExitStack() as ends:
            found = {}
            for name in names or self.systems:
                if name in self.systems:
                    system = self.systems[name](Path(folder) / name)
                    ends.callback(system.stop)
                    if self._works(system, lambda system: system.start(workers)):
                        found[name] = system
            yield found

    def warm(self, systems: dict, ask: Callable) -> None:
        """Asks each once; who fails is out."""
        for name, system in list(systems.items()):
            if not self._works(system, ask):
                del systems[name]

    def alternate(self, systems: dict, ask: Callable, rounds: int | None = None) -> None:
        """Calls `ask(system)` for each system once a round, in an order that turns from round to round. Who fails is out."""
        for turn in range(rounds or self.rounds):
            names = list(systems)
            turn %= len(names)
            for name in names[turn:] + names[:turn]:
                if not self._works(systems[name], ask):
                    del systems[name]

    def _works(self, system, ask: Callable) -> bool:
        """Calls `ask(system)`. A peer may fail: that is told below the table. scitq may not."""
        start = time.perf_counter()
        try:
            ask(system)
            self.say(f"  {system.title}: {time.perf_counter() - start:.1f} s")
            return True
        except Exception as error:
            if system.title == OURS:
                raise
            self.results.missing[system.title] = f"it failed during {self.scenario}: {type(error).__name__}: {error}"[:300]
            return False
