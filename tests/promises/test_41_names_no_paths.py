"""Promise 41: names never become paths: not of tasks, batches, workers, tokens; nor those that archives, reports and listings
tell.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from ena import Archive
from env import PROGRAM
from scitq.transport import Connection
from stores import ACCOUNT, ACCOUNT_KEY, S3

EVIL = [
    "../evil",
    "../../../../tmp/evil-41",
    "/tmp/evil-41",
    "a/../../evil",
    ".",
    "..",
    "evil/",
    "~/evil",
    "$HOME/evil",
    "a\\..\\evil",
]


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", [*EVIL, "", "a b", "-x", "a\nb", "a\0b", "ü", "n" * 101])
def test_a_worker_name_is_a_plain_one_or_none(env, tmp_path, name):
    """On the command line, by the API, and from a server that lies about it."""
    if "\0" not in name:
        before = everything(tmp_path)
        done = env.cli(
            "worker", "http://127.0.0.1:1", "1", f"--name={name}", "--scratch", str(tmp_path / "scratch" / "deep"), timeout=20
        )
        assert done.returncode == 2 and "cannot be the name of a worker" in done.stderr
        assert everything(tmp_path) - before <= {"scratch", "scratch/deep"}
    env.server()
    answer = env.answer("POST", "/workers", {"name": name, "key": "k" * 40, "hostname": "h", "concurrency": 1})
    assert answer.status == 400 and not env.items("/workers")


def test_names_of_tasks_and_batches_are_only_words(env, tmp_path):
    """They run, under names that would lead anywhere, and nothing is made outside of the worker's directory."""
    env.server()
    names = [name for name in EVIL if name]
    worker = env.worker(4, batch="x/../../evil")
    tasks = env.create(
        *({"command": "pwd; printenv SCITQ_TASK_NAME", "shell": "sh", "name": name, "batch": "x/../../evil"} for name in names)
    )
    env.wait_state(tasks)
    for name, task in zip(names, tasks):
        where, told = env.stdout(task).decode().splitlines()
        assert told == name and where.startswith(f"{worker.directory}/executions/")
    assert not [path for path in everything(tmp_path) if "evil" in path] and not Path("/tmp/evil-41").exists()
    row = env.api("GET", f"/batches/{'x%2F..%2F..%2Fevil'}")
    assert row["name"] == "x/../../evil"


@pytest.mark.parametrize(
    "path",
    ["/docs/../../etc/passwd", "/docs/..%2f..%2fetc%2fpasswd", "/docs/%2e%2e/tokens.json", "//etc/passwd", "/..//server.json"],
)
def test_paths_of_requests_are_no_files(env, path):
    env.server()
    with Connection(env.url, env.token) as connection:
        answer = connection.request("GET", path)
    assert answer.status in (400, 404) and b"root:" not in answer.body and b'"pid"' not in answer.body


def test_ids_are_numbers(env):
    env.server()
    for word in ("..", "1%2F..%2F..", "x", "-1", "1e3", "0x1"):
        for noun in ("tasks", "executions", "workers"):
            assert env.answer("GET", f"/{noun}/{word}").status in (400, 404)


@pytest.mark.parametrize("field", ["run", "file", "two dots", "nothing"])
def test_reports_of_archives_name_no_paths(tmp_path, field):
    archive = Archive(tmp_path / "www")
    archive.add("ERR1000001", {"ERR1000001.fastq.gz": b"data"}, "PRJEB1")
    row = archive.runs["ERR1000001"]
    if field == "run":
        row["run_accession"] = "../../evil"
    elif field == "nothing":
        row["run_accession"] = ""
    else:
        row["fastq_ftp"] = {"file": "host/vol1/%2e%2e/", "two dots": "host/vol1/.."}[field]
    try:
        here = tmp_path / "a" / "here"
        here.mkdir(parents=True)
        variables = {"SCITQ_ENA_PORTAL": archive.url, "SCITQ_ENA_HTTPS": archive.url, "SCITQ_SRA_BUCKET": archive.url}
        done = subprocess.run(
            [*PROGRAM, "fetch", "get", "-q", "run+fastq@https://PRJEB1", f"{here}/"],
            capture_output=True, text=True, env={**os.environ, **variables}, timeout=60,
        )  # fmt: skip
    finally:
        archive.close()
    assert done.returncode and "unexpected" not in done.stderr and done.stderr.count("\n") == 1, done
    assert everything(tmp_path / "a") == {"here"}


S3_LIST = (
    "<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>"
    "<Contents><Key>{}</Key><Size>4</Size><LastModified>2026-11-21T00:00:00Z</LastModified></Contents></ListBucketResult>"
)
AZURE_LIST = (
    '<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="http://x/" ContainerName="bucket"><Blobs><Blob>'
    "<Name>{}</Name><Properties><Last-Modified>Sat, 21 Nov 2026 00:00:00 GMT</Last-Modified><Etag>0x1</Etag>"
    "<Content-Length>4</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob></Blobs></EnumerationResults>"
)


@pytest.mark.parametrize(("scheme", "page"), [("s3", S3_LIST), ("azure", AZURE_LIST)])
@pytest.mark.parametrize("key", ["f/../../evil", "f//etc/evil", "f/../../../../../../tmp/evil-41"])
def test_keys_of_objects_lead_nowhere(tmp_path, scheme, page, key):
    """What is refused, is before anything comes."""
    here = tmp_path / "a" / "here"
    here.mkdir(parents=True)
    from test_42_uris_by_workers import Listener

    listener = Listener(body=page.format(key).encode(), kind="application/xml")
    account = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={listener.url};"
    variables = {**S3.variables, "AWS_ENDPOINT_URL": listener.url, "AZURE_STORAGE_CONNECTION_STRING": account}
    try:
        done = subprocess.run(
            [*PROGRAM, "fetch", "get", "-q", f"{scheme}://bucket/f/", f"{here}/"],
            capture_output=True, text=True, env={**os.environ, **variables}, timeout=60,
        )  # fmt: skip
    finally:
        listener.close()
    assert done.returncode == 2 and "would lead out of" in done.stderr, done
    assert everything(tmp_path / "a") == {"here"} and len(listener.asked) == 1


def test_a_file_of_the_worker_that_lies_about_its_name_is_not_believed(env, tmp_path):
    """worker.json is the worker's own; whoever spoils it gets a sentence, not a path."""
    env.server()
    worker = env.worker(1)
    worker.stop()
    path = worker.directory / "worker.json"
    noted = json.loads(path.read_text())
    path.write_text(json.dumps({**noted, "name": "../../evil"}))
    worker.start()
    [task] = env.create({"command": "pwd"})
    env.wait_state(task)
    assert env.stdout(task).decode().startswith(str(worker.directory))
    assert not [path for path in everything(tmp_path) if "evil" in path]
