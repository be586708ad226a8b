"""`scitq manage` for events, tokens, the database, and the doctor."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shlex
import sqlite3
import subprocess
from pathlib import Path

import pytest
from env import PROGRAM, Env
from hands import Hands
from scitq.cli.manage.event import KINDS
from scitq.store import Store, migrations, upkeep
from scitq.store.schema import VERSION

ROOT = Path(__file__).resolve().parent.parent
UP_TO_DATE = f"the database is up to date, at schema {VERSION}\n"


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


# --- events -----------------------------------------------------------------------------------------------------------


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


def test_every_kind_of_event_can_be_asked_for(desk):
    sources = "".join(path.read_text() for path in (ROOT / "scitq_pkg").rglob("*.py"))
    written = set(re.findall(r"""events\.add\(\s*tx, [^,]+, f?[a-z"'._{}-]+, "([a-z]+)",""", sources))
    assert written == set(KINDS)
    assert events(desk, "--object", "recruiter") == []


def test_a_time_is_of_the_zone_that_tables_show(desk):
    here = {"TZ": "XYZ-5"}  # five hours ahead
    shown = manage(desk, "event", "list", "--limit", "1", "-H", variables=here).stdout.split()
    newest = f"{shown[1]}T{shown[2]}"
    assert newest.endswith("+05:00")
    for typed in (newest[:-6], newest, manage(desk, "event", "list", "--limit", "1", "-o", "csv", "-H").stdout.split(",")[1]):
        since = manage(desk, "event", "list", "--since", typed, "-o", "ids", variables=here)
        assert since.stdout.split()[-1:] == shown[:1], typed
    behind = {"TZ": "XYZ+5"}
    assert manage(desk, "event", "list", "--since", newest[:-6], "-o", "ids", variables=behind).stdout == ""
    assert manage(desk, "task", "list", "--since", newest[:-6], "-o", "ids", variables=behind).stdout == ""
    assert manage(desk, "task", "list", "--since", "1h", "-o", "ids", variables=behind).stdout == "1\n"


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


def test_who_follows_events_ends_with_its_reader(desk):
    line = shlex.join([*PROGRAM, "manage", "event", "list", "--follow", "--limit", "1"]) + " | head -n 1"
    done = subprocess.run(["bash", "-c", line + "; exit ${PIPESTATUS[0]}"], env=desk.variables, capture_output=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith(b"ID") and done.stderr == b""


# --- tokens -----------------------------------------------------------------------------------------------------------


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


# --- the database -----------------------------------------------------------------------------------------------------


def test_a_backup_is_told_checked_and_served(desk):
    made = manage(desk, "db", "backup")
    path = Path(made.stdout.strip())
    assert path.is_file() and re.search(r"\d kB, on the machine of the server", made.stderr)
    assert manage(desk, "db", "check", str(path)).stdout.startswith(f"{path} is whole: 1 task, ")
    restored = desk.server(name="restored", database=f"sqlite:///{path}")
    told = manage(desk, "-s", restored.url, "task", "list", "-o", "ids", variables={"SCITQ_TOKEN": desk.token})
    assert told.stdout == "1\n"
    restored.stop()


def test_a_backup_of_postgresql_is_left_to_pg_dump(tmp_path, postgres):
    made = Env(tmp_path, postgres.new_database())
    try:
        made.server()
        assert "pg_dump" in manage(made, "db", "backup", code=1).stderr
        assert manage(made, "db", "upgrade", "--database", made.database).stdout == UP_TO_DATE
    finally:
        made.close()
    assert "no scitq database" in manage(made, "db", "upgrade", "--database", postgres.new_database(), code=3).stderr
    assert "pg_amcheck" in manage(made, "db", "check", "--database", made.database, code=2).stderr


def test_a_database_in_use_is_checked_and_not_upgraded(desk):
    data = str(desk.directory / "server")
    told = manage(desk, "db", "check", "--data", data).stdout
    assert "is whole: 1 task, " in told and re.search(r"\d{3} kB", told)  # what is still in its log counts
    assert "another scitq server has" in manage(desk, "db", "upgrade", "--data", data, code=1).stderr


@pytest.fixture
def old(tmp_path):
    """A database at rest."""
    path = tmp_path / "old.db"
    Store.open(f"sqlite:///{path}", tmp_path).close()
    return path


def sql(path: Path, words: str, *values) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(words, values)


def test_upgrade_tells_from_where_to_where(old, monkeypatch):
    newer = VERSION + 1
    monkeypatch.setattr(migrations, "VERSION", newer)
    monkeypatch.setattr(upkeep, "VERSION", newer)
    monkeypatch.setattr(migrations, "STEPS", {newer: lambda tx: tx.run("CREATE TABLE newer (id INTEGER)")})
    assert upkeep.upgrade(f"sqlite:///{old}", old.parent) == (VERSION, newer)
    assert upkeep.upgrade(f"sqlite:///{old}", old.parent) == (newer, newer)
    sql(old, "INSERT INTO newer VALUES (1)")


def test_upgrade_refuses_what_it_cannot_do(desk, old, tmp_path):
    url = ["--database", f"sqlite:///{old}"]
    assert manage(desk, "db", "upgrade", *url).stdout == UP_TO_DATE
    sql(old, "UPDATE setting SET value = '99' WHERE name = 'schema'")
    told = manage(desk, "db", "upgrade", *url, code=1).stderr
    assert f"has schema 99, this program knows {VERSION}" in told
    (tmp_path / "text.db").write_text("no database at all, but some text" * 100)
    assert (
        "not a usable SQLite database"
        in manage(desk, "db", "upgrade", "--database", f"sqlite:///{tmp_path}/text.db", code=2).stderr
    )
    assert "there is no database" in manage(desk, "db", "upgrade", "--data", str(tmp_path / "none"), code=3).stderr
    assert not (tmp_path / "none").exists()
    sql(tmp_path / "other.db", "CREATE TABLE mine (id INTEGER)")
    before = (tmp_path / "other.db").read_bytes()
    assert (
        "not a database of scitq" in manage(desk, "db", "upgrade", "--database", f"sqlite:///{tmp_path}/other.db", code=2).stderr
    )
    assert (tmp_path / "other.db").read_bytes() == before


def test_check_finds_damage(desk, old):
    with open(old, "r+b") as file:  # the last page of some table or index
        file.seek(-4096, os.SEEK_END)
        file.write(b"\xff" * 4096)
    told = manage(desk, "db", "check", str(old), code=1)
    assert told.stdout and "is damaged: restore a backup" in told.stderr
    assert "there is no database" in manage(desk, "db", "check", str(old) + "x", code=3).stderr


# --- the doctor -------------------------------------------------------------------------------------------------------


def checked(env: Env, *words: str, code: int = 0, **options) -> dict[str, list[tuple[str, str]]]:
    """Check -> level and what it says, for each finding."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in json.loads(manage(env, *words, "doctor", "-o", "json", code=code, **options).stdout):
        found.setdefault(row["check"], []).append((row["level"], f"{row['says']}: {row['do']}"))
    return found


def test_the_doctor_finds_nothing_wrong(env):
    env.server()
    env.worker()
    told = manage(env, "doctor")
    assert all(line.startswith("ok    ") for line in told.stdout.splitlines() if "disk" not in line), told.stdout
    assert set(checked(env)) - {"disk"} == {
        "program", "cache", "config", "parts", "server", "version", "token", "clock", "workers", "batches",
    }  # fmt: skip


def test_the_doctor_tells_what_is_wrong_on_the_server(env):
    env.server()
    env.create(
        {"command": "true", "batch": "nobody's"}, {"command": "true", "batch": "asleep"}, {"command": "true", "batch": "held"}
    )
    env.api("POST", "/batches/asleep/stop", {})
    assert ("warn", f"there is none: scitq worker {env.url}") in checked(env)["workers"]
    Hands(env, "ill", "Default").sync(problem="its disk is full")
    Hands(env, "idle", "held", concurrency=0).sync()
    found = checked(env, code=1)
    assert ("FAIL", "ill takes no work: its disk is full") in found["workers"]
    assert any(level == "warn" and "of another version than this" in says for level, says in found["workers"])
    whys = ["no worker is there for them", "it is stopped: scitq manage batch go asleep", "its workers have no slots"]
    for name, why in zip(["nobody's", "asleep", "held"], whys):
        assert any(f"1 task of {name} waits, and {why}" in says for _, says in found["batches"]), found["batches"]


def test_the_doctor_goes_on_without_a_server(env):
    server = env.server()
    (env.directory / "config" / "tokens.json").chmod(0o644)
    (env.directory / "config").chmod(0o777)
    found = checked(env, code=1)
    assert [level for level, _ in found["config"]] == ["FAIL", "FAIL"] and "chmod 600" in found["config"][1][1]
    (env.directory / "config").chmod(0o700)
    (env.directory / "config" / "tokens.json").chmod(0o600)
    assert checked(env, code=1, variables={"SCITQ_TOKEN": "wrong"})["token"][0][0] == "FAIL"
    server.stop()
    (level, says), *more = checked(env, code=1)["server"]
    assert level == "FAIL" and "connection refused" in says and not more
