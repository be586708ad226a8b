"""Uploads of several parts to S3 that were broken off: gone on with by the next try, or taken back; none stays for ever."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from env import PROGRAM
from relay import Relay
from scitq.errors import TransferFailed
from scitq.fetch import copy, put, s3, s3client, transfer
from scitq.fetch.schemes import scheme_of
from scitq.fetch.uri import Uri
from stores import S3, Swift, Variables, forget

MIB = 2**20
BUCKET = "bucket"


ENOUGH = 65 * MIB  # bytes of four parts at once, of which one must be whole then


@pytest.fixture(scope="module", params=[S3, pytest.param(Swift, marks=pytest.mark.slow)])
def server(request, tmp_path_factory):
    made = request.param(tmp_path_factory.mktemp("s3"))
    yield made
    made.close()


@pytest.fixture
def line(server, tmp_path, monkeypatch):
    """A line to the server that can fall silent; notes in a folder of the test's own."""
    variables = Variables(server.variables)
    relay = Relay(server.variables["AWS_ENDPOINT_URL"])
    os.environ.update(AWS_ENDPOINT_URL=relay.url, SCITQ_CACHE=str(tmp_path / "cache"))
    forget()
    monkeypatch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.01)
    yield relay
    relay.close()
    variables.restore()


def sized(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(MIB) * (size // MIB))
    return path


def begun(server) -> dict[str, list[int]]:
    """Uploads that are neither complete nor taken back: their objects, and the parts that are there."""
    try:
        found = server.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return {one["Key"]: parts(server, one["Key"], one["UploadId"]) for one in found}
    except server.client.exceptions.NoSuchUpload:  # rclone's word for none at all, and for one that has just ended
        return {}


def parts(server, key: str, upload: str) -> list[int]:
    answer = server.client.list_parts(Bucket=BUCKET, Key=key, UploadId=upload)
    return [part["PartNumber"] for part in answer.get("Parts", [])]


def lose(line) -> None:
    """The server is gone."""
    line.refusing = True
    line.cut()


def stored(server, key: str) -> bytes:
    return server.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()


def saves(server, line) -> bool:
    """Whether a part was not sent again. rclone's server may have lost count of one that was cut off; then all is sent anew."""
    return line.passed["up"] < 90 * MIB or not isinstance(server, Swift)


def notes(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").glob("uploads/*")]


@contextlib.contextmanager
def sending(server, line, path: Path, key: str) -> Iterator[subprocess.Popen]:
    """A process that sends a file, and cannot go on when the server has some of it."""
    line.most["up"] = ENOUGH
    process = subprocess.Popen([*PROGRAM, "fetch", "put", "-q", str(path), f"s3://{BUCKET}/{key}"])
    try:
        _until(lambda: begun(server).get(key))
        yield process
    finally:
        process.kill()
        process.wait()
        line.cut()  # nothing of it arrives later
        line.mend()


def killed(server, line, path: Path, key: str) -> None:
    """Sends a file by a process that is killed when the server has some of it."""
    with sending(server, line, path, key):
        pass
    assert begun(server)[key]


def test_the_next_try_goes_on_where_it_was(server, line, tmp_path):
    path = sized(tmp_path / "big", 96 * MIB)
    killed(server, line, path, "again")
    assert notes(tmp_path)
    put(path, f"s3://{BUCKET}/again")
    assert stored(server, "again") == path.read_bytes() and saves(server, line)
    assert begun(server) == {} and notes(tmp_path) == []


def test_parts_that_are_not_as_sent_are_sent_anew(server, line, tmp_path):
    """What a killed process was sending can reach the server after the same part of the next one."""
    path = sized(tmp_path / "big", 96 * MIB)
    killed(server, line, path, "late")
    tried: list[str] = []

    def differ(params, **_) -> None:
        tried.append(params["UploadId"])
        if len(tried) == 1:
            params["MultipartUpload"]["Parts"][1]["ETag"] = f'"{"0" * 32}"'

    scheme_of(Uri.of(f"s3://{BUCKET}/"))._client.meta.events.register("before-parameter-build.s3.CompleteMultipartUpload", differ)
    put(path, f"s3://{BUCKET}/late")
    assert len(set(tried)) == 2, "another upload"
    assert stored(server, "late") == path.read_bytes() and begun(server) == {} and notes(tmp_path) == []


def test_parts_of_another_content_are_taken_back(server, line, tmp_path):
    path = sized(tmp_path / "big", 96 * MIB)
    killed(server, line, path, "changed")
    before = path.stat()
    path.write_bytes(os.urandom(MIB) * 96)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    put(path, f"s3://{BUCKET}/changed")
    assert stored(server, "changed") == path.read_bytes() and begun(server) == {} and notes(tmp_path) == []


def test_what_nobody_sends_again_is_taken_back_a_day_later(server, line, tmp_path):
    other = sized(tmp_path / "other", 17 * MIB)
    killed(server, line, sized(tmp_path / "big", 96 * MIB), "never-again")
    put(other, f"s3://{BUCKET}/other")
    assert list(begun(server)) == ["never-again"], "it may yet be"
    (note,) = notes(tmp_path)
    os.utime(note, (time.time() - 25 * 3600,) * 2)
    forget()  # each process looks once
    put(other, f"s3://{BUCKET}/other")
    assert begun(server) == {} and notes(tmp_path) == []


def test_what_is_being_sent_is_left_alone(server, line, tmp_path):
    """By another process, to the very same place, for longer than a day."""
    path = sized(tmp_path / "big", 96 * MIB)
    with sending(server, line, path, "both") as process:
        (note,) = notes(tmp_path)
        os.utime(note, (time.time() - 25 * 3600,) * 2)
        line.most["up"] = float("inf")  # only what is open now is silent
        line.freeze()
        line.silent.clear()
        forget()
        put(path, f"s3://{BUCKET}/both")
        assert process.poll() is None and "both" in begun(server), "the other is still at it"
        line.cut()
        assert process.wait(60) == 0
    assert stored(server, "both") == path.read_bytes() and begun(server) == {} and notes(tmp_path) == []


def test_a_server_that_is_lost_is_gone_on_with_later(server, line, tmp_path, monkeypatch):
    """All tries fail, and nobody can take back what is there."""
    monkeypatch.setattr(transfer.insist, "__defaults__", (2, False))
    monkeypatch.setattr(s3client, "TRIES", 1)
    path = sized(tmp_path / "big", 96 * MIB)
    line.most["up"] = ENOUGH
    cutter = threading.Thread(target=lambda: (_until(lambda: begun(server).get("lost")), lose(line)))
    cutter.start()
    with pytest.raises(TransferFailed, match="no answer from S3"):
        put(path, f"s3://{BUCKET}/lost")
    cutter.join()
    assert begun(server)["lost"] and len(notes(tmp_path)) == 1
    line.mend()
    put(path, f"s3://{BUCKET}/lost")
    assert stored(server, "lost") == path.read_bytes() and saves(server, line)
    assert begun(server) == {} and notes(tmp_path) == []


def test_copies_in_parts_are_gone_on_with(server, line, tmp_path, monkeypatch):
    """Where the server knows them; another one is sent the whole object."""
    monkeypatch.setattr(s3, "COPY_PART_BYTES", 5 * MIB)
    monkeypatch.setattr(s3.Place, "streams", 1)
    monkeypatch.setattr(transfer.insist, "__defaults__", (1, False))
    data = os.urandom(MIB) * 17
    server.client.put_object(Bucket=BUCKET, Key="from", Body=data)
    copied: list[int] = []

    def watch(params, **_) -> None:
        copied.append(params["PartNumber"])
        if begun(server).get("to") == [1]:
            lose(line)

    scheme_of(Uri.of(f"s3://{BUCKET}/"))._client.meta.events.register("before-parameter-build.s3.UploadPartCopy", watch)
    if isinstance(server, Swift):
        with pytest.raises(TransferFailed, match="no answer from S3"):
            copy(f"s3://{BUCKET}/from", f"s3://{BUCKET}/to")
        assert begun(server) == {"to": [1]} and len(notes(tmp_path)) == 1 and copied == [1, 2]
        server.client.upload_part_copy(
            Bucket=BUCKET, Key="to", PartNumber=2, CopySource=f"{BUCKET}/from", CopySourceRange=f"bytes={5 * MIB}-{10 * MIB - 1}",
            UploadId=server.client.list_multipart_uploads(Bucket=BUCKET)["Uploads"][0]["UploadId"],
        )  # fmt: skip
        line.mend()
    copy(f"s3://{BUCKET}/from", f"s3://{BUCKET}/to")
    assert stored(server, "to") == data and begun(server) == {} and notes(tmp_path) == []
    assert copied == ([1, 2, 3, 4] if isinstance(server, Swift) else [1])


def test_without_a_place_for_notes_it_is_sent_all_the_same(server, line, tmp_path, monkeypatch):
    from scitq.fetch import s3uploads

    monkeypatch.setattr(s3uploads, "cache_folders", lambda: iter([str(tmp_path / "big")]))  # a file
    path = sized(tmp_path / "big", 33 * MIB)
    put(path, f"s3://{BUCKET}/unnoted")
    assert stored(server, "unnoted") == path.read_bytes() and begun(server) == {}


def _until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
