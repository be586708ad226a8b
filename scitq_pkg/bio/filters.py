"""Which samples and runs are wanted: by their attributes, by the layout of their libraries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from ..errors import InvalidRequest, nearest
from .runs import PAIRED, SINGLE, Run, Samples


def filter_by(samples: Mapping[str, list[Run]], **wanted) -> Samples:
    """The runs with these attributes, in their samples; a sample without such a run is left out.

    `filter_by(samples, library_strategy="WGS", instrument_model=["NextSeq 500", "NextSeq 550"], read_count=lambda n: n > 10**6)`:
    a value, several values or a function that says yes to it; of a value that is not known (None) it is not asked.
    Raises InvalidRequest for an attribute that no run has.
    """
    known = {name for runs in samples.values() for run in runs for name in vars(run)}
    for name in wanted:
        if known and name not in known:
            raise InvalidRequest(f"no run has {name!r}{nearest(name, known)}: there are {', '.join(sorted(known))}")
    tests = {name: _test(value) for name, value in wanted.items()}
    return _kept(samples, lambda run: all(test(getattr(run, name, None)) for name, test in tests.items()))


def filter_by_layout(samples: Mapping[str, list[Run]], paired: bool, use_only_r1: bool = True) -> Samples:
    """The runs of one layout. `paired`: those with paired reads alone.

    Else those with single reads, and of paired ones the first reads as if they were single (their `uri` fetches no others);
    without `use_only_r1` these are left out.
    """
    if paired:
        return _kept(samples, lambda run: run.library_layout == PAIRED)
    if not use_only_r1:
        return _kept(samples, lambda run: run.library_layout == SINGLE)
    found = {sample: [single for run in runs if (single := _first_reads(run))] for sample, runs in samples.items()}
    return {sample: runs for sample, runs in found.items() if runs}


def find_library_layout(samples: Mapping[str, list[Run]]) -> str:
    """PAIRED or SINGLE, whichever most runs are. Raises InvalidRequest if there are as many of both, or no runs."""
    counts = Counter(run.library_layout for runs in samples.values() for run in runs)
    paired, single = counts[PAIRED], counts[SINGLE]
    if paired == single:
        many = f"{paired} runs are PAIRED and as many SINGLE" if paired else "there is no run that is PAIRED or SINGLE"
        raise InvalidRequest(f"the samples have no layout in common, {many}: choose with filter_by_layout(samples, paired=...)")
    return PAIRED if paired > single else SINGLE


def _kept(samples: Mapping[str, list[Run]], test: Callable[[Run], bool]) -> Samples:
    found = {sample: [run for run in runs if test(run)] for sample, runs in samples.items()}
    return {sample: runs for sample, runs in found.items() if runs}


def _test(wanted) -> Callable[[object], bool]:
    """The question whether a value is wanted; numbers and the texts that archives write them as are the same."""
    if callable(wanted):
        return lambda value: value is not None and bool(wanted(value))
    several = wanted if isinstance(wanted, (list, tuple, set, frozenset)) else [wanted]
    texts = {_text(one) for one in several}
    return lambda value: _text(value) in texts


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _first_reads(run: Run) -> Run | None:
    """A run with single reads; of a paired one what fetches its first reads alone; None for a file that holds others."""
    if run.library_layout != PAIRED:
        return run
    scheme, _, place = run.uri.partition("://")
    if scheme.startswith("run+fastq"):
        chosen = scheme if "@filter_r1" in scheme else f"{scheme}@filter_r1"
        return run.but(uri=f"{chosen}://{place}", library_layout=SINGLE)
    return run.but(library_layout=SINGLE) if run.mate == 1 else None
