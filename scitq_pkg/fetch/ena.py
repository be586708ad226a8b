"""What the European Nucleotide Archive knows of runs: its file report, and its search for many at once.

https://ena-docs.readthedocs.io/en/latest/retrieval/programmatic-access/file-reports.html
https://www.ebi.ac.uk/ena/portal/api/doc
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from ..errors import InvalidRequest, NotFound, TransferFailed
from .inquiry import ask, patiently, unreadable

PORTAL = "https://www.ebi.ac.uk/ena/portal/api"
PORTAL_VARIABLE = "SCITQ_ENA_PORTAL"  # another address of the same service
MIRROR_VARIABLES = {"https": "SCITQ_ENA_HTTPS", "ftp": "SCITQ_ENA_FTP"}
FIELDS = ("run_accession", "fastq_ftp", "fastq_md5", "fastq_bytes", "fastq_aspera")
ACCESSION = re.compile(r"[ESD]R[RXSP]\d{5,}|SAM[END][AG]?\d+|PRJ[END][A-Z]\d+")
_REMEMBERED_SECONDS = 600.0  # many tasks of one project ask the same
_REMEMBERED_ROWS = 100_000
_AT_ONCE = 200  # accessions in one search
_RUN = re.compile(r"[ESD]RR\d{5,}")

Row = dict[str, str]
_answers: dict[tuple[str, str, tuple[str, ...]], tuple[float, list[Row]]] = {}


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
    files: tuple[RunFile, ...] | None  # None: it could not be asked yet


def runs_of(accession: str) -> list[Run]:
    """The runs of a run, experiment, sample or project; none if the archive does not know it. Raises TransferFailed."""
    return [_run(row) for row in report(accession, FIELDS)]


def accession_of(text: str) -> str:
    """The accession that a person wrote. Raises InvalidRequest if it is none of a run, an experiment, a sample or a project."""
    accession = text.strip().upper()
    if not ACCESSION.fullmatch(accession):
        hint = ": it is one of GEO, whose page names the project (PRJNA...)" if re.match(r"GS[EM]\d", accession) else ""
        raise InvalidRequest(f"{text!r:.60} is no accession of a run, an experiment, a sample or a project{hint}")
    return accession


def report(accession: str, fields: Sequence[str]) -> list[Row]:
    """What ENA tells of each run of an accession, remembered for ten minutes; no rows if it knows none.

    Raises TransferFailed (with `again` if ENA may do better next time) and NotFound for what ENA takes for no accession.
    """
    portal = os.environ.get(PORTAL_VARIABLE) or PORTAL
    key = (portal, accession, tuple(fields))
    known = _answers.get(key)
    if known and time.monotonic() - known[0] < _REMEMBERED_SECONDS:
        return known[1]
    rows = _rows("GET", f"{portal}/filereport", {"accession": accession, "result": "read_run"}, fields)
    if sum(len(others) for _, others in _answers.values()) > _REMEMBERED_ROWS:
        _answers.clear()
    _answers[key] = (time.monotonic(), rows)
    return rows


def search(accessions: Iterable[str], kind: str, fields: Sequence[str]) -> list[Row]:
    """What ENA tells of the runs of many accessions of one kind, `run` or `sample`: hundreds a question, each asked patiently.

    Raises as `report` does.
    """
    portal = os.environ.get(PORTAL_VARIABLE) or PORTAL
    wanted, rows = list(accessions), []
    for start in range(0, len(wanted), _AT_ONCE):
        some = ",".join(wanted[start : start + _AT_ONCE])
        values = {"result": "read_run", "includeAccessionType": kind, "includeAccessions": some}
        rows += patiently(partial(_rows, "POST", f"{portal}/search", values, fields))
    return rows


def _rows(method: str, url: str, values: Row, fields: Sequence[str]) -> list[Row]:
    """The rows of an answer. Fields that ENA does not know (any more) are left out of a second question."""
    answer = ask("ENA", method, url, {**values, "fields": ",".join(fields), "format": "json", "limit": "0"})
    if answer.status_code == 204 or (answer.ok and not answer.content.strip()):
        return []
    if answer.status_code in (400, 404):
        known = [field for field in fields if not re.search(rf"\b{field}\b", answer.text)]
        if 0 < len(known) < len(fields):
            return _rows(method, url, values, known)
        which = values.get("accession") or f"{values['includeAccessions']:.60}..."
        raise NotFound(f"ENA knows no accession {which} ({answer.text.strip():.100})")
    try:
        rows = answer.json() if answer.ok else None
    except ValueError:
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise unreadable("ENA", answer, "a report")
    for row in rows:
        if not _RUN.fullmatch(str(row.get("run_accession"))):
            raise TransferFailed(f"ENA's report names {row.get('run_accession')!r:.60}, which is no run")
    return rows


def _run(row: dict[str, str]) -> Run:
    """A row of the report: fields of several values have `;` between them, in the same order."""
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
    return Run(row["run_accession"], tuple(files))


def _address(way: str, path: str) -> str:
    """The report names host and path, which answer over https and ftp; a mirror may stand for the host."""
    mirror = os.environ.get(MIRROR_VARIABLES[way])
    return f"{mirror.rstrip('/')}/{path.partition('/')[2]}" if mirror else f"{way}://{path}"


def _at(values: list[str], place: int) -> str | None:
    return values[place] if place < len(values) else None
