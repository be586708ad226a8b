"""Samples as the rows of a table: what `scitq fetch samples` writes, and what the tasks of a batch file are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import InvalidRequest
from .runs import Run, Samples

KINDS = ("sample", "run")  # what a row is
COLUMNS = (
    "sample_accession", "run_accession", "uri", "library_layout", "library_strategy", "library_source", "library_selection",
    "instrument_platform", "instrument_model", "scientific_name", "tax_id", "read_count", "base_count", "study_accession",
    "experiment_accession", "sample_alias", "sample_title",
)  # fmt: skip
_SUMS = ("read_count", "base_count", "spots", "bases", "spots_with_mates", "size_mb", "sra_bytes", "size")
_LISTS = ("uri", "run_accession", "experiment_accession")  # words, so that a list of inputs can be made of them

Cell = str | int


def rows(samples: Mapping[str, list[Run]], kind: str = "sample", every: bool = False) -> list[dict[str, Cell]]:
    """A row for each sample, or each run, with the same columns in all.

    COLUMNS as far as the runs have them, or with `every` all their attributes; of runs also `fastq_1` and `fastq_2`, URLs at ENA.
    In the row of a sample `uri`, `run_accession` and `experiment_accession` hold those of all its runs with spaces between,
    numbers their sum, other columns the values that occur, with `;` between.
    """
    runs = [run for own in samples.values() for run in own]
    names = {name: None for run in runs for name in vars(run)}
    columns = [name for name in COLUMNS if name in names] + [name for name in names if every and name not in COLUMNS]
    if kind == "run":
        return [{**{name: _cell([run], name) for name in columns}, **_urls(run)} for run in runs]
    _check_uris(runs)
    return [{name: _cell(own, name) for name in columns} for own in samples.values()]


def where(samples: Samples, conditions: Iterable[tuple[str, str]]) -> Samples:
    """The runs with such values of these attributes, as `filter_by`; one named twice may have either. Raises InvalidRequest."""
    from .filters import filter_by

    wanted: dict[str, list[str]] = {}
    for name, value in conditions:
        wanted.setdefault(name, []).append(value)
    found = filter_by(samples, **wanted)
    if not found and samples:
        told = " and ".join(f"{name} {' or '.join(values)} ({_there(samples, name)})" for name, values in wanted.items())
        raise InvalidRequest(f"none of the runs has {told}")
    return found


def _there(samples: Samples, name: str) -> str:
    values = sorted({str(getattr(run, name, "")) for runs in samples.values() for run in runs})
    return f"there are {', '.join(values[:10])}{'...' if len(values) > 10 else ''}"


def _cell(runs: list[Run], name: str) -> Cell:
    values = [value for run in runs if (value := getattr(run, name, None)) not in (None, "")]
    if name in _SUMS and values:
        return sum(values)
    distinct = list(dict.fromkeys(map(str, values)))
    return (" " if name in _LISTS else ";").join(distinct)


def _urls(run: Run) -> dict[str, str]:
    """`fastq_1` and `fastq_2`: both files of a paired run, or the one of another; empty where ENA has none."""
    if not hasattr(run, "fastq_ftp"):
        return {}
    paths = {path.rpartition("/")[2].partition(".")[0]: f"https://{path}" for path in run.fastq_ftp.split(";") if path}
    first, second = (paths.get(f"{run.run_accession}_{mate}", "") for mate in (1, 2))
    if not (first or second):
        first = next(iter(paths.values()), "")
    return {"fastq_1": first, "fastq_2": second}


def _check_uris(runs: list[Run]) -> None:
    for run in runs:
        if any(map(str.isspace, run.uri)):
            raise InvalidRequest(
                f"{run.uri!r:.200} has spaces in it, which a row of several inputs cannot hold: make a row a run"
            )
