"""`scitq.bio.genetics` against stand-ins of ENA and NCBI that answer in their documented formats, and fail in all their ways."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ena import PROJECT, Archive, run_of, tell_project
from scitq.bio.genetics import (
    Run,
    ena_get_samples,
    filter_by,
    filter_by_layout,
    find_library_layout,
    sra_get_samples,
    uri_get_samples,
    user_friendly_depth,
)
from scitq.errors import InvalidRequest, NotFound, TransferFailed
from scitq.fetch import ena, inquiry, ncbi

UMBRELLA = "PRJNA12345"


@pytest.fixture
def archive(tmp_path, monkeypatch):
    made = Archive(tmp_path / "archive")
    for name in ("SCITQ_ENA_PORTAL", "SCITQ_NCBI_EUTILS"):
        monkeypatch.setenv(name, made.url)
    monkeypatch.delenv("NCBI_API_KEY", raising=False)
    monkeypatch.setattr(inquiry, "PAUSES_SECONDS", (0.01, 0.01, 0.01))
    monkeypatch.setattr(ncbi, "_SECONDS_BETWEEN", {False: 0.0, True: 0.0})
    monkeypatch.setattr(ena, "_answers", {})
    yield made
    made.close()


@pytest.fixture
def project(archive):
    tell_project(archive)
    return archive


def names(samples) -> dict[str, list[str]]:
    return {sample: [run.run_accession for run in runs] for sample, runs in samples.items()}


ALL = {
    "SAMEA0000002": ["ERR0000003", "ERR0000004"],
    "SAMEA0000003": ["ERR0000005"],
    "SAMEA0000010": ["ERR0000012"],
}
BOTH = pytest.mark.parametrize("get_samples", [ena_get_samples, sra_get_samples])


# --- what the archives tell -------------------------------------------------------------------------------------------


@BOTH
def test_the_samples_of_a_project_with_their_runs(project, get_samples):
    samples = get_samples(PROJECT)
    assert names(samples) == ALL and list(samples) == list(ALL)
    run = samples["SAMEA0000002"][0]
    assert (run.study_accession, run.experiment_accession, run.library_layout) == (PROJECT, "ERX0000003", "PAIRED")
    assert (run.read_count, run.base_count, run.tax_id) == (3000, 450_000, "408170")
    assert (run.instrument_platform, run.instrument_model) == ("ILLUMINA", "NextSeq 500")
    assert (run.secondary_sample_accession, run.sample_alias) == ("ERS0000002", "gut, 2")
    assert (run.library_strategy, run.scientific_name) == ("WGS", "human gut metagenome")


def test_the_uris_of_runs_are_inputs(project):
    assert [run.uri for run in ena_get_samples(PROJECT)["SAMEA0000003"]] == ["run+fastq://ERR0000005"]
    assert [run.uri for run in sra_get_samples(PROJECT)["SAMEA0000003"]] == ["run+fastq@sra://ERR0000005"]


def test_ncbis_attributes_in_snake_case(project):
    run = sra_get_samples("ERR0000003")["SAMEA0000002"][0]
    assert (run.run, run.bio_sample, run.bio_project, run.sra_study) == ("ERR0000003", "SAMEA0000002", PROJECT, "ERP130324")
    assert (run.spots, run.avg_length, run.size_mb, run.insert_size) == (3000, 302, 17, "")
    assert (run.release_date, run.first_public, run.study_pubmed_id) == ("2024-10-04 14:39:07", "2024-10-04", "")


def test_an_attribute_that_a_run_has_not_names_the_nearest(project):
    run = ena_get_samples("ERR0000003")["SAMEA0000002"][0]
    with pytest.raises(AttributeError, match=r"a run has no 'libary_layout' \(did you mean 'library_layout'\?\)"):
        run.libary_layout  # noqa: B018


@BOTH
@pytest.mark.parametrize(
    ("accession", "runs"),
    [
        ("ERP130324", ["ERR0000003", "ERR0000004", "ERR0000005", "ERR0000012"]),
        ("SAMEA0000002", ["ERR0000003", "ERR0000004"]),
        ("ERS0000002", ["ERR0000003", "ERR0000004"]),
        ("ERX0000004", ["ERR0000004"]),
        ("ERR0000012", ["ERR0000012"]),
        (" err0000012\n", ["ERR0000012"]),
        (["SAMEA0000002", "ERX0000003", "ERR0000012", "ERR0000012"], ["ERR0000003", "ERR0000004", "ERR0000012"]),
        ("SAMEA0000002, ERR0000012", ["ERR0000003", "ERR0000004", "ERR0000012"]),
    ],
)
def test_accessions_of_any_level(project, get_samples, accession, runs):
    assert [run.run_accession for own in get_samples(accession).values() for run in own] == runs


@BOTH
def test_runs_of_an_umbrella_project(project, get_samples):
    for run in ("ERR0000003", "ERR0000012"):
        project.tell(run, UMBRELLA)
    assert names(get_samples(UMBRELLA)) == {"SAMEA0000002": ["ERR0000003"], "SAMEA0000010": ["ERR0000012"]}


def test_of_an_experiment_with_several_runs_only_the_one_that_was_asked_for(archive):
    run_of(archive, 1, 1, experiment=7)
    run_of(archive, 2, 1, experiment=7)
    assert names(sra_get_samples("ERR0000002")) == {"SAMEA0000001": ["ERR0000002"]}
    assert names(sra_get_samples("ERX0000007")) == {"SAMEA0000001": ["ERR0000001", "ERR0000002"]}


@BOTH
def test_layout_and_strategy_choose(project, get_samples):
    assert list(get_samples(PROJECT, library_layout="SINGLE")) == ["SAMEA0000003"]
    assert list(get_samples(PROJECT, library_strategy="wgs")) == ["SAMEA0000002", "SAMEA0000010"]
    assert get_samples(PROJECT, "PAIRED", "AMPLICON") == {}
    with pytest.raises(InvalidRequest, match=r"no layout 'paird' \(did you mean 'PAIRED'\?\): it is PAIRED or SINGLE"):
        get_samples(PROJECT, library_layout="paird")


@BOTH
def test_values_that_the_archive_does_not_tell(archive, get_samples):
    run_of(archive, 1, 1, sample_accession="", library_strategy="", read_count="", base_count="")
    samples = get_samples("ERR0000001")
    run = samples["ERS0000001"][0]
    assert run.read_count is None and run.base_count is None and run.library_strategy == ""


@BOTH
def test_the_name_of_a_sample_can_be_in_a_path_and_a_command(archive, get_samples):
    run_of(archive, 1, 1, sample_accession="../$(reboot)", secondary_sample_accession="x/y")
    assert list(get_samples("ERR0000001")) == ["ERR0000001"]


def test_fields_that_ena_has_given_up_are_left_out(project):
    project.unknown_fields = {"fastq_aspera", "bam_ftp"}
    run = ena_get_samples(PROJECT)["SAMEA0000003"][0]
    assert run.fastq_aspera == "" and run.library_layout == "SINGLE"
    assert len(project.questions("/filereport")) == 2


def test_run_information_without_most_of_its_columns(archive, monkeypatch):
    run_of(archive, 1, 1)
    monkeypatch.setattr("ena.RUN_INFO", "Run,BioSample,spots,Novelty")
    run = sra_get_samples("ERR0000001")["SAMEA0000001"][0]
    assert (run.read_count, run.base_count, run.library_layout, run.novelty) == (1000, None, "", "")


@BOTH
def test_ena_is_asked_once_ncbi_each_time(project, get_samples):
    get_samples(PROJECT)
    assert get_samples(PROJECT) and len(project.asked) == (1 if get_samples is ena_get_samples else 4)


# --- many ---------------------------------------------------------------------------------------------------------------


def test_long_lists_are_asked_for_in_few_questions(archive):
    runs = [run_of(archive, number, number) for number in range(1, 451)]
    assert len(ena_get_samples(runs)) == 450
    assert [len(values["includeAccessions"].split(",")) for values in archive.questions("/search")] == [200, 200, 50]
    assert archive.questions("/filereport") == []
    archive.asked.clear()
    archive.values.clear()
    assert len(sra_get_samples(runs)) == 450
    assert [values["term"].count(" OR ") for values in archive.questions("/esearch.fcgi")] == [199, 199, 49]


def test_a_question_of_many_is_asked_again_alone(archive):
    runs = [run_of(archive, number, number) for number in range(1, 451)]
    archive.faults["/search"] = ["", "503", "html"]
    assert len(ena_get_samples(runs)) == 450
    assert [len(values["includeAccessions"].split(",")) for values in archive.questions("/search")] == [200, 200, 200, 200, 50]


def test_many_samples_of_both_names(archive):
    for number in range(1, 21):
        run_of(archive, number, number)
    by_both = [f"SAMEA{number:07}" for number in range(1, 11)] + [f"ERS{number:07}" for number in range(11, 21)]
    assert len(ena_get_samples(by_both)) == len(sra_get_samples(by_both)) == 20


def test_ncbi_is_read_page_by_page(archive, monkeypatch):
    monkeypatch.setattr(ncbi, "_PAGE", 10)
    for number in range(1, 26):
        run_of(archive, number, number)
    archive.faults["/efetch.fcgi"] = ["", "headerless", "chunks"]
    assert len(sra_get_samples(PROJECT)) == 25
    assert [values["retstart"] for values in archive.questions("/efetch.fcgi")] == ["0", "10", "20"]


def test_the_key_of_ncbi_is_given_and_not_shown(project, monkeypatch):
    monkeypatch.setenv("NCBI_API_KEY", "s3cret")
    sra_get_samples(PROJECT)
    assert {values["api_key"] for values in project.values} == {"s3cret"}
    assert {line.split()[0] for line in project.asked} == {"POST"}, "it is in no URL, which logs and errors would show"


# --- what goes wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("get_samples", "path", "faults"),
    [
        (ena_get_samples, "/filereport", ["503", "429", "html"]),
        (sra_get_samples, "/esearch.fcgi", ["429", "html", "empty"]),
        (sra_get_samples, "/esearch.fcgi", ["error", "500"]),
        (sra_get_samples, "/efetch.fcgi", ["500", "empty", "broken off"]),
        (sra_get_samples, "/efetch.fcgi", ["html", "headerless"]),
    ],
)
def test_a_service_that_is_busy_is_asked_again(project, get_samples, path, faults):
    project.faults[path] = list(faults)
    assert names(get_samples(PROJECT)) == ALL and project.faults[path] == []


@pytest.mark.parametrize(
    ("get_samples", "path", "fault", "told"),
    [
        (ena_get_samples, "/filereport", "html", "ENA answered 200 with something else than a report: it begins with '<html>"),
        (sra_get_samples, "/esearch.fcgi", "html", "NCBI answered 200 with something else than the result of a search"),
        (sra_get_samples, "/efetch.fcgi", "html", "NCBI answered 200 with something else than run information"),
        (sra_get_samples, "/efetch.fcgi", "broken off", "NCBI answered 200 with something else than run information"),
        (sra_get_samples, "/efetch.fcgi", "empty", "than run information: it is empty"),
        (sra_get_samples, "/esearch.fcgi", "error", r"NCBI could not search \(Search Backend failed: timeout\)"),
        (ena_get_samples, "/filereport", "503", "ENA answered 503 Service Unavailable: try again later"),
        (sra_get_samples, "/esearch.fcgi", "429", "NCBI answered 429 Too Many Requests: try again later"),
    ],
)
def test_a_service_that_stays_so_is_told_of(project, get_samples, path, fault, told):
    project.faults[path] = [fault] * 10
    with pytest.raises(TransferFailed, match=told):
        get_samples(PROJECT)
    assert len(project.faults[path]) == 6, "it is asked four times"


@BOTH
def test_a_service_that_is_down(archive, monkeypatch, get_samples):
    for name in ("SCITQ_ENA_PORTAL", "SCITQ_NCBI_EUTILS"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with pytest.raises(TransferFailed, match=r"(ENA|NCBI) does not answer \(ConnectionError\): try again later"):
        get_samples([f"ERX{number:07}" for number in range(1, 30)])


@BOTH
def test_accessions_without_runs(project, get_samples):
    with pytest.raises(NotFound, match=r"(ENA|NCBI) has no runs of PRJEB99999999: check the accession"):
        get_samples("PRJEB99999999")
    with pytest.raises(NotFound, match=r"no runs of ERR9999999, PRJEB99999999: check"):
        get_samples(["ERR0000003", "ERR9999999", "PRJEB99999999"])
    missing = [f"ERR{number:07}" for number in range(100, 120)]
    with pytest.raises(NotFound, match=r"no runs of ERR0000100, .*, ERR0000104 and 15 more: check"):
        get_samples(["ERR0000003", *missing])


def test_a_report_of_the_header_alone(project):
    project.faults["/filereport"] = ["header"]
    with pytest.raises(NotFound, match="ENA has no runs of PRJEB99999999"):
        ena_get_samples("PRJEB99999999")


@BOTH
@pytest.mark.parametrize(
    ("accession", "told"),
    [
        ("nonsense", "'nonsense' is no accession of a run, an experiment, a sample or a project"),
        ("GSE12345", "'GSE12345' is no accession .*: it is one of GEO, whose page names the project"),
        ("PRJEB46098 OR 1", "'OR' is no accession"),
        ("../etc", "is no accession"),
        ([], "no accession was given"),
    ],
)
def test_what_is_no_accession(archive, get_samples, accession, told):
    with pytest.raises(InvalidRequest, match=told):
        get_samples(accession)
    assert archive.asked == []


# --- filters --------------------------------------------------------------------------------------------------------------


def test_filter_by_attributes(project):
    samples = ena_get_samples(PROJECT)
    assert names(filter_by(samples, library_strategy="AMPLICON")) == {"SAMEA0000003": ["ERR0000005"]}
    assert names(filter_by(samples, run_accession=["ERR0000004", "ERR0000012"])) == {
        "SAMEA0000002": ["ERR0000004"], "SAMEA0000010": ["ERR0000012"],
    }  # fmt: skip
    assert names(filter_by(samples, read_count=3000)) == {"SAMEA0000002": ["ERR0000003"]}
    assert filter_by(samples, read_count=3000) == filter_by(samples, read_count="3000")
    assert names(filter_by(samples, read_count=lambda count: count > 4000)) == {
        "SAMEA0000003": ["ERR0000005"], "SAMEA0000010": ["ERR0000012"],
    }  # fmt: skip
    assert filter_by(samples, tax_id=9606) == {} and filter_by(samples) == samples
    with pytest.raises(InvalidRequest, match=r"no run has 'library_layuot' \(did you mean 'library_layout'\?\): there are "):
        filter_by(samples, library_layuot="PAIRED")


def test_filter_by_layout(project):
    samples = ena_get_samples(PROJECT)
    assert list(filter_by_layout(samples, paired=True)) == ["SAMEA0000002", "SAMEA0000010"]
    assert names(filter_by_layout(samples, paired=False, use_only_r1=False)) == {"SAMEA0000003": ["ERR0000005"]}
    first = filter_by_layout(samples, False)
    assert names(first) == ALL and find_library_layout(first) == "SINGLE"
    assert [run.uri for run in first["SAMEA0000002"]] == ["run+fastq@filter_r1://ERR0000003", "run+fastq@filter_r1://ERR0000004"]
    assert first["SAMEA0000003"][0].uri == "run+fastq://ERR0000005"
    assert samples["SAMEA0000002"][0].uri == "run+fastq://ERR0000003", "what was given is as it was"
    assert filter_by_layout(sra_get_samples("ERR0000003"), False)["SAMEA0000002"][0].uri == "run+fastq@sra@filter_r1://ERR0000003"


def test_the_layout_of_most_runs():
    def samples(*layouts):
        return {f"S{place}": [Run(library_layout=layout)] for place, layout in enumerate(layouts)}

    assert find_library_layout(samples("PAIRED", "PAIRED", "SINGLE")) == "PAIRED"
    assert find_library_layout(samples("SINGLE", "", "PAIRED", "SINGLE")) == "SINGLE"
    with pytest.raises(InvalidRequest, match="2 runs are PAIRED and as many SINGLE: choose with filter_by_layout"):
        find_library_layout(samples("PAIRED", "PAIRED", "SINGLE", "SINGLE"))
    with pytest.raises(InvalidRequest, match="there is no run"):
        find_library_layout({})


# --- folders --------------------------------------------------------------------------------------------------------------


def folder(tmp_path, *paths: str) -> str:
    for path in paths:
        (tmp_path / "reads" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "reads" / path).write_text("@r")
    return f"{tmp_path}/reads/"


@pytest.mark.parametrize(
    ("paths", "group_by", "found"),
    [
        (["A/x_1.fastq.gz", "A/x_2.fastq.gz", "B/y_1.fastq.gz", "B/y_2.fastq.gz"], None, {"A": "PP", "B": "PP"}),
        (["A/x_1.fastq.gz", "A/x_2.fastq.gz", "A/x.fastq.gz", "B/y.fastq.gz"], None, {"A": "PPP", "B": "S"}),
        (["A_1.fastq.gz", "A_2.fastq.gz", "B_1.fastq.gz", "B_2.fastq.gz"], None, {"A": "PP", "B": "PP"}),
        (["A.fastq.gz", "B.fastq.gz", "C.fq.gz", "notes.txt"], None, {"A": "S", "B": "S", "C": "S"}),
        (["A.fastq.gz", "A.fastq", "A.fq"], None, {"A": "S"}),
        (["mouse_1.fastq", "mouse_2.fastq", "mouse_3.fastq"], None, {"mouse_1": "S", "mouse_2": "S", "mouse_3": "S"}),
        (["A_R1.fq", "A_R2.fq", "B.R1.fq"], None, {"A": "PP", "B": "S"}),
        (
            [f"A_S1_L00{lane}_{read}_001.fastq.gz" for lane in (1, 2) for read in ("R1", "R2", "I1")],
            None,
            {"A": "PPPP"},
        ),
        ([f"2024/run7/{name}_{mate}.fq.gz" for name in "ABC" for mate in (1, 2)], None, {"A": "PP", "B": "PP", "C": "PP"}),
        (["a/S/x.fq", "b/S/x.fq"], None, {"a_S": "S", "b_S": "S"}),
        (["A/r1_1.fq", "A/r1_2.fq", "A/r2_1.fq", "A/r2_2.fq"], None, {"r1": "PP", "r2": "PP"}),
        (["A/r1_1.fq", "A/r1_2.fq", "A/r2_1.fq", "A/r2_2.fq"], "folder", {"A": "PPPP"}),
        (["d1/A_1.fq", "d1/A_2.fq", "d2/A_1.fq", "d2/A_2.fq"], "name", {"A": "PPPP"}),
        (["x.fq"], "folder", {"reads": "S"}),
    ],
)
def test_the_samples_of_a_folder(tmp_path, paths, group_by, found):
    samples = uri_get_samples(folder(tmp_path, *paths), group_by=group_by)
    assert {sample: "".join(run.library_layout[0] for run in runs) for sample, runs in samples.items()} == found


def test_the_runs_of_a_folder_are_its_files(tmp_path):
    samples = uri_get_samples(folder(tmp_path, "A_1.fq.gz", "A_2.fq.gz", "B.fq.gz"))
    assert [run.uri for run in samples["A"]] == [f"file://{tmp_path}/reads/A_{mate}.fq.gz" for mate in (1, 2)]
    assert [(run.run_accession, run.mate, run.size) for run in samples["A"]] == [("A_1", 1, 2), ("A_2", 2, 2)]
    assert {name: [run.uri[-9:] for run in runs] for name, runs in filter_by_layout(samples, paired=False).items()} == {
        "A": ["A_1.fq.gz"], "B": ["s/B.fq.gz"],
    }  # fmt: skip


def test_endings_of_ones_own(tmp_path):
    uri = folder(tmp_path, "A.bam", "B.fastq.gz")
    assert list(uri_get_samples(uri, ending=".bam", alternate_endings=[])) == ["A"]


@pytest.mark.parametrize(
    ("paths", "options", "kind", "told"),
    [
        (["notes.txt"], {}, NotFound, r"reads/: there are no files below it that end in .fastq.gz, .fastq, .fq.gz, .fq"),
        (["a/b_c/x.fq", "a_b/c/x.fq", "c/x.fq"], {}, InvalidRequest, "two folders in it would be samples of one name"),
        (["A.fq"], {"group_by": "nam"}, InvalidRequest, r"by 'nam' \(did you mean 'name'\?\)"),
    ],
)
def test_folders_that_hold_no_samples(tmp_path, paths, options, kind, told):
    with pytest.raises(kind, match=told):
        uri_get_samples(folder(tmp_path, *paths), **options)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(NotFound, match="there is no such folder"):
        uri_get_samples(f"{tmp_path}/nothing/")


# --- depth ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reads", "paired", "total"),
    [
        ("2x20M", 20_000_000, True, 40_000_000),
        ("10Mx2", 10_000_000, True, 20_000_000),
        ("100Kx1", 100_000, False, 100_000),
        ("1 x 2.5m", 2_500_000, False, 2_500_000),
        ("5000", 5000, None, 5000),
        (5000, 5000, None, 5000),
        ("1_000", 1000, None, 1000),
        ("0.5G", 500_000_000, None, 500_000_000),
    ],
)
def test_depths_as_people_write_them(text, reads, paired, total):
    depth = user_friendly_depth(text)
    assert depth.to_tuple() == (depth.read_number, depth.paired) == (reads, paired) and depth.total_read_number == total


@pytest.mark.parametrize("text", ["", "many", "10x", "x2", "3x20M", "-5", "0", "1.5", "20MM", "2x20Mx2", "2x", "1e6"])
def test_what_is_no_depth(text):
    with pytest.raises(InvalidRequest, match="depth"):
        user_friendly_depth(text)


# --- the price of the import ------------------------------------------------------------------------------------------------


def test_the_import_is_cheap():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, scitq.bio.genetics; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    heavy = {"requests", "urllib3", "boto3", "ssl", "http.client", "concurrent.futures.thread", "csv", "scitq.fetch"}
    assert set(done.stdout.split()) & heavy == set()
