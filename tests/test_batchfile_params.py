"""Parameters of batch files, `--set` and `--check`."""

from __future__ import annotations

import pytest
from env import ROOT
from scitq.cli import launch, run
from scitq.errors import InvalidRequest

FILE = """
params:
  threads: {type: int, default: 4}
  tool: {choices: [bwa, star], default: bwa}
  ref: {type: path, default: refs/hg38.fa}
  into: {type: uri, default: 's3://b/o/'}
  limit: {type: duration, default: 2h}
  fast: {type: bool, default: no}
  share: {type: float, default: 0.50}
  project: demo
batch: 'p-{project}'
run_timeout: '{limit}'
output: '{into}{item}/'
each: [a, b]
command: '{tool} -t {threads} {ref:q} {fast} {share} {item}'
"""


@pytest.fixture
def load(load):
    return lambda text, **params: load(text, params=params)


def test_defaults_are_replaced_everywhere(load, tmp_path):
    file = load(FILE)
    assert file.batch == "p-demo"
    assert file.tasks[0] == {
        "name": "b-1-a", "batch": "p-demo", "run_timeout": 7200.0, "output": "s3://b/o/a/",
        "command": f"bwa -t 4 {tmp_path}/refs/hg38.fa false 0.50 a",
    }  # fmt: skip


def test_what_is_set_goes_before_the_defaults(load, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    file = load(FILE, threads=8, tool="star", ref="x.fa", fast=True, project="two words")
    assert (file.batch, file.tasks[1]["command"]) == ("p-two words", "star -t 8 /x.fa true 0.50 b")


def test_a_parameter_chooses_the_rows(load, tmp_path):
    (tmp_path / "t.csv").write_text("n\n1\n2\n3\n")
    text = "params: {sheet: x.csv, n: 3}\neach: {csv: '{sheet}', limit: '{n}'}\nmatrix: {k: ['{n}', 9]}\ncommand: 'c {n2}{k}'\n"
    text = text.replace("{n2}", "").replace("csv: '{sheet}'", "csv: '{sheet}', where: {m: '{n}'}")
    (tmp_path / "t.csv").write_text("m\n2\n3\n")
    assert [task["command"] for task in load(text, sheet="t.csv").tasks] == ["c 3", "c 9"]


@pytest.mark.parametrize(
    "given, message",
    [
        ({"threads": "x"}, r"^--set threads=x: 'threads' must be a whole number, not 'x' \(.*b.yaml:3\)$"),
        ({"thread": "4"}, r"^--set thread=4: no parameter is named 'thread' \(did you mean 'threads'\?\): there are threads, "),
        ({"tool": "bwaa"}, r"must be one of bwa, star, not 'bwaa' \(did you mean 'bwa'\?\)"),
        ({"into": "here"}, r"'into' must be a URI such as s3://bucket/folder/, not 'here'"),
        ({"ref": "s3://a/b"}, r"'ref' must be the path of a file or folder, not 's3://a/b'"),
        ({"limit": "soon"}, r"'limit' must be a duration such as "),
        ({"fast": "maybe"}, r"'fast' must be true or false, not 'maybe'"),
        ({"share": "nan"}, r"'share' must be a number, not 'nan'"),
    ],
)
def test_what_is_set_wrongly(load, given, message):
    with pytest.raises(InvalidRequest, match=message):
        load(FILE, **given)


@pytest.mark.parametrize(
    "text, message",
    [
        ("params: {n: {type: int, default: x}}\n", r"b.yaml:1: the default of 'n' must be a whole number, not 'x'$"),
        ("params: {n: {choices: [a], default: b}}\n", r"b.yaml:1: the default of 'n' must be one of a, not 'b'"),
        ("params:\n  a: 1\n  n: {type: itn}\n", r"b.yaml:3: no parameter is of the type 'itn' \(did you mean 'int'\?\)"),
        ("params: {n: {typ: int}}\n", r"b.yaml:1: unknown key 'typ' \(did you mean 'type'\?\)"),
        ("params:\n  n: {help: how many}\n",
         r"b.yaml:2: the parameter 'n' \(how many\) has no default: give it, as --set n=\.\.\.$"),
        ("params:\n  n:\n", r"b.yaml:2: the parameter 'n' has no default"),
        ("params: {name: x}\n", r"b.yaml:1: a parameter cannot be named 'name': \{name\} is built in"),
        ("params: {a b: x}\n", r"b.yaml:1: 'a b' cannot name a parameter"),
        ("params: [x]\n", r"b.yaml:1: `params` must be a mapping of names to values, not a list"),
        ("params: {item: x}\neach: [1]\n", r"b.yaml:2: 'item' is a column here and a parameter at line 1: rename one$"),
        ("params: {k: x}\nmatrix: {k: [1]}\n", r"b.yaml:2: 'k' is a column here and a parameter at line 1"),
        ("params: {sheet: x}\neach: {csv: '{shet}'}\n", r"b.yaml:2: there is no \{shet\} \(did you mean \{sheet\}\?\)$"),
        ("params: {project: x}\nbatch: '{projct}'\n",
         r"b.yaml:2: `batch`: there is no \{projct\} \(did you mean \{project\}\?\)$"),
    ],
)  # fmt: skip
def test_parameters_that_are_wrong(load, text, message):
    with pytest.raises(InvalidRequest, match=message):
        load(text + "command: x\n")


def test_a_file_without_parameters_takes_none(load):
    with pytest.raises(InvalidRequest, match=r"--set a=1: no parameter is named 'a': .*b.yaml has no `params`"):
        load("command: x\n", a=1)


EXAMPLE = str(ROOT / "examples" / "params.yaml")


@pytest.mark.parametrize("command", [[run.main, EXAMPLE], [launch.main, "-f", EXAMPLE]])
def test_the_command_lines(command, capsys):
    main, *words = command
    assert main([*words, "--check"]) == 0
    assert capsys.readouterr().out == f"{EXAMPLE}: 1 task, fine\n"
    assert main([*words, "--dry-run", "--set", "words=3", "--set", "order=tac"]) == 0
    assert "| tac | xargs -n 3 >" in capsys.readouterr().out
    for wrong, message in (("words=x", "must be a whole number"), ("words", "KEY=VALUE")):
        with pytest.raises(InvalidRequest, match=message):
            main([*words, "--check", "--set", wrong])


@pytest.mark.parametrize(
    "main, words", [(run.main, ["--check", "--", "x"]), (launch.main, ["--check", "x"]), (launch.main, ["--set", "a=1", "x"])]
)
def test_commands_have_no_parameters(main, words):
    with pytest.raises(InvalidRequest, match="batch files|goes with -f"):
        main(words)
