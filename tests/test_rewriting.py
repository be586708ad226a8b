"""Regular expressions on many texts, in a process that is ended when it takes too long."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest
from env import PROGRAM
from hypothesis import given, settings
from hypothesis import strategies as st
from scitq.errors import InvalidRequest

from scitq import rewriting


def changed(texts: list[str], pattern: str, replacement: str, count: int = 0) -> dict[int, str]:
    return rewriting.rewritten(dict(enumerate(texts)), pattern, replacement, count)


def test_what_changes_is_told_and_nothing_else():
    assert changed(["a b a", "b", "ü a\n\ta"], "a", "x") == {0: "x b x", 2: "ü x\n\tx"}
    assert changed(["a b a", "aA"], "(?i)a", r"<\g<0>>", count=1) == {0: "<a> b a", 1: "<a>A"}
    assert changed(["k=1 v=2"], r"(\w)=(\d)", r"\2=\1") == {0: "1=k 2=v"}
    assert changed([], "a", "b") == {} and changed(["a"], "a", "a") == {}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=20))
def test_texts_of_any_letters_come_back_as_they_are(texts):
    expected = {number: text + "." for number, text in enumerate(texts)}
    assert changed(texts, r"\Z", ".") == expected


@pytest.mark.parametrize(
    ("pattern", "replacement", "field", "told"),
    [
        ("(", "", "pattern", "'(' is no regular expression"),
        ("a{99999999999999999999}", "", "pattern", "is no regular expression"),
        ("b", r"\1", "replacement", "is no replacement"),
        ("b", r"\g<x>", "replacement", "is no replacement"),
        ("a", "", "replacement", "task 0 would have a command that is empty"),
        ("a", r"\0", "replacement", "holds a NUL"),
        ("", "x" * 1_000_000, "replacement", "longer than 1000000"),
    ],
)
def test_what_is_wrong_is_told(pattern, replacement, field, told):
    with pytest.raises(InvalidRequest, match=re.escape(told)) as caught:
        changed(["a"], pattern, replacement)
    assert caught.value.field == f"sub.{field}" and len(str(caught.value)) < 250


def test_what_takes_years_is_ended(monkeypatch):
    monkeypatch.setattr(rewriting, "LONGEST_SECONDS", 1)
    with pytest.raises(InvalidRequest, match="takes longer than 1 s on 1 command:"):
        changed(["a" * 60 + "!"], "(a+)+$", "b")


def test_memory_is_bounded():
    with pytest.raises(InvalidRequest, match="would be put into the commands"):
        changed(["a"] * 30, "a", "x" * 1_000_000)


def test_left_alone_it_ends_by_itself():
    """Should the server be killed meanwhile."""
    request = '{"texts": [[1, "%s!"]], "pattern": "(a+)+$", "replacement": "", "count": 0}' % ("a" * 60)
    done = subprocess.run([*PROGRAM, "rewrite", "1"], input=request.encode(), capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGXCPU and done.stdout == b""
