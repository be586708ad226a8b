"""Promise 33: hostile names are stored and shown exactly, or refused; they reach no shell, no path and no HTML.

Names of files as every place lists them, there and back; names of tasks, batches and workers, in tables, JSON and answers.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from pathlib import Path

import pytest
from env import PROGRAM
from services import Ftp
from stores import S3, Azure, Variables

MARK = Path("/tmp/evil-33")
FILES = [
    "a b", "'", '"', "`touch /tmp/evil-33`", "$(touch /tmp/evil-33)", "; touch /tmp/evil-33", "| touch \\tmp", "a|untar",
    "a|mv:x",
    "-rf", "--help", "~", "#", "%41", "%2e%2e", "?x=1", "&", "*", "[a-z]", "\\n", "<b>x</b>", "ü", "日本語", "🧬", "e\u0301",
    "ctrl\x1b[31m",
    "tab\there", "new\nline", "cr\rhere", "x" * 255, "ü" * 127, "deep/-x/$(id)", ".hidden", "...", "a:b", "s3:", "http:", "@x",
]  # fmt: skip
RAW = [b"\xff\xfe", b"latin-\xe9", b"cut-\xc3"]  # no UTF-8
NO_LINE = [name for name in FILES if not {"\n", "\r"} & set(name)]


def fetch(*words, **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*PROGRAM, "fetch", *map(os.fsencode, map(str, words))],
        capture_output=True,
        text=True,
        timeout=60,
        errors="surrogateescape",
        **more,
    )


def made(folder: Path, names: list[str]) -> dict[str, bytes]:
    """Files of these names, each with its own content."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{number}".encode())
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def nothing_ran():
    MARK.unlink(missing_ok=True)
    yield
    assert not MARK.exists(), "a name was run"


def there_and_back(tmp_path: Path, uri: str, names: list[str]) -> None:
    """All of them to the place, to another folder of it, and back, as they were."""
    wanted = made(tmp_path / "source", names)
    for words in (["put", "-q", tmp_path / "source", uri + "one/"], ["copy", "-q", uri + "one/", uri + "two/"],
                  ["get", "-q", uri + "two/", f"{tmp_path}/back/"],
                  ["sync", "-q", uri + "one/", f"{tmp_path}/synced/"]):  # fmt: skip
        done = fetch(*words)
        assert done.returncode == 0, (words, done.stderr)
    assert contents(tmp_path / "back") == contents(tmp_path / "synced") == wanted


def test_files_of_this_machine(tmp_path):
    names = [*FILES, *map(os.fsdecode, RAW)]
    there_and_back(tmp_path, f"file://{tmp_path}/place/", names)
    done = fetch("list", f"{tmp_path}/place/one/")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == len(names), "a name is one line"
    assert "\x1b" not in done.stdout and "\\x1b[31m" in done.stdout
    assert len(fetch("nrlist", f"{tmp_path}/place/one/").stdout.splitlines()) == len(names)


@pytest.mark.parametrize("plain", [False, True])
def test_files_of_ftp_servers(tmp_path, plain):
    (tmp_path / "served").mkdir()
    server = Ftp(tmp_path / "served", plain=plain)
    names = [name for name in NO_LINE if not name.startswith(("x" * 9, "ü" * 9))]  # the server's own limits
    try:
        there_and_back(tmp_path, server.writable, names)
        for name in ("new\nline", "cr\rhere", os.fsdecode(RAW[0])):
            folder = tmp_path / f"refused{len(name)}"
            made(folder, [name])
            done = fetch("put", "-q", folder, server.writable + "three/")
            assert done.returncode and "unexpected" not in done.stderr and done.stderr.count("\n") == 1, done
    finally:
        server.close()


@pytest.mark.parametrize(
    ("kind", "uri", "refused"),
    [(S3, "s3://bucket/", [os.fsdecode(RAW[0])]), (Azure, "azure://bucket/", [os.fsdecode(RAW[0]), "back\\slash"])],
)
def test_objects(tmp_path, kind, uri, refused):
    server = kind(tmp_path / "store")
    variables = Variables(server.variables)
    taken = [name for name in NO_LINE if not name.startswith(("x" * 9, "ü" * 9, "ctrl"))]  # by the server's own disk, and by XML
    try:
        there_and_back(tmp_path, uri, [name for name in taken if kind is S3 or "\\" not in name])
        for number, name in enumerate(refused):
            made(tmp_path / f"raw{number}", [name])
            done = fetch("put", "-q", tmp_path / f"raw{number}", f"{uri}three/")
            assert done.returncode and "unexpected" not in done.stderr and done.stderr.count("\n") == 1, done
        assert fetch("list", f"{uri}three/").stdout == ""
    finally:
        variables.restore()
        server.close()


@pytest.mark.parametrize("name", ["..", ".", "a/../b", "../other/b", "a/./b"])
def test_blobs_of_another_name_are_not_asked_for(tmp_path, name):
    """What carries the names to the server would take them for a way."""
    account = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=c2VjcmV0;BlobEndpoint=http://127.0.0.1:1/a;"
    done = fetch("info", f"azure://bucket/{name}", env={**os.environ, "AZURE_STORAGE_CONNECTION_STRING": account})
    assert done.returncode == 2 and "no blob can have a name" in done.stderr, done


def test_names_that_no_disk_takes_are_told(tmp_path):
    (tmp_path / "f").write_text("x")
    done = fetch("get", "-q", tmp_path / "f", tmp_path / ("n" * 300))
    assert done.returncode == 1 and "name too long" in done.stderr and "unexpected" not in done.stderr


# --- on a worker ------------------------------------------------------------------------------------------------------


def test_inputs_resources_and_outputs_of_tasks(env, tmp_path):
    names = [*FILES, *map(os.fsdecode, RAW)]
    wanted = made(tmp_path / "in", names)
    env.server()
    env.worker(2)
    folder = f"file://{tmp_path}/in/"
    [task] = env.create({"command": 'cp -r "$INPUT/." "$OUTPUT/in"; cp -r "$RESOURCE/." "$OUTPUT/res"', "shell": "sh",
                         "input": [folder], "resource": [folder],
                         "output": f"file://{tmp_path}/out $(touch {MARK})/"})  # fmt: skip
    env.wait_state(task)
    out = tmp_path / f"out $(touch {MARK})"
    assert contents(out / "in") == contents(out / "res") == wanted


# --- names of tasks, batches and workers ------------------------------------------------------------------------------

LINES = [name for name in FILES if not set(name) & {"\n", "\r", "\t", "\x1b"}] + [
    "<script>alert(1)</script>",
    "' OR 1=1 --",
    "=1+1",
    "\u202eright",
    "#1",
]


def test_names_of_tasks_and_batches(env_on_each):
    """Exactly as they were given in JSON, CSV and answers; in a table without what orders a terminal about."""
    env = env_on_each
    env.server()
    env.worker(1, batch="there")
    tasks = env.create(
        *({"command": 'printf %s "$SCITQ_TASK_NAME"', "shell": "sh", "name": name, "batch": name} for name in LINES)
    )
    rows = {row["id"]: row for row in env.items("/tasks", ids=tasks)}
    assert [(rows[task]["name"], rows[task]["batch"]) for task in tasks] == [(name, name) for name in LINES]
    assert {row["name"] for row in env.items("/batches")} >= set(LINES)
    told = json.loads(env.cli("manage", "task", "list", "--format", "json", code=0).stdout)
    assert {row["name"] for row in told} == set(LINES)
    table = csv.DictReader(io.StringIO(env.cli("manage", "task", "list", "--format", "csv", code=0).stdout))
    assert len(list(table)) == len(LINES)
    done = env.cli("manage", "task", "list", code=0)
    assert "\u202e" not in done.stdout and "\x1b" not in done.stdout and len(done.stdout.splitlines()) == len(LINES) + 1
    env.api("POST", "/tasks/edit", {"ids": tasks, "set": {"batch": "there"}})
    env.wait_state(tasks)
    assert [env.stdout(task).decode() for task in tasks] == LINES
    for path in ("/docs", "/openapi.json", "/api/v1/tasks", "/api/v1/events"):
        answer = env._connection.request("GET", path)
        kind = next(value for name, value in answer.headers.items() if name.lower() == "content-type")
        assert "html" not in kind or b"<script>alert(1)" not in answer.body


@pytest.mark.parametrize("name", ["new\nline", "cr\rhere", "ctrl\x1b[31m", "nul\0", "half\ud800", "sep\u2028", "x" * 1001, ""])
def test_names_that_break_lines_are_refused(env, name):
    env.server()
    for body in ({"name": name}, {"batch": name}):
        answer = env.answer(
            "POST", "/tasks", json.dumps({"command": "true", **body}).encode(), headers={"Content-Type": "application/json"}
        )
        assert answer.status == 400 and json.loads(answer.body)["error"]["field"] in body
    assert not env.items("/tasks")
