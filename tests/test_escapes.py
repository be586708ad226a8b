"""Text for a terminal: what is shown, and where escapes are written at all."""

from __future__ import annotations

import os
import pty

import pytest
from scitq.escapes import colored, obeyed, safe


@pytest.fixture
def terminal():
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stream:
        yield stream
    os.close(ours)


def test_control_characters_are_shown():
    assert safe("a\x1b[2J\r\n\u202eé\udcff") == "a\\x1b[2J\\r\\n\\u202eé\\udcff"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, (True, True)),
        ({"NO_COLOR": "1"}, (True, False)),
        ({"NO_COLOR": ""}, (True, True)),
        ({"TERM": "dumb"}, (False, False)),
    ],
)
def test_escapes_are_for_terminals_that_obey_them(terminal, monkeypatch, tmp_path, variables, told):
    for name, value in ({"TERM": "xterm", "NO_COLOR": ""} | variables).items():
        monkeypatch.setenv(name, value)
    assert (obeyed(terminal), colored(terminal)) == told
    with open(tmp_path / "log", "w") as log:
        assert not obeyed(log) and not colored(log)
    assert not obeyed(log) and not obeyed(None)  # closed
