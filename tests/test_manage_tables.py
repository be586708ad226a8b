"""How `scitq manage` shows lists and single things: widths, formats, terminals, and what is not shown as it is."""

from __future__ import annotations

import csv
import io
import json
from argparse import Namespace

import pytest
from scitq.cli.manage import batch, execution, tables, task, worker
from scitq.cli.manage.tables import Column
from scitq.lib.client import PAGE
from terminal import on_terminal

COLUMNS = (
    Column("id", "ID"),
    Column("size", "SIZE", right=True, text=tables.byte_size),
    Column("name", "NAME"),
    Column("more", "MORE", long=True),
)


def options(**given) -> Namespace:
    return Namespace(
        **{"format": "table", "long": False, "no_header": False, "limit": None, "reverse": False, "watch": None} | given
    )


@pytest.fixture
def shown(capsys):
    """What is written of rows."""

    def run(rows, columns=COLUMNS, **given) -> str:
        tables.write(rows, columns, options(**given))
        return capsys.readouterr().out

    return run


# --- tables -----------------------------------------------------------------------------------------------------------


def test_columns_are_aligned(shown):
    rows = [{"id": 7, "size": 12, "name": "a b"}, {"id": 1000, "size": 1500, "name": None}]
    assert shown(rows) == "ID      SIZE  NAME\n7       12 B  a b\n1000  1.5 kB  -\n"
    assert shown(rows, no_header=True) == "7       12 B  a b\n1000  1.5 kB  -\n"


def test_nothing_is_a_header_alone(shown):
    assert shown([]) == "ID  SIZE  NAME\n" and shown([], no_header=True) == ""


def test_rows_are_written_as_they_come(shown, capsys):
    """The first page gives the widths; nothing more is kept."""
    seen = []

    def rows():
        for number in range(3 * PAGE):
            if number == 2 * PAGE:
                seen.append(capsys.readouterr().out.count("\n"))
            yield {"id": number, "size": 0, "name": "x" * (50 if number > PAGE else 1)}

    tables.write(rows(), COLUMNS, options())
    assert seen == [2 * PAGE + 1]


def test_one_long_name_does_not_push_all_columns_away(shown):
    columns = (Column("name", "NAME"), Column("state", "STATE"))
    first, second = shown([{"name": "x" * 500, "state": "a"}, {"name": "y", "state": "b"}], columns, no_header=True).splitlines()
    assert first == "x" * 500 + "  a" and len(second) < 60


def test_details_keep_lines_and_nothing_else(capsys):
    tables.details(
        [{"name": "a\x1b[2Jb", "text": "one\n\ttwo\nthree\n", "no": None}],
        (Column("name", "N"), Column("text", "TEXT"), Column("no", "NO")),
        "table",
    )
    assert capsys.readouterr().out == "N     a\\x1b[2Jb\nTEXT  one\n      \\ttwo\n      three\n"


def test_one_thing_is_an_object_and_several_are_a_list(capsys):
    for things, found in (([{"id": 1}], {"id": 1}), ([{"id": 1}, {"id": 2}], [{"id": 1}, {"id": 2}])):
        tables.details(things, COLUMNS, "json")
        assert json.loads(capsys.readouterr().out) == found


# --- for programs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_is_a_list(shown, count):
    rows = [{"id": number, "name": "ü\n", "more": {"a": [1]}} for number in range(count)]
    assert json.loads(shown(rows, format="json")) == rows
    assert [json.loads(line) for line in shown(rows, format="jsonl").splitlines()] == rows


def test_csv_has_values_and_not_what_is_made_of_them_for_people(shown):
    columns = (*COLUMNS, Column("", "BIG", text=lambda row: "yes", whole=True))
    text = shown([{"id": 1, "size": 2000, "name": 'a,"b\n', "more": ["x"]}], columns, format="csv", long=True)
    assert list(csv.reader(io.StringIO(text))) == [["id", "size", "name", "more"], ["1", "2000", 'a,"b\n', '["x"]']]


@pytest.mark.parametrize(
    "columns", [task.COLUMNS, execution.COLUMNS, batch.COLUMNS, worker.COLUMNS], ids=["task", "execution", "batch", "worker"]
)
def test_no_column_of_a_csv_is_there_twice(columns):
    keys = [column.key for column in columns if column.key]
    assert len(keys) == len(set(keys))


# --- cells ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"exit_code": 0}, "exit 0"), ({"exit_code": 3, "signal": None}, "exit 3"), ({"signal": 9}, "SIGKILL"),
        ({"signal": 999}, "signal 999"),
        ({"reason": "no such command", "exit_code": 127}, "no such command"), ({"exit_code": None}, ""), ({}, ""),
    ],
)  # fmt: skip
def test_how_it_ended(row, text):
    assert task.end(row) == text


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"started_at": None}, ""),
        ({"started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:01:05.2Z"}, "1m05s"),
        ({"started_at": "2026-01-01T00:00:00.5Z", "ended_at": "2026-01-01T00:00:00Z"}, "0.0s"),
        ({"started_at": "2100-01-01T00:00:00Z", "ended_at": None}, "0.0s"),
    ],
)
def test_how_long_it_took(row, text):
    assert task.took(row) == text


def test_a_suspended_one_is_told():
    assert (task.state({"state": "running", "suspended": True}), task.state({"state": "running"})) == ("suspended", "running")


def test_values_without_a_text_of_their_own():
    assert [tables.plain(value) for value in (None, True, False, [1, "a"], {"A": 1, "B": None}, 1.5)] == [
        "",
        "yes",
        "no",
        "1,a",
        "A=1 B=",
        "1.5",
    ]


# --- on a terminal, and where letters are missing ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd(lab):
    """Tasks with long commands and names that are not ASCII."""
    return lab.create(*({"command": f"echo {'x' * 300}", "name": f"größe-{i}", "batch": "crowd"} for i in range(40)))


def test_no_line_is_wider_than_the_terminal(lab, crowd):
    code, seen = on_terminal(lab, "manage", "task", "list", "-b", "crowd", "--limit", "3", columns=70)
    lines = seen.decode().splitlines()
    assert code == 0 and len(lines) == 4 and all(len(line) == 70 and line.endswith("…") for line in lines[1:])
    assert "x" * 300 in on_terminal(lab, "manage", "task", "list", "-b", "crowd", "-o", "wide", columns=70)[1].decode()


def test_letters_that_the_terminal_does_not_know_are_escaped(lab, crowd):
    plain = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    assert r"gr\xf6\xdfe-0" in lab.cli("manage", "task", "list", str(crowd[0]), variables=plain, code=0).stdout
    assert (
        json.loads(lab.cli("manage", "task", "list", str(crowd[0]), "-o", "json", variables=plain, code=0).stdout)[0]["name"]
        == "größe-0"
    )


def test_a_watched_list_fits_its_terminal(lab, crowd):
    words = ("manage", "task", "list", "-b", "crowd", "--watch", "0.5")
    code, seen = on_terminal(lab, *words, lines=10, interrupt_at="größe-6".encode())
    assert code == 130 and "größe-7" not in seen.decode() and seen.startswith(b"\x1b[H\x1b[2J")
