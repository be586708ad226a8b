"""What the European Nucleotide Archive knows of runs: its file report.

https://ena-docs.readthedocs.io/en/latest/retrieval/programmatic-access/file-reports.html
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass

import requests

from ..errors import NotFound, TransferFailed
from .refusals import behind

PORTAL = "https://www.ebi.ac.uk/ena/portal/api"
PORTAL_VARIABLE = "SCITQ_ENA_PORTAL"  # another address of the same service
MIRROR_VARIABLES = {"https": "SCITQ_ENA_HTTPS", "ftp": "SCITQ_ENA_FTP"}
FIELDS = ("run_accession", "fastq_ftp", "fastq_md5", "fastq_bytes", "fastq_aspera")
ACCESSION = re.compile(r"[ESD]R[RXSP]\d{5,}|SAM[END][AG]?\d+|PRJ[END][A-Z]\d+")
_REMEMBERED_SECONDS = 600.0  # many tasks of one project ask the same
_RUN = re.compile(r"[ESD]RR\d{5,}")
_TIMEOUTS = (15.0, 60.0)
_BUSY = (408, 429, 500, 502, 503, 504)

_answers: dict[tuple[str, str], tuple[float, list]] = {}


@dataclass(frozen=True)
class RunFile:
    """One FASTQ file of a run."""

    name: str
    https: str
    ftp: str
    aspera: str | None
    size: int | None  # bytes
    md5: str | None


@dataclass(frozen=True)
class Run:
    """One run; the archive may have no FASTQ of it."""

    accession: str
    files: tuple[RunFile, ...]


def runs_of(accession: str) -> list[Run]:
    """The runs of a run, experiment, sample or project; none if the archive does not know it. Raises TransferFailed."""
    portal = os.environ.get(PORTAL_VARIABLE) or PORTAL
    known = _answers.get((portal, accession))
    if known and time.monotonic() - known[0] < _REMEMBERED_SECONDS:
        return known[1]
    found = [_run(row) for row in _report(portal, accession)]
    _answers[(portal, accession)] = (time.monotonic(), found)
    return found


def _report(portal: str, accession: str) -> list[dict[str, str]]:
    query = {"accession": accession, "result": "read_run", "fields": ",".join(FIELDS), "format": "json", "limit": "0"}
    try:
        answer = requests.get(f"{portal}/filereport", query, timeout=_TIMEOUTS, verify=_certificates())
    except requests.RequestException as error:
        raise TransferFailed(f"ENA does not answer ({type(error).__name__})", again=behind(error) is None) from error
    if answer.status_code == 204 or (answer.ok and not answer.content.strip()):
        return []
    if answer.status_code in (400, 404):
        raise NotFound(f"ENA knows no accession {accession} ({answer.text.strip():.100})")
    try:
        rows = answer.json() if answer.ok else None
    except ValueError:
        rows = None
    if not isinstance(rows, list):
        raise TransferFailed(f"ENA answered {answer.status_code} with something else than a report", again=True)
    return rows


def _certificates():
    from .web import certificates

    return certificates() or True


def _run(row: dict[str, str]) -> Run:
    """A row of the report: fields of several values have `;` between them, in the same order."""
    accession = str(row.get("run_accession"))
    if not _RUN.fullmatch(accession):
        raise TransferFailed(f"ENA's report names {accession!r:.60}, which is no run")
    columns = [[word for word in (row.get(field) or "").split(";") if word] for field in FIELDS[1:]]
    paths, sums, sizes, asperas = columns
    files = []
    for place, path in enumerate(paths):
        if path.rpartition("/")[2] in ("", ".", ".."):
            raise TransferFailed(f"ENA's report names {path!r:.200}, which is no file")
        size, md5 = _at(sizes, place), _at(sums, place)
        aspera = _at(asperas, place)
        files.append(
            RunFile(
                path.rpartition("/")[2],
                _address("https", path),
                _address("ftp", path),
                f"fasp://era-fasp@{aspera.replace(':', '', 1)}" if aspera else None,
                int(size) if size and size.isdigit() else None,
                md5.lower() if md5 else None,
            )
        )
    return Run(accession, tuple(files))


def _address(way: str, path: str) -> str:
    """The report names host and path, which answer over https and ftp; a mirror may stand for the host."""
    mirror = os.environ.get(MIRROR_VARIABLES[way])
    return f"{mirror.rstrip('/')}/{path.partition('/')[2]}" if mirror else f"{way}://{path}"


def _at(values: list[str], place: int) -> str | None:
    return values[place] if place < len(values) else None
