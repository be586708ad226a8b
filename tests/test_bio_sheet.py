"""`scitq fetch samples`: sample sheets, and tasks that are made of them with the reads that they name."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys

import pytest
from ena import PROJECT, Archive, run_of, tell_project
from env import ROOT
from scitq.cli import fetch
from scitq.errors import InvalidRequest, NotFound, TransferFailed
from scitq.fetch import ena, inquiry, ncbi
from scitq.substitution import read_table


@pytest.fixture
def archive(tmp_path, monkeypatch):
    made = Archive(tmp_path / "archive")
    made.root.mkdir()
    for name in ("SCITQ_ENA_PORTAL", "SCITQ_NCBI_EUTILS"):
        monkeypatch.setenv(name, made.url)
    monkeypatch.setattr(inquiry, "PAUSES_SECONDS", (0.01, 0.01, 0.01))
    monkeypatch.setattr(ncbi, "_SECONDS_BETWEEN", {False: 0.0, True: 0.0})
    monkeypatch.setattr(ena, "_answers", {})
    tell_project(made)
    yield made
    made.close()


@pytest.fixture
def sheet(archive, capsys):
    """Runs `scitq fetch samples ...`; what it wrote."""

    def run(*words: str) -> str:
        assert fetch.main(["samples", *words]) == 0
        return capsys.readouterr().out

    return run


def rows(text: str, separator: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator))


@pytest.mark.parametrize("source", ["ena", "sra"])
def test_a_row_a_sample(sheet, source):
    found = rows(sheet(PROJECT, "--from", source))
    way = "" if source == "ena" else "@sra"
    assert [(row["sample_accession"], row["uri"]) for row in found] == [
        ("SAMEA0000002", f"run+fastq{way}://ERR0000003 run+fastq{way}://ERR0000004"),
        ("SAMEA0000003", f"run+fastq{way}://ERR0000005"),
        ("SAMEA0000010", f"run+fastq{way}://ERR0000012"),
    ]
    first = found[0]
    assert first["run_accession"] == "ERR0000003 ERR0000004" and first["read_count"] == "7000"
    assert (first["library_layout"], first["study_accession"], first["sample_alias"]) == ("PAIRED", PROJECT, "gut, 2")


def test_a_row_a_run(sheet):
    found = rows(sheet(PROJECT, "--by", "run"))
    assert [row["run_accession"] for row in found] == ["ERR0000003", "ERR0000004", "ERR0000005", "ERR0000012"]
    folder = "https://ftp.sra.ebi.ac.uk/vol1/fastq/ERR000"
    assert [found[0][name] for name in ("fastq_1", "fastq_2")] == [
        f"{folder}/ERR0000003/ERR0000003_{mate}.fastq.gz" for mate in (1, 2)
    ]
    assert [found[2][name] for name in ("fastq_1", "fastq_2")] == [f"{folder}/ERR0000005/ERR0000005.fastq.gz", ""]


def test_the_unpaired_reads_of_a_paired_run_are_none_of_its_two_files(archive, sheet):
    names = ["ERR0000020", "ERR0000020_1", "ERR0000020_2"]
    run_of(archive, 20, 20, fastq_ftp=";".join(f"h/{name}.fastq.gz" for name in names))
    run_of(archive, 21, 20, fastq_ftp="")
    found = rows(sheet("SAMEA0000020", "--by", "run"))
    assert [(row["fastq_1"], row["fastq_2"]) for row in found] == [
        ("https://h/ERR0000020_1.fastq.gz", "https://h/ERR0000020_2.fastq.gz"),
        ("", ""),
    ]


def test_samples_whose_runs_differ(archive, sheet):
    run_of(archive, 30, 30)
    run_of(archive, 31, 30, layout="SINGLE", read_count="")
    [row] = rows(sheet("SAMEA0000030"))
    assert row["library_layout"] == "PAIRED;SINGLE" and row["read_count"] == "30000"


def test_other_formats_say_the_same(sheet):
    table = rows(sheet(PROJECT))
    assert rows(sheet(PROJECT, "-o", "tsv"), "\t") == table
    told = json.loads(sheet(PROJECT, "-o", "json"))
    assert [{name: str(value) for name, value in row.items()} for row in told] == table and told[0]["read_count"] == 7000
    assert [json.loads(line) for line in sheet(PROJECT, "-o", "jsonl").splitlines()] == told


def test_what_is_shown(sheet):
    assert [row["sample_accession"] for row in rows(sheet(PROJECT, "--where", "library_layout=PAIRED"))] == [
        "SAMEA0000002", "SAMEA0000010",
    ]  # fmt: skip
    two = sheet(PROJECT, "--where", "run_accession=ERR0000012", "--where", "run_accession=ERR0000005", "--where", "tax_id=408170")
    assert len(rows(two)) == 2
    assert sheet(PROJECT, "--limit", "1", "-H").startswith("SAMEA0000002,")
    assert {"fastq_md5", "sra_ftp"} <= set(rows(sheet(PROJECT, "-L"))[0])


def test_accessions_of_a_file(sheet, tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_text("ERR0000003\n# the tenth\n\nSAMEA0000010  # good\n")
    assert len(rows(sheet("-i", str(tmp_path / "list.txt")))) == 2
    assert len(rows(sheet("ERR0000005", "-i", str(tmp_path / "list.txt")))) == 3


def test_the_samples_of_a_folder(sheet, tmp_path):
    for name in ("A_1.fq.gz", "A_2.fq.gz", "B.fq.gz"):
        (tmp_path / "reads").mkdir(exist_ok=True)
        (tmp_path / "reads" / name).touch()
    found = rows(sheet(f"{tmp_path}/reads/"))
    here = f"file://{tmp_path}/reads"
    assert found == [
        {
            "sample_accession": "A",
            "run_accession": "A_1 A_2",
            "uri": f"{here}/A_1.fq.gz {here}/A_2.fq.gz",
            "library_layout": "PAIRED",
        },
        {"sample_accession": "B", "run_accession": "B", "uri": f"{here}/B.fq.gz", "library_layout": "SINGLE"},
    ]
    (tmp_path / "reads" / "my C.fq.gz").touch()
    with pytest.raises(InvalidRequest, match="my C.fq.gz' has spaces in it.*make a row a run"):
        sheet(f"{tmp_path}/reads/")
    assert rows(sheet(f"{tmp_path}/reads/", "--by", "run"))[-1]["uri"] == f"{here}/my C.fq.gz"


def test_batch_files_can_read_every_sheet(archive, sheet, tmp_path):
    run_of(archive, 40, 40, sample_title='a "quoted", long\ntitle\twith {braces}')
    for name, words in {"a.csv": (), "b.tsv": ("-o", "tsv"), "c.csv": ("--by", "run", "-L")}.items():
        (tmp_path / name).write_text(text := sheet(PROJECT, *words), encoding="utf-8")
        assert read_table(str(tmp_path / name)) == rows(text, "\t" if words[-1:] == ("tsv",) else ",")


@pytest.mark.parametrize(
    ("words", "kind", "told"),
    [
        ([], InvalidRequest, "no accession was given: name a project, a sample, an experiment or a run"),
        (["nonsense"], InvalidRequest, "'nonsense' is no accession"),
        (["PRJEB99999999"], NotFound, "ENA has no runs of PRJEB99999999: check the accession; NCBI may have them"),
        (
            [PROJECT, "--where", "libary_layout=PAIRED"],
            InvalidRequest,
            r"no run has 'libary_layout' \(did you mean 'library_layout'",
        ),
        (
            [PROJECT, "--where", "library_strategy=RNA-Seq"],
            InvalidRequest,
            r"none of the runs has library_strategy RNA-Seq \(there are AMPLICON, WGS\)",
        ),
        ([PROJECT, "--where", "PAIRED"], InvalidRequest, "--where 'PAIRED' is no condition: write NAME=VALUE"),
        (
            [PROJECT, "-o", "cvs"],
            InvalidRequest,
            r"unknown format 'cvs' \(did you mean 'csv'\?\); there are csv, tsv, json, jsonl",
        ),
        ([PROJECT, "--from", "ncbi"], InvalidRequest, "unknown archive 'ncbi'; there are ena, sra"),
        ([PROJECT, "--by", "runs"], InvalidRequest, r"unknown kind of row 'runs' \(did you mean 'run'\?\)"),
        (["-i", "/nothing/here"], InvalidRequest, "/nothing/here cannot be read: No such file"),
        (["s3://lab/reads/", PROJECT], InvalidRequest, "s3://lab/reads/ is a folder: give one alone, or accessions"),
    ],
)
def test_what_is_wrong_is_told(sheet, words, kind, told):
    with pytest.raises(kind, match=told):
        sheet(*words)


def test_nothing_is_written_if_a_service_is_down(sheet, archive, capsys):
    archive.faults["/filereport"] = ["503"] * 9
    with pytest.raises(TransferFailed, match="ENA answered 503 Service Unavailable: try again later"):
        sheet("ERX0000003", "ERX0000004")
    assert capsys.readouterr().out == ""


# --- and their tasks ------------------------------------------------------------------------------------------------------


READS = {f"ERR000000{number}_{mate}.fastq.gz": gzip.compress(b"@r\n") for number in (3, 4) for mate in (1, 2)} | {
    "ERR0000005.fastq.gz": gzip.compress(b"@r\n"), "ERR0000012_1.fastq.gz": b"x", "ERR0000012_2.fastq.gz": b"x",
}  # fmt: skip
SCRIPT = """
import sys
from scitq.bio.genetics import ena_get_samples, filter_by_layout
from scitq.lib import Server

s = Server(sys.argv[1])
tasks = []
for sample, runs in filter_by_layout(ena_get_samples(sys.argv[2]), paired=False).items():
    inputs = [run.uri for run in runs]
    tasks.append(s.task_create(command=f"ls $INPUT > $OUTPUT/{sample}", shell=True, input=inputs, output=sys.argv[3]))
s.join(tasks, retry=2)
"""


@pytest.fixture
def reads(env, archive):
    """Everything that this test starts finds its reads at the stand-in."""
    for run in list(archive.runs):
        archive.add(run, {name: data for name, data in READS.items() if name.startswith(run)})
    env.variables |= {"SCITQ_ENA_PORTAL": archive.url, "SCITQ_ENA_HTTPS": archive.url}
    return env


def test_a_script_of_a_biologist(reads, tmp_path):
    reads.server()
    reads.worker(2)
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [sys.executable, str(tmp_path / "script.py"), reads.url, PROJECT, f"file://{tmp_path}/out/"]
    subprocess.run(words, env={**reads.variables, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True, timeout=300)
    assert {path.name: path.read_text().split() for path in (tmp_path / "out").iterdir()} == {
        "SAMEA0000002": ["ERR0000003_1.fastq.gz", "ERR0000004_1.fastq.gz"],
        "SAMEA0000003": ["ERR0000005.fastq.gz"],
        "SAMEA0000010": ["ERR0000012_1.fastq.gz"],
    }


def test_tasks_of_a_sheet(reads, tmp_path):
    (tmp_path / "samples.csv").write_text(reads.cli("fetch", "samples", PROJECT, "-o", "csv", code=0).stdout)
    each = ("launch", "--dry-run", "--each", str(tmp_path / "samples.csv"))
    tasks = json.loads(reads.cli(*each, "-i", "{uri}", "-n", "{sample_accession}", "true", code=0).stdout)
    assert tasks[0]["input"] == ["run+fastq://ERR0000003", "run+fastq://ERR0000004"] and tasks[1]["name"] == "SAMEA0000003"
    (tmp_path / "count.yaml").write_text(
        "each: samples.csv\nname: count-{sample_accession}\nshell: true\n"
        f"command: ls $INPUT > $OUTPUT/{{sample_accession}}\ninput: '{{uri}}'\noutput: file://{tmp_path}/out/\n"
    )
    reads.cli("run", str(tmp_path / "count.yaml"), cwd=tmp_path, code=0)
    assert {path.name: len(path.read_text().split()) for path in (tmp_path / "out").iterdir()} == {
        "SAMEA0000002": 4, "SAMEA0000003": 1, "SAMEA0000010": 2,
    }  # fmt: skip
