"""`run+fastq://`: against a stand-in of ENA that fails in all the ways the real one does, real sra-tools, and a stub of ascp."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from ena import Archive
from env import PROGRAM
from scitq.errors import InvalidRequest, NotFound, TransferFailed
from scitq.fetch import ena, fastq, get, list_content, schemes, transfer, web
from services import Ftp, needed


@pytest.fixture
def archive(tmp_path, monkeypatch):
    made = Archive(tmp_path / "archive")
    made.root.mkdir()
    monkeypatch.setenv("SCITQ_ENA_PORTAL", made.url)
    monkeypatch.setenv("SCITQ_ENA_HTTPS", made.url)
    monkeypatch.setenv("SCITQ_SRA_BUCKET", f"{made.url}/sra")
    monkeypatch.setenv("SCITQ_ENA_FTP", "ftp://127.0.0.1:1")
    for module, name in ((transfer, "FIRST_PAUSE_SECONDS"), (fastq, "FIRST_PAUSE_SECONDS")):
        monkeypatch.setattr(module, name, 0.01)
    monkeypatch.setattr(fastq, "LONGEST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(web, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(ena, "_answers", {})
    monkeypatch.setattr(schemes, "_open", {})
    yield made
    made.close()


def paired(run: str) -> dict[str, bytes]:
    return {f"{run}_{mate}.fastq.gz": gzip.compress(os.urandom(200_000)) for mate in (1, 2)}


def here(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


PATH = "/vol1/fastq/ERR385/ERR3857002/ERR3857002_1.fastq.gz"


def test_a_run_comes_with_all_its_files(archive, tmp_path):
    files = {"ERR3857002.fastq.gz": b"unpaired", **paired("ERR3857002")}
    archive.add("ERR3857002", files)
    found = get("run+fastq://ERR3857002", tmp_path / "x")
    assert [path.name for path in found] == list(files) and here(tmp_path / "x") == files


@pytest.mark.parametrize("accession", ["PRJEB46098", "SAMEA8900001", "ERX5000001", "ERS1234567"])
def test_any_level_means_all_its_runs(archive, tmp_path, accession):
    runs = {run: paired(run) for run in ("ERR0000001", "ERR0000002", "ERR0000003")}
    for run, files in runs.items():
        archive.add(run, files, accession)
    get(f"run+fastq://{accession}", tmp_path / "x")
    assert here(tmp_path / "x") == {name: data for files in runs.values() for name, data in files.items()}
    assert {entry.path: entry.size for entry in list_content(f"run+fastq://{accession}")} == {
        name: len(data) for files in runs.values() for name, data in files.items()
    }
    assert archive.asked.count("GET /filereport") == 1, "it is asked once for a project"


@pytest.mark.parametrize(
    "faults",
    [
        ["truncate", "truncate"],
        ["stall"],
        ["html"],
        ["wrong"],
        ["503", "429", "503"],
        ["truncate", "html", "503", "stall", "wrong"],
    ],
)
def test_what_comes_wrong_is_fetched_again(archive, tmp_path, faults):
    files = paired("ERR3857002")
    archive.add("ERR3857002", files)
    archive.faults[PATH] = list(faults)
    get("run+fastq@https://ERR3857002", tmp_path / "x")
    assert here(tmp_path / "x") == files and archive.faults[PATH] == []


def test_a_report_that_does_not_come_is_asked_for_again(archive, tmp_path):
    archive.add("ERR3857002", paired("ERR3857002"))
    archive.faults["/filereport"] = ["503", "html", "429"]
    get("run+fastq://ERR3857002", tmp_path / "x")
    assert here(tmp_path / "x") == {name: data for name, data in paired_of(archive).items()}


def paired_of(archive) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in archive.root.rglob("*.fastq.gz")}


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["ERR3857002_1", "ERR3857002_2"], ["ERR3857002_1"]),
        (["ERR3857002", "ERR3857002_1", "ERR3857002_2"], ["ERR3857002_1"]),
        (["ERR3857002"], ["ERR3857002"]),
        (["ERR3857002_2"], ["ERR3857002_2"]),
    ],
)
def test_the_first_reads_alone(archive, tmp_path, names, wanted):
    archive.add("ERR3857002", {f"{name}.fastq.gz": gzip.compress(name.encode()) for name in names})
    found = get("run+fastq@filter_r1://ERR3857002", tmp_path / "x")
    assert [path.name for path in found] == [f"{name}.fastq.gz" for name in wanted] == sorted(here(tmp_path / "x"))
    assert [entry.path for entry in list_content("run+fastq@filter_r1://ERR3857002")] == [f"{name}.fastq.gz" for name in wanted]


def test_an_accession_may_be_written_small(archive, tmp_path):
    archive.add("ERR3857002", paired("ERR3857002"))
    assert len(get("run+fastq://err3857002", tmp_path / "x")) == 2


def test_sums_that_are_wrong_are_never_believed(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(fastq, "ROUNDS", 2)
    archive.add("ERR3857002", paired("ERR3857002"), lie=True)
    with pytest.raises(TransferFailed, match="run ERR3857002 could not be had .*its md5 is .*, it should be"):
        get("run+fastq@https://ERR3857002", tmp_path / "x")
    assert not list((tmp_path / "x").glob("*.gz"))


def test_ftp_is_the_next_way(archive, tmp_path, monkeypatch):
    files = paired("ERR3857002")
    archive.add("ERR3857002", files)
    server = Ftp(archive.root)
    monkeypatch.setenv("SCITQ_ENA_FTP", server.url)
    archive.faults[PATH] = ["503"] * 50
    try:
        get("run+fastq://ERR3857002", tmp_path / "x")
        get("run+fastq@ftp://ERR3857002", tmp_path / "y")
    finally:
        server.close()
    assert here(tmp_path / "x") == here(tmp_path / "y") == files


def test_what_an_earlier_call_has_brought_is_not_fetched_again(archive, tmp_path):
    archive.add("ERR3857002", paired("ERR3857002"))
    get("run+fastq://ERR3857002", tmp_path / "x")
    before = sum(line.startswith("GET /vol1") for line in archive.asked)
    get("run+fastq://ERR3857002", tmp_path / "x")
    assert sum(line.startswith("GET /vol1") for line in archive.asked) == before


def test_aria2_carries_it_too(archive, tmp_path):
    needed("aria2c", "aria2")
    files = paired("ERR3857002")
    archive.add("ERR3857002", files)
    get("run+fastq@https@aria2://ERR3857002", tmp_path / "x")
    assert here(tmp_path / "x") == files


def test_aspera_is_called_as_its_manual_says(archive, tmp_path, monkeypatch):
    """There is no ascp to be had here: this holds the words of the call, and what becomes of the file."""
    files = paired("ERR3857002")
    archive.add("ERR3857002", files)
    stub = tmp_path / "bin" / "ascp"
    stub.parent.mkdir()
    words = f'for last; do from="$to"; to="$last"; done\ncp {archive.root}/${{from#*:}} "$to"\n'
    stub.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{words}')
    stub.chmod(0o755)
    (tmp_path / "key").touch()
    monkeypatch.setenv("PATH", f"{stub.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("ASPERA_SCP_KEY", str(tmp_path / "key"))
    get("run+fastq@aspera://ERR3857002", tmp_path / "x")
    assert here(tmp_path / "x") == files
    words = (tmp_path / "calls").read_text().splitlines()[0].split()
    assert words[words.index("-P") + 1] == "33001" and words[words.index("-i") + 1] == str(tmp_path / "key")
    assert words[-2] == f"era-fasp@fasp.sra.ebi.ac.uk:{PATH}"


@pytest.mark.parametrize(
    ("uri", "kind", "told"),
    [
        ("run+fastq://nonsense", InvalidRequest, "is no accession"),
        ("run+fastq://PRJEB99999999", NotFound, "ENA knows no runs"),
        ("run+fastq@torrent://ERR1000000", InvalidRequest, "knows no option @torrent"),
        ("run+fastq@https://ERR1000000", TransferFailed, "https: ENA has no FASTQ of it"),
        ("run+fastq@aspera://ERR3857002", TransferFailed, "ascp is not installed here"),
    ],
)
def test_what_cannot_be_had_is_told(archive, tmp_path, uri, kind, told):
    archive.add("ERR3857002", paired("ERR3857002"))
    with pytest.raises(kind, match=told):
        get(uri, tmp_path / "x")


# --- NCBI, with its real tools ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sra_object(tmp_path_factory):
    """A genuine .sra file, made by sra-tools of reads of our own; and the reads."""
    needed("latf-load", "sra-toolkit")
    folder = tmp_path_factory.mktemp("sra")
    made = random.Random(1)
    for mate in (1, 2):
        reads = ["".join(made.choices("ACGT", k=60)) for _ in range(500)]
        (folder / f"r_{mate}.fastq").write_text(
            "".join(f"@read{i}/{mate}\n{read}\n+\n{'I' * 60}\n" for i, read in enumerate(reads))
        )
    (folder / "home/.ncbi").mkdir(parents=True)
    (folder / "home/.ncbi/user-settings.mkfg").write_text('/LIBS/GUID = "8b4b5a3e-6b0e-4d7c-9a3e-3f2d0a1b2c3d"\n')
    env = {**os.environ, "HOME": str(folder / "home")}
    words = ["latf-load", "--quality", "PHRED_33", "--platform", "ILLUMINA", "-o", "T.dir", "r_1.fastq", "r_2.fastq"]
    subprocess.run(words, cwd=folder, env=env, check=True, capture_output=True)
    subprocess.run(["kar", "-c", "object", "-d", "T.dir"], cwd=folder, env=env, check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "uri", [f"run+fastq{way}://SRR9999999" for way in ("@sra", "", "@sra@aria2", "@sra@filter_r1")]
)  # fmt: skip
def test_a_run_that_only_ncbi_has(archive, sra_object, tmp_path, monkeypatch, uri):
    monkeypatch.setenv("HOME", str(sra_object / "home"))
    (archive.root / "sra/SRR9999999").mkdir(parents=True)
    shutil.copy(sra_object / "object", archive.root / "sra/SRR9999999/SRR9999999")
    archive.faults["/sra/SRR9999999/SRR9999999"] = ["truncate"]
    get(uri, tmp_path / "x")
    mates = (1,) if "filter_r1" in uri else (1, 2)
    assert sorted(here(tmp_path / "x")) == [f"SRR9999999_{mate}.fastq.gz" for mate in mates]
    reads = gzip.decompress(here(tmp_path / "x")["SRR9999999_1.fastq.gz"]).decode().split("\n")[1::4]
    assert reads == (sra_object / "r_1.fastq").read_text().split("\n")[1::4]


@pytest.mark.slow
def test_a_run_comes_from_ncbi_while_ena_tells_nothing(archive, sra_object, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(sra_object / "home"))
    (archive.root / "sra/SRR9999999").mkdir(parents=True)
    shutil.copy(sra_object / "object", archive.root / "sra/SRR9999999/SRR9999999")
    monkeypatch.setenv("SCITQ_ENA_PORTAL", "http://127.0.0.1:1")
    with pytest.raises(TransferFailed, match="ENA"):
        get("run+fastq@https://SRR9999999", tmp_path / "y")
    get("run+fastq://SRR9999999", tmp_path / "x")
    assert sorted(here(tmp_path / "x")) == ["SRR9999999_1.fastq.gz", "SRR9999999_2.fastq.gz"]


def test_a_run_of_which_ena_tells_late_comes_from_ena(archive, tmp_path):
    archive.add("ERR3857002", paired("ERR3857002"))
    archive.faults["/filereport"] = ["503"] * 8
    get("run+fastq@https://ERR3857002", tmp_path / "x")
    assert here(tmp_path / "x") == paired_of(archive) and len(archive.faults["/filereport"]) == 0


def killed_in_the_middle(archive, run: str, folder: Path) -> None:
    """`scitq fetch` is ended with SIGKILL when NCBI has sent half of the object."""
    archive.faults[f"/sra/{run}/{run}"] = ["hold"]
    process = subprocess.Popen([*PROGRAM, "fetch", "get", "-q", f"run+fastq@sra://{run}", f"{folder}/"])
    deadline = time.monotonic() + 60
    try:
        while not any(path.is_file() and path.stat().st_size for path in folder.rglob("*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    (left,) = folder.iterdir()
    assert left.name.startswith(f".{run}.scitq-sra-")


@pytest.mark.slow
def test_a_killed_one_is_gone_on_with(archive, sra_object, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(sra_object / "home"))
    (archive.root / "sra/SRR9999999").mkdir(parents=True)
    shutil.copy(sra_object / "object", archive.root / "sra/SRR9999999/SRR9999999")
    killed_in_the_middle(archive, "SRR9999999", tmp_path / "x")
    get("run+fastq@sra://SRR9999999", tmp_path / "x")
    assert sorted(here(tmp_path / "x")) == ["SRR9999999_1.fastq.gz", "SRR9999999_2.fastq.gz"]
    assert archive.gone_on == ["/sra/SRR9999999/SRR9999999"], "it went on from where it was"


def test_what_a_killed_one_left_goes_when_the_run_comes_another_way(archive, tmp_path, monkeypatch):
    files = paired("ERR3857002")
    archive.add("ERR3857002", files)
    (archive.root / "sra/ERR3857002").mkdir(parents=True)
    (archive.root / "sra/ERR3857002/ERR3857002").write_bytes(os.urandom(200_000))
    stub = tmp_path / "bin" / "fasterq-dump"  # it does not come so far that it is called
    stub.parent.mkdir()
    stub.write_text("#!/bin/sh\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stub.parent}:{os.environ['PATH']}")
    killed_in_the_middle(archive, "ERR3857002", tmp_path / "x")
    get("run+fastq@https://ERR3857002", tmp_path / "x")
    assert here(tmp_path / "x") == files


def test_missing_tools_are_named(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TransferFailed, match="fasterq-dump is not installed here: apt install sra-toolkit"):
        get("run+fastq@sra://SRR9999999", tmp_path / "x")
