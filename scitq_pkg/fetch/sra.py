"""Runs from NCBI's Sequence Read Archive: the object from its public bucket, then sra-tools make FASTQ of it."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from pathlib import Path

from ..archive import beside, clean
from ..durable import sync
from ..errors import NotFound, TransferFailed
from .programs import program, run
from .progress import Meter
from .scheme import CHUNK_BYTES
from .schemes import scheme_of
from .transfer import download
from .uri import Uri

BUCKET = "https://sra-pub-run-odp.s3.amazonaws.com/sra"
BUCKET_VARIABLE = "SCITQ_SRA_BUCKET"  # another address with the same objects
_HOW = "apt install sra-toolkit"
_TOOL_STALL_SECONDS = 600.0  # fasterq-dump sorts for long without writing


def fetch_run(
    accession: str, folder: Path, options: tuple[str, ...], meter: Meter, first_alone: bool = False
) -> list[Path]:  # fmt: skip
    """Brings a run as `RUN_1.fastq.gz`... into a folder; each file is there only when all are whole. Raises TransferFailed.

    `options`: transport options for the object, `aria2`. `first_alone`: of a paired run only its first reads.
    """
    program("fasterq-dump", _HOW)  # before anything is fetched
    folder.mkdir(parents=True, exist_ok=True)
    with beside(folder, _prefix(accession), take_over=True) as work:
        own = _emptied(work)
        archive = _object(accession, work, own, options, meter)
        run([program("vdb-validate", _HOW), str(archive)], lambda: 0, meter, _TOOL_STALL_SECONDS)
        words = [program("fasterq-dump", _HOW), "--split-files", "--outdir", str(own / "fastq"), "--temp", str(own)]
        run([*words, str(archive)], lambda: 0, meter, _TOOL_STALL_SECONDS, cwd=own)
        made = sorted((own / "fastq").glob("*.fastq"))
        if not made:
            raise TransferFailed(f"fasterq-dump made no reads of {accession}")
        first = [path for path in made if is_of_first_reads(path.name, accession)]
        made = first if first_alone and first else made
        packed = [_packed(path, meter) for path in made]
        for path in packed:
            sync(path)
            os.replace(path, folder / path.name)
        return [folder / path.name for path in packed]


def clean_up(accession: str, folder: Path) -> None:
    """Removes what a process that was killed has left of a run in a folder."""
    clean(folder, _prefix(accession))


def _prefix(accession: str) -> str:
    """How the names of folders begin in which a run comes."""
    return f".{accession}.scitq-sra-"


def _emptied(work: Path) -> Path:
    """A new folder in there.

    Of an earlier time the object stays, or its beginning; not what programs made, which may still run.
    """
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=work))


def is_of_first_reads(name: str, accession: str) -> bool:
    """Whether a file of a run holds the first reads of its pairs, by its name: `RUN_1.fastq.gz`."""
    return name.startswith(f"{accession}_1.")


def _object(accession: str, work: Path, own: Path, options: tuple[str, ...], meter: Meter) -> Path:
    """The run's .sra file: from the public bucket, or where that has none as prefetch finds it."""
    target = work / f"{accession}.sra"
    if target.exists():
        return target
    uri = Uri.of(f"{os.environ.get(BUCKET_VARIABLE) or BUCKET}/{accession}/{accession}")
    uri = Uri(uri.scheme, uri.place, options)
    try:
        scheme = scheme_of(uri)
        download(scheme, scheme.info(uri), target, meter, tries=3)
    except NotFound:
        words = [program("prefetch", _HOW), "--max-size", "u", "--output-directory", str(own), accession]
        run(words, lambda: _size_below(own), meter)
        found = sorted((own / accession).glob(f"{accession}.sra*"))
        if not found:
            raise NotFound(f"NCBI has no run {accession}") from None
        return found[0]
    return target


def _packed(path: Path, meter: Meter) -> Path:
    """The file as gzip: by pigz where it is, on all processors."""
    target = path.with_name(path.name + ".gz")
    if pigz := shutil.which("pigz"):
        run([pigz, "--fast", str(path)], lambda: 0, meter, None)
        return target
    with open(path, "rb") as source, gzip.open(target, "wb", compresslevel=1) as file:
        while data := source.read(CHUNK_BYTES):
            file.write(data)
            meter.wait(0)
    path.unlink()
    return target


def _size_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
