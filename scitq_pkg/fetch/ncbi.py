"""What NCBI's Sequence Read Archive knows of runs: its run information, through the E-utilities.

https://www.ncbi.nlm.nih.gov/books/NBK25499/
"""

from __future__ import annotations

import csv
import io
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial

from ..errors import TransferFailed
from .inquiry import ask, patiently, unreadable

EUTILS = "https://eutils.ncbi.nlm.nih.gov/entrez/eutils"
EUTILS_VARIABLE = "SCITQ_NCBI_EUTILS"  # another address of the same service
KEY_VARIABLE = "NCBI_API_KEY"  # as NCBI's own programs call it
COLUMNS = (
    "Run,ReleaseDate,LoadDate,spots,bases,spots_with_mates,avgLength,size_MB,AssemblyName,download_path,Experiment,LibraryName,"
    "LibraryStrategy,LibrarySelection,LibrarySource,LibraryLayout,InsertSize,InsertDev,Platform,Model,SRAStudy,BioProject,"
    "Study_Pubmed_id,ProjectID,Sample,BioSample,SampleType,TaxID,ScientificName,SampleName,g1k_pop_code,source,"
    "g1k_analysis_group,Subject_ID,Sex,Disease,Tumor,Affection_Status,Analyte_Type,Histological_Type,Body_Site,CenterName,"
    "Submission,dbgap_study_accession,Consent,RunHash,ReadHash"
).split(",")
_OWN_COLUMNS = {"RX": "Experiment", "RS": "Sample", "RR": "Run", "AM": "BioSample"}  # by the letters of an accession
_AT_ONCE = 200  # accessions in one search
_PAGE = 1000  # records in one answer
_SECONDS_BETWEEN = {False: 0.34, True: 0.1}  # requests; without a key and with one
_turn = threading.Lock()

Row = dict[str, str]


def run_info(accessions: Iterable[str]) -> dict[str, list[Row]]:
    """The run information of each accession: a run, experiment, sample or project. NCBI's own columns; no rows: it has none.

    NCBI is asked patiently. Raises TransferFailed.
    """
    found: dict[str, list[Row]] = {accession: [] for accession in accessions}
    single = [accession for accession in found if accession[1:3] in _OWN_COLUMNS]
    for start in range(0, len(single), _AT_ONCE):
        some = dict.fromkeys(single[start : start + _AT_ONCE])
        for row in _rows(" OR ".join(map(_term, some))):
            for accession in {row.get(column, "") for column in _OWN_COLUMNS.values()} & some.keys():
                found[accession].append(row)
    for accession in found:
        if accession[1:3] not in _OWN_COLUMNS:  # alone: the runs of an umbrella project name the projects below it, not itself
            found[accession] = list(_rows(_term(accession)))
    return found


def _term(accession: str) -> str:
    field = {"PRJ": "BioProject", "SAM": "BioSample"}.get(accession[:3], "Accession")
    return f"{accession}[{field}]"


def _rows(term: str) -> Iterator[Row]:
    """The rows of all that a search finds, page by page."""
    kept, count = patiently(partial(_search, term))
    for start in range(0, count, _PAGE):
        page = {**kept, "rettype": "runinfo", "retmode": "text", "retstart": str(start), "retmax": str(_PAGE)}
        yield from patiently(partial(_page, page))


def _search(term: str) -> tuple[Row, int]:
    """Where NCBI keeps what it found, and how many records that are."""
    answer = _ask("esearch.fcgi", {"term": term, "usehistory": "y", "retmode": "json", "retmax": "0"})
    try:
        told = json.loads(answer.text, strict=False)["esearchresult"]  # there are raw control characters in some answers
        fault = told.get("ERROR")
        if not fault:
            count = int(told["count"])
            return ({"WebEnv": told["webenv"], "query_key": told["querykey"]} if count else {}), count
    except (ValueError, KeyError, TypeError, AttributeError):
        raise unreadable("NCBI", answer, "the result of a search") from None
    raise TransferFailed(f"NCBI could not search ({fault:.100}): try again later", again=True)


def _page(values: Row) -> list[Row]:
    answer = _ask("efetch.fcgi", values)
    try:
        rows = list(_table(answer.text)) if answer.ok else []
    except (csv.Error, ValueError):
        rows = []
    if not rows:
        raise unreadable("NCBI", answer, "run information")
    return rows


def _table(text: str) -> Iterator[Row]:
    """The rows of run information; its header may be missing, or stand again before each portion, with empty lines between.

    Raises csv.Error and ValueError for what is no such table: half of one would be runs that nobody misses.
    """
    columns = COLUMNS
    for cells in csv.reader(io.StringIO(text, newline="")):
        if cells[:1] == ["Run"]:
            columns = cells
        elif cells:
            row = dict(zip(columns, cells, strict=True))
            if row["Run"][1:3] == "RR":
                yield row
            elif row["Run"]:
                raise ValueError(row["Run"])


def _ask(program: str, values: Row):
    """One request in its turn: NCBI counts them by the second."""
    key = os.environ.get(KEY_VARIABLE)
    with _turn:
        time.sleep(_SECONDS_BETWEEN[bool(key)])
        return ask(
            "NCBI", "POST", f"{os.environ.get(EUTILS_VARIABLE) or EUTILS}/{program}",
            {"db": "sra", "tool": "scitq", **values, **({"api_key": key} if key else {})},
        )  # fmt: skip
