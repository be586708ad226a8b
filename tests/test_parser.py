"""Words on the command line: what is wrong is one line on stderr, with the nearest word that would be right, and exit code 2."""

from __future__ import annotations

import argparse

import pytest
from scitq.cli.parser import OneOf, Parser, SomeOf, number
from scitq.errors import InvalidRequest

from scitq import cli


def parser(**options) -> Parser:
    made = Parser(prog="scitq trial", **options)
    made.add_argument("words", nargs="*")
    made.add_argument("-n", "--name")
    made.add_argument_group("more").add_argument("--limit", type=number(1, 9))
    return made


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--nmae", "x"], "unknown option '--nmae' (did you mean '--name'?)"),
        (["--limt=3"], "unknown option '--limt' (did you mean '--limit'?)"),
        (["--lim", "3"], "unknown option '--lim' (did you mean '--limit'?)"),
        (["-n"], "argument -n/--name: expected one argument"),
        (["--limit", "0"], "'0' is not a whole number from 1 to 9"),
        (["--limit", "x" * 200], "is not a whole number"),
    ],
)
def test_what_is_wrong_is_one_sentence(words, told):
    with pytest.raises(InvalidRequest) as caught:
        parser().parse_args(words)
    assert told in str(caught.value) and "scitq trial -h" in str(caught.value) and len(str(caught.value)) < 200


def test_words_may_stand_anywhere():
    assert parser().parse_args(["a", "-n", "x", "b", "--limit", "3", "c"]) == argparse.Namespace(
        words=["a", "b", "c"], name="x", limit=3
    )


def test_a_value_of_two_dashes():
    assert parser().parse_args(["--name=--", "a"]).name == "--"
    with pytest.raises(InvalidRequest, match="'--' is not a whole number"):
        parser().parse_args(["--limit=--"])


def test_one_word_too_many():
    made = Parser(prog="scitq trial")
    made.add_argument("one", nargs="?")
    with pytest.raises(InvalidRequest, match="one word too many: 'b'"):
        made.parse_args(["a", "b"])


@pytest.mark.parametrize("text", ["", "1.5", "-1", "10", "¹", "٣", "1e3", " 1", "0x1", "9" * 5000])
def test_what_is_no_number(text):
    with pytest.raises(argparse.ArgumentTypeError):
        number(0, 9)(text)


def test_words_that_are_known():
    assert OneOf(("sh", "bash"), "shell")("sh") == "sh"
    assert SomeOf(("a", "b", "c"), "letter")("a, c") == "a,c"
    with pytest.raises(argparse.ArgumentTypeError, match=r"unknown shell 'bsh' \(did you mean 'bash'\?\); there are sh, bash"):
        OneOf(("sh", "bash"), "shell")("bsh")
    with pytest.raises(argparse.ArgumentTypeError, match="unknown letter ''"):
        SomeOf(("a", "b"), "letter")("a,")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["server", "--prot", "5000"], "unknown option '--prot' (did you mean '--port'?)"),
        (["server", "extra"], "one word too many: 'extra'"),
        (["worker", "127.0.0.1", "many"], "'many' is not a whole number from 0 to 100000"),
        (["worker", "127.0.0.1", "2", "--bach", "x"], "unknown option '--bach' (did you mean '--batch'?)"),
        (["worker", "127.0.0.1", "2", "3"], "one word too many: '3'"),
        (["run", "--job", "2", "x.yaml"], "unknown option '--job' (did you mean '--jobs'?)"),
        (["run", "--jobs", "0", "x.yaml"], "'0' is not a whole number from 1 to 10000"),
        (["manage", "tsak", "list"], "unknown object 'tsak' (did you mean 'task'?)"),
        (["manage", "--sever", "x", "task", "list"], "unknown option '--sever' (did you mean '--server'?)"),
    ],
)
def test_every_command_tells_what_is_wrong_in_one_line(capsys, words, told):
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert told in err and err.startswith("scitq: ") and err.count("\n") == 1 and out == ""
