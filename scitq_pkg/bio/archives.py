"""Samples of the public archives: ENA's file report and NCBI's run information, in the same words."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import InvalidRequest, NotFound, nearest
from .runs import PAIRED, SINGLE, Run, Samples, by_sample

ENA_FIELDS = (
    "study_accession", "secondary_study_accession", "sample_accession", "secondary_sample_accession", "experiment_accession",
    "run_accession", "tax_id", "scientific_name", "instrument_platform", "instrument_model", "library_name", "library_layout",
    "library_strategy", "library_source", "library_selection", "read_count", "base_count", "first_public", "sample_alias",
    "sample_title", "fastq_bytes", "fastq_md5", "fastq_ftp", "fastq_aspera", "submitted_bytes", "submitted_md5",
    "submitted_ftp", "submitted_aspera", "submitted_format", "sra_bytes", "sra_md5", "sra_ftp", "sra_aspera", "bam_ftp",
)  # fmt: skip
ENA_NAMES = {  # what NCBI calls it in snake case -> what ENA does
    "run": "run_accession",
    "experiment": "experiment_accession",
    "sample": "secondary_sample_accession",
    "bio_sample": "sample_accession",
    "sra_study": "secondary_study_accession",
    "bio_project": "study_accession",
    "spots": "read_count",
    "bases": "base_count",
    "platform": "instrument_platform",
    "model": "instrument_model",
    "sample_name": "sample_alias",
}
_OTHERS = {
    "ENA": "NCBI may have them (sra_get_samples, --from sra)",
    "NCBI": "ENA may have them (ena_get_samples, --from ena)",
}
_NUMBERS = ("read_count", "base_count", "sra_bytes", "spots", "bases", "spots_with_mates", "avg_length", "size_mb")
_ENA_THREADS = 4  # of one's own: ENA counts 50 requests a second
_FEW = 8  # accessions that are asked for one by one
_NAME = re.compile(r"\w+", re.ASCII)
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # between them: SRAStudy, bioSample


def ena_get_samples(
    bioproject: str | Iterable[str], library_layout: str | None = None, library_strategy: str | None = None
) -> Samples:  # fmt: skip
    """The samples that ENA has of a project, a study, a sample, an experiment or a run; or of any number of these.

    Each has its runs, whose attributes are ENA_FIELDS (numbers where they count, else text) and `uri`, `run+fastq://RUN`.
    `library_layout` (PAIRED, SINGLE) and `library_strategy` (WGS, RNA-Seq...) leave only such runs. Raises InvalidRequest for
    what is no accession, NotFound for one without runs, TransferFailed if ENA does not answer.
    """
    accessions = _accessions(bioproject)
    found = _ena_rows(accessions)
    _complain("ENA", [accession for accession in accessions if not found[accession]])
    return _chosen((_ena_run(row) for rows in found.values() for row in rows), library_layout, library_strategy)


def sra_get_samples(
    bioproject: str | Iterable[str], library_layout: str | None = None, library_strategy: str | None = None
) -> Samples:  # fmt: skip
    """The samples that NCBI's archive has, as `ena_get_samples` tells those of ENA.

    Each run has NCBI's attributes in snake case (`run`, `spots`, `avg_length`, `bio_sample`...), those of ENA_NAMES also as ENA
    calls them (`run_accession`, `read_count`, `sample_accession`...), and `uri`, `run+fastq@sra://RUN`. `NCBI_API_KEY` is used
    if it is set.
    """
    from ..fetch import ncbi

    accessions = _accessions(bioproject)
    found = ncbi.run_info(accessions)
    _complain("NCBI", [accession for accession in accessions if not found[accession]])
    return _chosen((_sra_run(row) for rows in found.values() for row in rows), library_layout, library_strategy)


def _accessions(given: str | Iterable[str]) -> list[str]:
    """What was given as accessions, each once: one, several, or a text of several."""
    from ..fetch.ena import accession_of

    words = re.split(r"[\s,;]+", given.strip()) if isinstance(given, str) else list(given)
    accessions = list(dict.fromkeys(accession_of(str(word)) for word in words))
    if not accessions:
        raise InvalidRequest("no accession was given: name a project, a sample, an experiment or a run")
    return accessions


def _ena_rows(accessions: list[str]) -> dict[str, list[dict]]:
    """ENA's rows of each accession: many runs and samples are asked for at once, what is left one by one."""
    from concurrent.futures import ThreadPoolExecutor

    from ..fetch import ena
    from ..fetch.inquiry import patiently

    found: dict[str, list[dict]] = {accession: [] for accession in accessions}
    for kind, column, start in (("run", "run_accession", r"[ESD]RR"), ("sample", "sample_accession", r"SAM")):
        many = [accession for accession in accessions if re.match(start, accession)]
        if len(many) > _FEW:
            for row in ena.search(many, kind, ENA_FIELDS):
                if row.get(column) in found:
                    found[row[column]].append(row)
    left = [accession for accession, rows in found.items() if not rows]
    with ThreadPoolExecutor(_ENA_THREADS) as threads:
        asked = threads.map(lambda accession: patiently(lambda: ena.report(accession, ENA_FIELDS)), left)
        found.update(zip(left, asked, strict=True))
    return found


def _complain(service: str, missing: list[str]) -> None:
    if missing:
        named = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise NotFound(f"{service} has no runs of {named}: check the accession; {_OTHERS[service]}")


def _ena_run(row: dict) -> Run:
    values = {name: _value(name, row.get(name)) for name in ENA_FIELDS}
    values["sample_accession"] = _sample_of(values)
    return Run(**values, uri=f"run+fastq://{values['run_accession']}")


def _sra_run(row: dict[str, str]) -> Run:
    from ..fetch.ncbi import COLUMNS

    names = {column: _WORDS.sub("_", column).lower() for column in (*COLUMNS, *row)}
    values = {name: _value(name, row.get(column)) for column, name in names.items()}
    values.update({name: values[own] for own, name in ENA_NAMES.items()})
    values["sample_accession"] = _sample_of(values)
    values["first_public"] = values["release_date"][:10]
    return Run(**values, uri=f"run+fastq@sra://{values['run_accession']}")


def _sample_of(values: dict) -> str:
    """What names the sample of a run; it will be in paths and commands, so nothing but an accession will do."""
    known = (values[name] for name in ("sample_accession", "secondary_sample_accession"))
    return next((name for name in known if _NAME.fullmatch(name)), values["run_accession"])


def _value(name: str, text: object):
    """A number where one counts (None: the archive does not tell it), else the text."""
    plain = "" if text is None else str(text)
    if name in _NUMBERS:
        return int(plain) if plain.isdecimal() else None
    return plain


def _chosen(runs: Iterable[Run], layout: str | None, strategy: str | None) -> Samples:
    """The runs of that layout and that strategy (None: of any) as samples. Raises InvalidRequest for another layout."""
    if layout is not None and layout.upper() not in (PAIRED, SINGLE):
        raise InvalidRequest(
            f"there is no layout {layout!r:.60}{nearest(layout.upper(), (PAIRED, SINGLE))}: it is PAIRED or SINGLE"
        )
    wanted = [(name, value.upper()) for name, value in (("library_layout", layout), ("library_strategy", strategy)) if value]
    return by_sample(run for run in runs if all(getattr(run, name).upper() == value for name, value in wanted))
