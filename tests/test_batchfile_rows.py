"""Rows of batch files: their sources, the choice among them, groups, matrices, and names that are none of ours."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ena import PROJECT, Archive, tell_project
from env import ROOT
from scitq.batchtext import batch_text
from scitq.errors import InvalidRequest, NotFound, TransferFailed
from scitq.fetch import ena, inquiry
from scitq.protocol import TaskSpec

from scitq import batchfile

SHEET = "patient,tissue,reads\np1,blood,a.fq\np1,skin,b c.fq\np2,blood,d.fq\np3,skin,\n"


@pytest.fixture
def load(load, tmp_path):
    (tmp_path / "s.csv").write_text(SHEET)
    return load


def commands(file) -> list[str]:
    return [task["command"] for task in file.tasks]


# --- sources ----------------------------------------------------------------------------------------------------------


def test_tables_whatever_their_names(load, tmp_path):
    (tmp_path / "t.txt").write_text("a\tb\n1\t2\n")
    assert commands(load("each: {tsv: t.txt}\ncommand: x {a} {b}\n")) == ["x 1 2"]
    (tmp_path / "t.tsv").write_text("a,b\n1,2\n")
    assert commands(load("each: {csv: t.tsv}\ncommand: x {a} {b}\n")) == ["x 1 2"]


def test_lines(load, tmp_path):
    (tmp_path / "l.txt").write_text("\ufeffone\n\n two words \n")
    assert commands(load("each: {lines: l.txt}\ncommand: x {item:q}\n")) == ["x one", "x 'two words'"]


def test_files_that_match(load, tmp_path):
    for name in ("b.fq.gz", "a.fq.gz", "c.txt", "sub/d.fq.gz", "sub/deep/e.fq.gz"):
        (tmp_path / "reads" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "reads" / name).write_text("")
    text = "each: {glob: '%s'}\ncommand: x {stem} {name} {uri}\n"
    reads = tmp_path / "reads"
    flat = [f"x a a.fq.gz {reads}/a.fq.gz", f"x b b.fq.gz {reads}/b.fq.gz"]
    assert commands(load(text % "reads/*.fq.gz")) == flat
    assert commands(load(text % f"file://{reads}/[ab].fq.gz")) == [line.replace(str(reads), f"file://{reads}") for line in flat]
    assert [line.split()[1] for line in commands(load(text % "reads/**/*.fq.gz"))] == ["a", "b", "d", "e"]
    assert [line.split()[1] for line in commands(load(text % f"file://{reads}/**/?.fq.gz"))] == ["a", "b", "d", "e"]
    assert [line.split()[1] for line in commands(load(text % f"file://{reads}/*/*.fq.gz"))] == ["d"]


@pytest.fixture
def archive(tmp_path, monkeypatch):
    made = Archive(tmp_path / "archive")
    made.root.mkdir()
    for name in ("SCITQ_ENA_PORTAL", "SCITQ_NCBI_EUTILS"):
        monkeypatch.setenv(name, made.url)
    monkeypatch.setattr(inquiry, "PAUSES_SECONDS", (0.01, 0.01, 0.01))
    monkeypatch.setattr(ena, "_answers", {})
    tell_project(made)
    yield made
    made.close()


def test_samples_of_an_archive(archive, load):
    text = (
        f"each: {{samples: {PROJECT}, layout: paired}}\n"
        "input: '{uri}'\nname: '{sample_accession}'\ncommand: x {read_count}\n"
    )
    tasks = load(text).tasks
    assert [task["name"] for task in tasks] == ["SAMEA0000002", "SAMEA0000010"]
    assert tasks[0]["input"] == ["run+fastq://ERR0000003", "run+fastq://ERR0000004"] and tasks[0]["command"] == "x 7000"
    assert len(load(text.replace("layout: paired", "where: {library_layout: [PAIRED, SINGLE]}, limit: 1")).tasks) == 1


@pytest.mark.parametrize(
    "source, kind, message",
    [
        ("PRJEB0000404", NotFound, r"^.*b.yaml:2: .*PRJEB0000404"),
        ("nonsense", InvalidRequest, r"^.*b.yaml:2: .*nonsense"),
        (f"{PROJECT}, from: gsa", InvalidRequest, r"^.*b.yaml:2: samples come from ena or sra, not from 'gsa'"),
        (f"{PROJECT}, where: {{library_layuot: PAIRED}}", InvalidRequest, r"^.*b.yaml:2: .*library_layout"),
    ],
)
def test_samples_that_are_not_there(archive, load, source, kind, message):
    with pytest.raises(kind, match=message):
        load(f"command: x\neach: {{samples: {source}}}\n")


def test_an_archive_that_is_down_is_told_with_the_line(archive, load):
    archive.close()
    with pytest.raises(TransferFailed, match=r"^.*b.yaml:2: "):
        load(f"command: x\neach: {{samples: {PROJECT}}}\n")


# --- which rows -------------------------------------------------------------------------------------------------------


def test_where_and_limit(load):
    text = "each: {csv: s.csv, where: {tissue: %s}, limit: %d}\ncommand: x {patient} {tissue}\n"
    assert commands(load(text % ("skin", 9))) == ["x p1 skin", "x p3 skin"]
    assert commands(load(text % ("[skin, blood]", 2))) == ["x p1 blood", "x p1 skin"]


def test_rows_that_agree_become_one(load):
    text = (
        "each: {csv: s.csv, group: patient, limit: 2}\n"
        "name: 'g-{patient}'\ncommand: x {tissue} {reads:q} {reads:stem}\ninput: ['{reads}', c]\n"
    )
    with pytest.raises(InvalidRequest, match=r"b.yaml:1: row 4 has nothing in the column 'reads' \(patient p3, tissue skin\)$"):
        load(text)
    file = load(text.replace("limit", "where: {patient: [p1, p2]}, limit"))
    assert commands(file) == ["x blood skin a.fq 'b c.fq' a b c", "x blood d.fq d"]
    assert [task["input"] for task in file.tasks] == [["a.fq", "b c.fq", "c"], ["d.fq", "c"]]


def test_groups_of_two_columns_name_their_tasks(load):
    file = load("each: {rows: [{a: 1, b: x, c: 1}, {a: 1, b: y, c: 2}, {a: 1, b: x, c: 3}], group: [a, b]}\ncommand: x {c}\n")
    assert [(task["name"], task["command"]) for task in file.tasks] == [("b-1-1-x", "x 1 3"), ("b-1-1-y", "x 2")]


def test_an_empty_cell_is_wrong_only_where_it_is_used(load):
    assert len(load("each: s.csv\ncommand: x {patient}\n").tasks) == 4
    with pytest.raises(InvalidRequest, match=r"b.yaml:1: row 4 has nothing in the column 'reads'"):
        load("each: s.csv\ncommand: x\nenv: {R: '{reads:q}'}\n")


@pytest.mark.parametrize(
    "each, message",
    [
        ("{csv: s.csv, tsv: s.csv}", r"`each` takes its rows from one source: these are csv, tsv"),
        ("{cvs: s.csv}", r"unknown key 'cvs' \(did you mean 'csv'\?\)"),
        ("{limit: 1}", r"`each` takes its rows from one source: such as rows, table"),
        ("{csv: s.csv, were: {a: b}}", r"unknown key 'were' \(did you mean 'where'\?\)"),
        ("{csv: s.csv, where: {tisue: skin}}", r"no column is named 'tisue' \(did you mean 'tissue'\?\): there are patient, "),
        ("{csv: s.csv, where: {tissue: hair}}", r"no row has tissue hair: there are blood, skin$"),
        ("{csv: s.csv, group: [patent]}", r"no column is named 'patent' \(did you mean 'patient'\?\)"),
        ("{csv: s.csv, limit: 0}", r"`limit` must be 1 or more, not 0"),
        ("{csv: s.csv, limit: x}", r"`limit` must be a whole number, not 'x'"),
        ("{csv: s.csv, layout: PAIRED}", r"`layout` goes with `samples`, not with `csv`"),
        ("{csv: t.csv}", r"the table .*/t.csv cannot be read"),
        ("{csv: ~}", r"`csv` must name where the rows come from"),
        ("{rows: a}", r"`rows` must be a list of rows or values"),
        ("{lines: t.txt}", r"the file .*/t.txt cannot be read"),
        ("{glob: '*.bam'}", r"no file matches \*.bam"),
        ("{glob: 'file:///nowhere/*.bam'}", r"no file matches file:///nowhere/\*.bam"),
        ("{glob: 's3://b/x'}", r"s3://b/x has no \* or \?"),
        ("{samples: [a/, b/]}", r"`samples` takes accessions, or one folder"),
    ],
)
def test_sources_that_are_wrong(load, each, message):
    with pytest.raises(InvalidRequest, match=rf"b.yaml:2: {message}"):
        load(f"command: x\neach: {each}\n")


# --- matrices ---------------------------------------------------------------------------------------------------------


def test_all_combinations_for_each_row(load):
    file = load("each: [x, y]\nmatrix: {k: [1, 2], tool: [bwa, star]}\ncommand: c {item} {k} {tool} {row}\n")
    assert commands(file)[:3] == ["c x 1 bwa 1", "c x 1 star 2", "c x 2 bwa 3"] and len(file.tasks) == 8
    assert [task["name"] for task in file.tasks][:2] == ["b-1-x-1-bwa", "b-1-x-1-star"]


def test_include_and_exclude(load):
    file = load("""
matrix:
  fruit: [apple, pear]
  animal: [cat, dog]
  exclude: [{fruit: pear, animal: dog}]
  include:
  - {color: green}
  - {color: pink, animal: cat}
  - {fruit: apple, shape: circle}
  - {fruit: banana, animal: cat}
  - {fruit: pear, animal: dog, color: red}
command: c {fruit} {animal} {color}/{shape}
""")
    assert commands(file) == [
        "c apple cat pink/circle", "c apple dog green/circle", "c pear cat pink/", "c banana cat /", "c pear dog red/",
    ]  # fmt: skip


def test_a_task_can_do_without_the_matrix(load):
    assert commands(load("matrix: {k: [1, 2]}\ntasks:\n- a {k}\n- {command: b, matrix: ~}\n")) == ["a 1", "a 2", "b"]


@pytest.mark.parametrize(
    "matrix, message",
    [
        ("{k: []}", r"`matrix: k` has no values"),
        ("{k: [1, 1]}", r"`matrix: k` has '1' twice"),
        ("[k]", r"`matrix` must be a mapping of names to values, not a list"),
        ("{k: [1], exclude: [{j: 1}]}", r"`matrix` has no 'j'"),
        ("{tool: [bwa, star], exclude: [{tool: sta}]}", r"'tool' is never 'sta' \(did you mean 'star'\?\)"),
        ("{k: [1], exclude: [{k: 1}]}", r"`matrix` leaves no combination"),
        ("{k: [1], j: [2], include: [{k: 3}]}", r"a combination of its own needs 'j', too"),
        ("{k: [1], include: {k: 2}}", r"`include` must be a list of rows"),
        ("{item: [1]}", r"'item' is in `matrix` and a column of `each`"),
    ],
)
def test_matrices_that_are_wrong(load, matrix, message):
    with pytest.raises(InvalidRequest, match=rf"b.yaml:3: {message}"):
        load(f"command: x\neach: [a]\nmatrix: {matrix}\n")


# --- names that are none of ours --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, text, message",
    [
        ("command", "x {smaple}", r"`command`: there is no \{smaple\} \(did you mean \{sample\}\?\); .* write \{ smaple \}$"),
        ("command", "x {samples:q}", r"there is no \{samples:q\} \(did you mean \{sample\}"),
        ("env", "{A: '{sampl}'}", r"`env`: there is no \{sampl\}"),
        ("name", "'{reads}'", r"`name`: there is no \{reads\}: there are batch, name, row, sample"),
        ("input", "'s3://b/{reads}'", r"`input`: there is no \{reads\}"),
        ("output", "'s3://b/{smple}/'", r"`output`: there is no \{smple\} \(did you mean \{sample\}"),
    ],
)
def test_a_slip_is_told(load, key, text, message):
    with pytest.raises(InvalidRequest, match=message):
        load(f"each: [{{sample: 1}}]\n{key}: {text}\n" + ("" if key == "command" else "command: x\n"))


@pytest.mark.parametrize(
    "text", ["awk '{print}'", "{reads}", "{ smaple }", "${smaple}", "{}", '{"sample": 1}', "{1}", "{next}", "{a,b}"]
)
def test_what_is_the_commands_own_stays(load, text):
    file = load(f"each: [{{sample: 1, printed: 2}}]\ncommand: |-\n  x {text}\n")
    assert commands(file) == [f"x {text}"]


@pytest.mark.parametrize("text", ["{nmae}", "{names:q}", "{reads}", "{batch.x}", "{print}"])
def test_a_batch_comes_back_with_such_names(tmp_path, text):
    spec = TaskSpec(command=f"x {text}", name=f"n {text}", input=[f"s3://b/{text}"], output=f"s3://o/{text}/")
    row = {name: getattr(spec, name) for name in TaskSpec.__dataclass_fields__}
    (tmp_path / "b.yaml").write_text(batch_text("b", [row | {"id": 1}]))
    [task] = batchfile.load(str(tmp_path / "b.yaml")).tasks
    assert {name: task[name] for name in ("command", "name", "input", "output")} == {
        "command": spec.command, "name": spec.name, "input": spec.input, "output": spec.output,
    }  # fmt: skip


def test_a_small_file_loads_nothing_that_asks_stores(tmp_path):
    (tmp_path / "b.yaml").write_text("params: {n: 1}\neach: {csv: s.csv, limit: 1}\nmatrix: {k: [1]}\ncommand: x {n} {k}\n")
    (tmp_path / "s.csv").write_text(SHEET)
    script = """
import sys
from scitq.cli import launch
launch.main(["-f", "b.yaml", "--check"])
heavy = ("requests", "boto3", "botocore", "azure", "sqlite3", "peewee", "scitq.bio", "scitq.fetch")
print(*(name for name in sys.modules if name.startswith(heavy)))
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import scitq\n{script}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "b.yaml: 1 task, fine\n\n", done.stderr
