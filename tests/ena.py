"""A stand-in for the archives of sequences: reports as ENA writes them, files of which some come wrong at first."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

HOST = "ftp.sra.ebi.ac.uk"


class Archive:
    """Serves `root/vol1/...` and reports of the runs that were added; `faults[path]` come before the right answer."""

    def __init__(self, root: Path):
        self.root = root
        self.runs: dict[str, dict] = {}
        self.above: dict[str, list[str]] = {}  # a project, a sample: its runs
        self.faults: dict[str, list[str]] = {}
        self.asked: list[str] = []
        archive = self

        class Handler(_Handler):
            served = archive

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, run: str, files: dict[str, bytes], *above: str, lie: bool = False) -> None:
        """A run with its FASTQ files; `lie`: the report tells sums of something else."""
        folder = f"vol1/fastq/{run[:6]}/{run}"
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (self.root / folder / name).write_bytes(data)
        sums = [hashlib.md5(b"else" if lie else data).hexdigest() for data in files.values()]
        self.runs[run] = {
            "run_accession": run,
            "fastq_ftp": ";".join(f"{HOST}/{folder}/{name}" for name in files),
            "fastq_md5": ";".join(sums),
            "fastq_bytes": ";".join(str(len(data)) for data in files.values()),
            "fastq_aspera": ";".join(f"fasp.sra.ebi.ac.uk:/{folder}/{name}" for name in files),
        }
        for name in (run, *above):
            self.above.setdefault(name, []).append(run)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    served: Archive

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.served.asked.append(f"{self.command} {parts.path}")
        faults = self.served.faults.get(parts.path, [])
        fault = faults.pop(0) if faults and self.command == "GET" else None
        if fault and fault.isdigit():
            self._answer(int(fault), b"busy")
        elif parts.path == "/filereport":
            self._report(parse_qs(parts.query), fault)
        else:
            self._file(self.served.root / parts.path.lstrip("/"), fault)

    do_HEAD = do_GET

    def _report(self, query: dict, fault: str | None) -> None:
        runs = self.served.above.get(query["accession"][0])
        if fault == "html":
            self._answer(200, b"<html>maintenance</html>")
        elif not runs:
            self._answer(204, b"")
        else:
            fields = query["fields"][0].split(",")
            rows = [{field: self.served.runs[run].get(field, "") for field in fields} for run in runs]
            self._answer(200, json.dumps(rows).encode())

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
        self._answer(206 if start else 200, body, headers, len(body) // 2 if fault in ("truncate", "stall") else len(body))
        if fault == "stall":
            time.sleep(3)

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
