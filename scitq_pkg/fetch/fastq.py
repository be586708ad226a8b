"""`run+fastq://ACCESSION`: the FASTQ files of a run, or of all runs of an experiment, a sample or a project.

They come from ENA over https, then ftp, then from NCBI with sra-tools, then over Aspera, round after round, until all are here
with the sizes and sums that ENA tells. `@ftp`, `@https`, `@sra`, `@aspera` choose one way; `@aria2` uses many connections;
`@filter_r1` leaves out all but the first reads of paired runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import NotFound, ScitqError, TransferFailed
from . import ena, sra
from .parallel import together
from .progress import Meter
from .scheme import Entry, Scheme
from .schemes import scheme_of
from .transfer import clean, download
from .uri import Uri

WAYS = ("https", "ftp", "sra", "aspera")  # in this order
ROUNDS = 10
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 300.0
_ALONE = 3  # times that ENA is asked for a run before NCBI is tried as well
_TRIES = 2  # of one file by one way in one round


class Place(Scheme):
    """Runs of the public archives."""

    options = (*WAYS, "aria2", "filter_r1")
    many = True
    files = 2  # runs at once: the archives count connections

    def info(self, uri: Uri) -> Entry:
        self.refuse(uri, "is several files: list it, or fetch it")

    def list(self, uri: Uri, recursive: bool = True):
        for run in _runs(uri):
            for file in self._files(run):
                yield Entry(Uri.of(file.https), file.name, file.size, None, file.md5)

    def bring_all(self, uri: Uri, folder: Path, meter: Meter, threads: int | None = None) -> list[Path]:
        runs = _runs_in_the_end(uri, meter)
        files = [file for run in runs for file in self._files(run)]
        meter.expect(len(files), sum(file.size or 0 for file in files))
        found: dict[str, list[Path]] = {}

        def bring(run: ena.Run) -> None:
            found[run.accession] = self._bring(run, folder, meter)
            clean(found[run.accession])
            sra.clean_up(run.accession, folder)

        together(bring, runs, threads or self.files, meter)
        return [path for run in runs for path in found[run.accession]]

    def _bring(self, run: ena.Run, folder: Path, meter: Meter) -> list[Path]:
        """One run: every way in turn, round after round."""
        chosen = [way for way in WAYS if way in self.chosen] or list(WAYS)
        faults: dict[str, str] = {}
        for _ in _rounds(meter, faults):
            run = _told(run, faults)
            for way in chosen if run.files is not None else {"sra"}.intersection(chosen):
                try:
                    return self._by(way, run, folder, meter)
                except ScitqError as error:
                    faults[way] = error.message
                    if not getattr(error, "again", False):
                        chosen = [other for other in chosen if other != way]  # it will be no better next time
            if not chosen:
                break
        told = "; ".join(f"{way}: {fault}" for way, fault in faults.items())
        raise TransferFailed(f"run {run.accession} could not be had ({told})")

    def _by(self, way: str, run: ena.Run, folder: Path, meter: Meter) -> list[Path]:
        options = ("aria2",) if "aria2" in self.chosen and way != "aspera" else ()
        if way == "sra":
            return sra.fetch_run(run.accession, folder, options, meter, first_alone="filter_r1" in self.chosen)
        if not run.files:
            raise NotFound("ENA has no FASTQ of it")
        pairs = [(_uri(file, way, options), file) for file in self._files(run)]
        for uri, file in pairs:
            scheme = scheme_of(uri)
            known = scheme.info(uri)
            if file.size is not None and known.size not in (None, file.size):
                raise TransferFailed(f"{file.name} has {known.size} bytes there, {file.size} in ENA's report", again=True)
            size = known.size if file.size is None else file.size
            entry = Entry(uri, file.name, size, None, file.md5, known.etag, known.ranges)
            if not _is_here(folder / file.name, entry):
                download(scheme, entry, folder / file.name, meter, tries=_TRIES)
        return [folder / file.name for _, file in pairs]

    def _files(self, run: ena.Run) -> list[ena.RunFile]:
        """The files of a run that are wanted: all, or of a paired one those of its first reads."""
        first = [file for file in run.files or () if sra.is_of_first_reads(file.name, run.accession)]
        return first if first and "filter_r1" in self.chosen else list(run.files or ())


def _runs(uri: Uri) -> list[ena.Run]:
    accession = ena.accession_of(uri.place.strip("/"))
    runs = ena.runs_of(accession)
    if runs:
        return runs
    if not _is_run(accession):
        raise NotFound(f"{uri}: ENA knows no runs of it")
    return [ena.Run(accession, ())]  # NCBI may have it


def _is_run(accession: str) -> bool:
    return accession[1:3] == "RR"


def _runs_in_the_end(uri: Uri, meter: Meter) -> list[ena.Run]:
    """The runs, asked for again while ENA is too busy to tell; a run by itself may come from NCBI meanwhile."""
    accession = ena.accession_of(uri.place.strip("/"))
    faults: dict[str, str] = {}
    for asked, is_last in enumerate(_rounds(meter, faults), 1):
        try:
            return _runs(uri)
        except TransferFailed as error:
            if error.again and asked == _ALONE and _is_run(accession):
                return [ena.Run(accession, None)]
            if is_last or not error.again:
                raise
            faults["ENA"] = error.message
    raise AssertionError("not reached")


def _told(run: ena.Run, faults: dict[str, str]) -> ena.Run:
    """The run with what ENA tells of it, if it does by now; else why not is among the faults."""
    if run.files is not None:
        return run
    try:
        known = ena.runs_of(run.accession)
    except TransferFailed as error:
        faults["ENA"] = error.message
        return run
    faults.pop("ENA", None)
    return known[0] if known else ena.Run(run.accession, ())


def _rounds(meter: Meter, faults: dict[str, str]) -> Iterator[bool]:
    """Tries, with longer and longer pauses between, for which there are `faults`; whether each is the last."""
    pause = FIRST_PAUSE_SECONDS
    for _ in range(ROUNDS - 1):
        yield False
        meter.wait(pause, "; ".join(faults.values()))
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
    yield True


def _uri(file: ena.RunFile, way: str, options: tuple[str, ...]) -> Uri:
    text = {"https": file.https, "ftp": file.ftp, "aspera": file.aspera}[way]
    if text is None:
        raise NotFound("ENA tells no Aspera address of it")
    found = Uri.of(text)
    return Uri(found.scheme, found.place, options)


def _is_here(path: Path, entry: Entry) -> bool:
    """Whether an earlier round, or an earlier call, has brought it."""
    from .transfer import md5_of

    return bool(path.is_file() and entry.md5 and path.stat().st_size == entry.size and md5_of(path) == entry.md5)
