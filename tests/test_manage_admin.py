"""`scitq manage` for events, tokens, the database, and the doctor."""

from __future__ import annotations

import csv
import io
import json
import re
import stat

import pytest
from env import Env


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A server on which some things have happened."""
    made = Env(tmp_path_factory.mktemp("desk"))
    made.server()
    made.create({"command": "true", "batch": "quiet"})
    made.api("POST", "/batches/quiet/stop", {})
    yield made
    made.close()


def manage(env: Env, *words: str, code: int | None = 0, **options):
    return env.cli("manage", *words, code=code, **options)


def events(env: Env, *words: str) -> list[dict]:
    return json.loads(manage(env, "event", "list", "-o", "json", *words).stdout)


# --- events -----------------------------------------------------------------------------------------------------------------


def test_events_tell_who_did_what_the_newest_last(desk):
    found = events(desk)
    assert [event["action"] for event in found][:3] == ["token.create", "task.create", "batch.stop"]
    assert [event["id"] for event in events(desk, "--reverse")] == [event["id"] for event in reversed(found)]
    lines = manage(desk, "event", "list").stdout.splitlines()
    assert lines[0].split() == ["ID", "AT", "WHO", "ACTION", "OF", "DETAIL"] and "batch.stop" in lines[3] and "quiet" in lines[3]
    assert next(csv.reader(io.StringIO(manage(desk, "event", "list", "-o", "csv").stdout))) == [
        "id", "at", "who", "action", "ids", "detail",
    ]  # fmt: skip


def test_events_are_filtered(desk):
    assert {event["action"] for event in events(desk, "--object", "batch")} == {"batch.stop"}
    who = events(desk)[0]["who"]
    assert events(desk, "--who", who) and not events(desk, "--who", who + "x")
    assert events(desk, "--since", "1h") and not events(desk, "--since", "2099-01-01T00:00")
    assert "neither an age" in manage(desk, "event", "list", "--since", "soon", code=2).stderr
    assert "did you mean 'batch'?" in manage(desk, "event", "list", "--object", "bach", code=2).stderr


def test_the_newest_events_are_shown_and_more_are_to_be_had(desk):
    for _ in range(101):
        desk.api("POST", "/batches/quiet/stop", {})
    newest = events(desk, "--all")[-1]["id"]
    looked = manage(desk, "event", "list", "-o", "ids")
    assert looked.stdout.splitlines() == [str(number) for number in range(newest - 99, newest + 1)]
    assert "--all shows all" in looked.stderr
    assert len(events(desk, "--all")) == len(events(desk, "--since", "1h")) > 100
    assert [event["id"] for event in events(desk, "--limit", "2")] == [newest - 1, newest]


def test_events_are_followed(desk):
    log = desk.start("follow", "manage", "event", "list", "--follow", "--limit", "1", "--object", "batch")
    desk.until(lambda: "batch.stop" in log.output())
    desk.api("POST", "/batches/quiet/go", {})
    desk.until(lambda: "batch.go" in log.output(), what="a new event is written")
    first, second = (line for line in log.output().splitlines() if "quiet" in line)
    assert first.index("batch.stop") == second.index("batch.go") and first.index("quiet") == second.index("quiet")
    log.signal(2)
    assert log.wait_exit() == 130
    assert "jsonl" in manage(desk, "event", "list", "--follow", "-o", "json", code=2).stderr


# --- tokens -----------------------------------------------------------------------------------------------------------------


def test_a_token_is_made_used_listed_and_revoked(desk):
    made = manage(desk, "token", "create", "ann")
    token = made.stdout.strip()
    assert re.fullmatch(r"scitq_[\w-]{43}", token) and made.stdout.count("\n") == 1
    assert "ann (user)" in made.stderr and "--token-file" in made.stderr and token not in made.stderr
    as_ann = {"SCITQ_TOKEN": token, "SCITQ_CONFIG": str(desk.directory / "none")}
    assert manage(desk, "task", "list", "-o", "ids", variables=as_ann).stdout.strip() == "1"
    assert "token" in manage(desk, "token", "list", variables=as_ann, code=4).stderr
    rows = json.loads(manage(desk, "token", "list", "-o", "json").stdout)
    assert [(row["name"], row["role"]) for row in rows][1:] == [("ann", "user")] and "token" not in rows[1]
    assert "give --yes" in manage(desk, "token", "revoke", "ann", code=2).stderr
    assert "would revoke the token of ann" in manage(desk, "token", "revoke", "ann", "-t").stdout
    assert "ann" in manage(desk, "token", "revoke", "ann", "--yes").stdout
    assert manage(desk, "task", "list", variables=as_ann, code=4).stdout == ""


def test_tokens_of_one_name_are_told_apart_by_id(desk):
    for _ in range(2):
        manage(desk, "token", "create", "bob", "--role", "admin")
    ids = [row["id"] for row in json.loads(manage(desk, "token", "list", "-o", "json").stdout) if row["name"] == "bob"]
    assert f"{ids[0]} or {ids[1]}" in manage(desk, "token", "revoke", "bob", "-y", code=1).stderr
    assert manage(desk, "token", "revoke", *map(str, ids), "-y").stdout == f"revoked {ids[0]}, bob\nrevoked {ids[1]}, bob\n"
    assert "there is no token 'bob'" in manage(desk, "token", "revoke", "bob", "-y", code=3).stderr


def test_the_last_administrator_stays(desk):
    told = manage(desk, "token", "revoke", "1", "--yes", code=1).stderr
    assert "last administrator" in told
    assert "did you mean 'admin'?" in manage(desk, "token", "create", "x", "--role", "admn", code=2).stderr
