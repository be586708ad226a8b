"""A stand-in for the archives of sequences: reports as ENA writes them, files of which some come wrong at first, and NCBI's
run information as its E-utilities tell it."""

from __future__ import annotations

import csv
import hashlib
import http.server
import io
import json
import re
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

HOST = "ftp.sra.ebi.ac.uk"
RUN_INFO = (  # the header of NCBI's table
    "Run,ReleaseDate,LoadDate,spots,bases,spots_with_mates,avgLength,size_MB,AssemblyName,download_path,Experiment,LibraryName,"
    "LibraryStrategy,LibrarySelection,LibrarySource,LibraryLayout,InsertSize,InsertDev,Platform,Model,SRAStudy,BioProject,"
    "Study_Pubmed_id,ProjectID,Sample,BioSample,SampleType,TaxID,ScientificName,SampleName,g1k_pop_code,source,"
    "g1k_analysis_group,Subject_ID,Sex,Disease,Tumor,Affection_Status,Analyte_Type,Histological_Type,Body_Site,CenterName,"
    "Submission,dbgap_study_accession,Consent,RunHash,ReadHash"
)
PROJECT = "PRJEB46098"


class Archive:
    """Serves `root/vol1/...` and reports of the runs that were added; `faults[path]` come before the right answer."""

    def __init__(self, root: Path):
        self.root = root
        self.runs: dict[str, dict] = {}
        self.above: dict[str, list[str]] = {}  # a project, a sample: its runs
        self.faults: dict[str, list[str]] = {}
        self.asked: list[str] = []
        self.gone_on: list[str] = []  # what was asked for from the middle on
        self.closing = threading.Event()
        self.values: list[dict[str, str]] = []  # of each question, in the same order
        self.unknown_fields: set[str] = set()  # that ENA has given up
        self.kept: list[list[str]] = []  # what NCBI's searches found: experiments
        archive = self

        class Handler(_Handler):
            served = archive

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, run: str, files: dict[str, bytes], *above: str, lie: bool = False) -> None:
        """A run with its FASTQ files; `lie`: the report tells sums of something else."""
        folder = f"vol1/fastq/{run[:6]}/{run}"
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (self.root / folder / name).write_bytes(data)
        sums = [hashlib.md5(b"else" if lie else data).hexdigest() for data in files.values()]
        self.runs.setdefault(run, {"run_accession": run}).update({
            "fastq_ftp": ";".join(f"{HOST}/{folder}/{name}" for name in files),
            "fastq_md5": ";".join(sums),
            "fastq_bytes": ";".join(str(len(data)) for data in files.values()),
            "fastq_aspera": ";".join(f"fasp.sra.ebi.ac.uk:/{folder}/{name}" for name in files),
        })  # fmt: skip
        self.tell(run, *above)

    def tell(self, run: str, *above: str, **fields: str) -> None:
        """A run of which both services know the fields of ENA's report; it is found by those of its accessions, and `above`."""
        row = self.runs.setdefault(run, {"run_accession": run})
        row.update(fields)
        for name in {run, *above, *(value for key, value in fields.items() if key.endswith("_accession"))}:
            if run not in self.above.setdefault(name, []):
                self.above[name].append(run)

    def questions(self, path: str) -> list[dict[str, str]]:
        """The values of all questions of one kind."""
        return [values for line, values in zip(self.asked, self.values, strict=True) if line.endswith(f" {path}")]

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    served: Archive

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        values = {name: some[-1] for name, some in parse_qs(f"{parts.query}&{body}").items()}
        self.served.values.append(values)
        self.served.asked.append(f"{self.command} {parts.path}")
        faults = self.served.faults.get(parts.path, [])
        fault = faults.pop(0) if faults and self.command in ("GET", "POST") else None
        services = {
            "/filereport": self._report, "/search": self._search,
            "/esearch.fcgi": self._esearch, "/efetch.fcgi": self._efetch,
        }  # fmt: skip
        if fault and fault.isdigit():
            self._answer(int(fault), b"busy")
        elif parts.path not in services:
            self._file(self.served.root / parts.path.lstrip("/"), fault)
        elif fault == "html":
            self._answer(200, b"<html><body>Under maintenance, back soon</body></html>")
        elif fault == "empty":
            self._answer(200, b"")
        else:
            services[parts.path](values, fault)

    do_HEAD = do_POST = do_GET

    def _report(self, values: dict, fault: str | None) -> None:
        runs = self.served.above.get(values["accession"])
        if not runs and fault != "header":
            self._answer(204, b"")
        else:
            self._tell_rows(runs or [], values["fields"])

    def _search(self, values: dict, fault: str | None) -> None:
        """The Portal API's search, with `includeAccessions` of one type."""
        column = f"{values['includeAccessionType']}_accession"
        wanted = values["includeAccessions"].split(",")
        self._tell_rows([run for run, row in self.served.runs.items() if row.get(column) in wanted], values["fields"])

    def _tell_rows(self, runs: list[str], fields: str) -> None:
        wanted = list(dict.fromkeys(["run_accession", *fields.split(",")]))
        if wrong := [field for field in wanted if field in self.served.unknown_fields]:
            self._answer(400, json.dumps({"message": f"Invalid field(s) supplied: {', '.join(wrong)}"}).encode())
        else:
            rows = [{field: self.served.runs[run].get(field, "") for field in wanted} for run in runs]
            self._answer(200, json.dumps(rows).encode())

    def _esearch(self, values: dict, fault: str | None) -> None:
        if fault == "error":
            self._answer(200, json.dumps({"esearchresult": {"ERROR": "Search Backend failed: timeout"}}).encode())
            return
        terms = re.findall(r"(\w+)\[(\w+)\]", values["term"])
        runs = [run for name, _ in terms for run in self.served.above.get(name, [])]
        records = list(dict.fromkeys(self.served.runs[run].get("experiment_accession", run) for run in runs))
        self.served.kept.append(records)
        told = {"count": str(len(records)), "retmax": "0", "retstart": "0", "idlist": []}
        if values.get("usehistory") == "y":
            told |= {"querykey": str(len(self.served.kept)), "webenv": "MCID_0123456789abcdef"}
        if not records:
            told["errorlist"] = {"phrasesnotfound": [name for name, _ in terms], "fieldsnotfound": []}
        self._answer(200, json.dumps({"header": {"type": "esearch", "version": "0.3"}, "esearchresult": told}).encode())

    def _efetch(self, values: dict, fault: str | None) -> None:
        """Whole records, experiments, with all their runs, whichever of these was searched."""
        start = int(values["retstart"])
        records = self.served.kept[int(values["query_key"]) - 1][start : start + int(values["retmax"])]
        rows: dict[str, list[dict]] = {record: [] for record in records}
        for run, row in self.served.runs.items():
            rows.get(row.get("experiment_accession", run), []).append(row)
        lines = [run_info(row) for own in rows.values() for row in own]
        if fault == "chunks":
            lines = [line for row in lines for line in (row, "\n", f"{RUN_INFO}\n")]
        text = "".join(lines) if fault == "headerless" else f"{RUN_INFO}\n{''.join(lines)}\n"
        self._answer(200, (text + ("<ERROR>Cannot retrieve more</ERROR>\n" if fault == "broken off" else "")).encode())

    def _file(self, path: Path, fault: str | None) -> None:
        if not path.is_file():
            self._answer(404, b"not here")
            return
        data = path.read_bytes()
        start = int((self.headers.get("Range") or "bytes=0-").partition("=")[2].partition("-")[0])
        if fault == "html":
            data = b"<html>not now</html>"
        elif fault == "wrong":
            data = bytes(len(data))
        headers = {"Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        body = data[start:]
        half = fault in ("truncate", "stall", "hold")
        self._answer(206 if start else 200, body, headers, len(body) // 2 if half else len(body))
        if start:
            self.served.gone_on.append(self.path)
        if fault == "stall":
            time.sleep(3)
        elif fault == "hold":
            self.served.closing.wait(100)

    def _answer(self, status: int, body: bytes, headers: dict | None = None, sent: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])
        self.close_connection = True

    def log_message(self, *_) -> None:
        pass


def run_of(archive: Archive, number: int, sample: int, layout: str = "PAIRED", experiment: int | None = None, **more: str) -> str:
    """A run of PROJECT, as both services know it; its accession."""
    run = f"ERR{number:07}"
    files = [f"{run}_{mate}" for mate in (1, 2)] if layout == "PAIRED" else [run]
    fields = {
        "study_accession": PROJECT, "secondary_study_accession": "ERP130324", "sample_accession": f"SAMEA{sample:07}",
        "secondary_sample_accession": f"ERS{sample:07}", "experiment_accession": f"ERX{experiment or number:07}",
        "library_layout": layout, "library_strategy": "WGS", "library_source": "METAGENOMIC", "tax_id": "408170",
        "scientific_name": "human gut metagenome", "instrument_platform": "ILLUMINA", "instrument_model": "NextSeq 500",
        "read_count": str(1000 * number), "base_count": str(150_000 * number), "sample_alias": f"gut, {sample}",
        "fastq_ftp": ";".join(f"{HOST}/vol1/fastq/{run[:6]}/{run}/{name}.fastq.gz" for name in files),
    } | more  # fmt: skip
    archive.tell(run, **fields)
    return run


def tell_project(archive: Archive) -> None:
    """PROJECT with three samples: one with two runs, one with single reads, and the tenth."""
    run_of(archive, 12, 10)
    run_of(archive, 3, 2)
    run_of(archive, 4, 2)
    run_of(archive, 5, 3, layout="SINGLE", library_strategy="AMPLICON")


def run_info(row: dict[str, str]) -> str:
    """A line of NCBI's table, of a run that is known by the fields of ENA's report."""
    names = {
        "Run": "run_accession", "Experiment": "experiment_accession", "Sample": "secondary_sample_accession",
        "BioSample": "sample_accession", "SRAStudy": "secondary_study_accession", "BioProject": "study_accession",
        "LibraryStrategy": "library_strategy", "LibraryLayout": "library_layout", "Platform": "instrument_platform",
        "Model": "instrument_model", "spots": "read_count", "bases": "base_count", "TaxID": "tax_id",
        "ScientificName": "scientific_name", "SampleName": "sample_alias",
    }  # fmt: skip
    told = {"ReleaseDate": "2024-10-04 14:39:07", "avgLength": "302", "size_MB": "17", "Consent": "public"}
    out = io.StringIO()
    cells = [told.get(column) or row.get(names.get(column, ""), "") for column in RUN_INFO.split(",")]
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()
