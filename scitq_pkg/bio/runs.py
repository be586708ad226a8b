"""Runs and samples: the one shape of what archives and folders tell of reads."""

from __future__ import annotations

import re
from collections.abc import Iterable
from types import SimpleNamespace

from ..errors import nearest

PAIRED = "PAIRED"
SINGLE = "SINGLE"


class Run(SimpleNamespace):
    """One run of a sequencer, or one file of reads: what is known of it are its attributes.

    All have `sample_accession`, `run_accession`, `library_layout` (PAIRED or SINGLE) and `uri`, which is an input of a task.
    """

    def __getattr__(self, name: str):
        raise AttributeError(f"a run has no {name!r}{nearest(name, vars(self))}")

    def but(self, **changes) -> Run:
        """The same run, with other values of some attributes."""
        return Run(**{**vars(self), **changes})


Samples = dict[str, list[Run]]
"""The runs of each sample, by its accession or name."""


def by_sample(runs: Iterable[Run]) -> Samples:
    """The runs, each once, under their samples: in the order of their names, so that the same question gives the same answer."""
    samples: Samples = {}
    once = {(run.sample_accession, run.uri): run for run in runs}.values()
    for run in sorted(once, key=lambda run: [_natural(text) for text in (run.sample_accession, run.run_accession, run.uri)]):
        samples.setdefault(run.sample_accession, []).append(run)
    return samples


def _natural(text: str) -> list[tuple[int, int, str]]:
    """A key to sort by in which s2 comes before s10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", text)]
