"""`s3://` beyond what every scheme must do: parts, what is taken back, wrong credentials and places, lines that break."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from disks import small_disk
from env import PROGRAM, ROOT
from ports import free_port
from relay import Relay
from scitq.errors import InvalidRequest, NotAllowed, NotFound, TransferFailed
from scitq.fetch import copy, get, info, list_content, put, sync, transfer
from services import wait_for_port
from stores import S3, Variables, forget

MIB = 2**20
BUCKET = "bucket"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = S3(tmp_path_factory.mktemp("s3"))
    yield made
    made.close()


@pytest.fixture
def s3(server):
    """The server, and an environment that leads to it."""
    variables = Variables(server.variables)
    yield server
    variables.restore()


@pytest.fixture
def line(s3):
    """A line to the server that can be cut; a hurried client."""
    relay = Relay(s3.variables["AWS_ENDPOINT_URL"])
    os.environ["AWS_ENDPOINT_URL"] = relay.url
    forget()
    yield relay
    relay.close()


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.01)


def sized(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(min(size, MIB)) * max(1, size // MIB))
    return path


def uploads(s3) -> list:
    """Uploads of parts that were begun and neither completed nor aborted."""
    return s3.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])


def stored(s3, key: str) -> bytes:
    return s3.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()


def test_a_large_file_goes_in_parts_and_comes_back(s3, tmp_path):
    path = sized(tmp_path / "big", 66 * MIB)
    put(path, f"s3://{BUCKET}/large/")
    assert info(f"s3://{BUCKET}/large/big").size == 66 * MIB and uploads(s3) == []
    get(f"s3://{BUCKET}/large/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_an_upload_that_fails_is_taken_back(s3, tmp_path, monkeypatch, hasty):
    """The file becomes shorter while it is sent."""
    from scitq.fetch import s3 as module
    from scitq.fetch.schemes import scheme_of
    from scitq.fetch.uri import Uri

    monkeypatch.setattr(module, "PART_BYTES", 5 * MIB)
    path = sized(tmp_path / "big", 80 * MIB)
    place = scheme_of(Uri.of(f"s3://{BUCKET}/short"))

    class Shortening(transfer.Meter):
        def add(self, size: int) -> None:
            os.truncate(path, MIB)

    with pytest.raises(TransferFailed, match="shorter while it was sent"):
        place.put(path, Uri.of(f"s3://{BUCKET}/short"), Shortening())
    assert uploads(s3) == []
    with pytest.raises(NotFound):
        info(f"s3://{BUCKET}/short")


def test_a_copy_of_parts_falls_back_where_the_server_knows_none(s3, tmp_path, monkeypatch):
    from scitq.fetch import s3 as module

    monkeypatch.setattr(module, "COPY_PART_BYTES", MIB)
    s3.client.put_object(Bucket=BUCKET, Key="parts/a", Body=(data := os.urandom(3 * MIB)))
    copy(f"s3://{BUCKET}/parts/a", f"s3://{BUCKET}/parts/b")
    assert stored(s3, "parts/b") == data and uploads(s3) == []


def test_many_are_listed_and_deleted(s3, tmp_path):
    from scitq.fetch import delete

    for number in range(1002):
        s3.client.put_object(Bucket=BUCKET, Key=f"many/{number:04}", Body=b"")
    assert [entry.path for entry in list_content(f"s3://{BUCKET}/many/")] == [f"{number:04}" for number in range(1002)]
    assert len(delete(f"s3://{BUCKET}/many/")) == 1002
    assert list_content(f"s3://{BUCKET}/many/") == []


def test_an_object_in_place_of_a_folder_is_told(s3):
    s3.client.put_object(Bucket=BUCKET, Key="folder/inner", Body=b"")
    with pytest.raises(NotFound, match="but a folder: end it with /"):
        info(f"s3://{BUCKET}/folder")


def test_a_whole_bucket_is_synced(s3, tmp_path):
    s3.client.create_bucket(Bucket="whole-bucket")
    s3.client.put_object(Bucket="whole-bucket", Key="a/b", Body=b"1")
    s3.client.put_object(Bucket="whole-bucket", Key="c", Body=b"2")
    assert sync("s3://whole-bucket", str(tmp_path)) == 2
    assert (tmp_path / "a/b").read_bytes() + (tmp_path / "c").read_bytes() == b"12"


def test_small_objects_go_without_boto3s_detours(s3, tmp_path, monkeypatch):
    from scitq.fetch.schemes import scheme_of
    from scitq.fetch.uri import Uri

    (tmp_path / "src").mkdir()
    for name in ("a", "b+ c", "ü", "empty"):
        (tmp_path / "src" / name).write_bytes(b"" if name == "empty" else os.urandom(5000))
    calls = []
    events = scheme_of(Uri.of(f"s3://{BUCKET}/"))._client.meta.events
    for operation in ("PutObject", "GetObject"):
        events.register(f"before-send.s3.{operation}", lambda request, **_: calls.append(request.url))
    put(tmp_path / "src", f"s3://{BUCKET}/small")
    get(f"s3://{BUCKET}/small/", tmp_path / "back")
    assert {path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "src").iterdir()
    }
    assert len(calls) < 4, calls  # of eight: a line may be lost now and then


def test_an_etag_of_what_is_stored_encrypted_is_no_md5(s3, tmp_path, hasty):
    """No server that runs here encrypts with keys of its own, so the header that tells of it is put into the answers."""
    from dataclasses import replace

    from scitq.fetch.schemes import scheme_of

    s3.client.put_object(Bucket=BUCKET, Key="encrypted/a", Body=b"12345")
    entry = replace(info(f"s3://{BUCKET}/encrypted/a"), md5="0" * 32)
    place = scheme_of(entry.uri)
    with pytest.raises(TransferFailed, match="its md5 is .*, it should be 0000"):
        transfer.download(place, entry, tmp_path / "x", transfer.Meter())
    events = place._client.meta.events
    events.register("after-call.s3.HeadObject", lambda parsed, **_: parsed.update(ServerSideEncryption="aws:kms"))
    transfer.download(place, entry, tmp_path / "x", transfer.Meter())
    assert (tmp_path / "x").read_bytes() == b"12345"
    assert info(f"s3://{BUCKET}/encrypted/a").md5 is None
    assert list_content(f"s3://{BUCKET}/encrypted/")[0].md5 is None


def test_a_certificate_is_trusted_only_if_it_is_told(tmp_path):
    server = S3(tmp_path / "server", tls=True)
    variables = Variables(server.variables)
    try:
        with pytest.raises(TransferFailed, match="certificate is not trusted here.*set AWS_CA_BUNDLE"):
            put(sized(tmp_path / "small", 1000), f"s3://{BUCKET}/")
        assert "Contents" not in server.client.list_objects_v2(Bucket=BUCKET)
        os.environ["AWS_CA_BUNDLE"] = str(server.certificate)
        forget()
        for path in (tmp_path / "small", sized(tmp_path / "large", 20 * MIB)):
            put(path, f"s3://{BUCKET}/")
            get(f"s3://{BUCKET}/{path.name}", tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == path.read_bytes() == stored(server, path.name)
    finally:
        variables.restore()
        server.close()


def test_a_proxy_of_the_environment_is_gone_through(line, s3, tmp_path):
    os.environ["AWS_ENDPOINT_URL"] = "http://no-such-host.invalid"
    os.environ["HTTP_PROXY"] = line.url
    forget()
    put(sized(tmp_path / "x", 10), f"s3://{BUCKET}/by-proxy")
    assert stored(s3, "by-proxy") == (tmp_path / "x").read_bytes() and line.accepted > 0


# --- lines that break -----------------------------------------------------------------------------------------------------------


def test_a_download_goes_on_after_the_line_was_cut(line, s3, tmp_path, hasty):
    s3.client.put_object(Bucket=BUCKET, Key="cut", Body=(data := os.urandom(MIB) * 80))
    line.rate = 20 * MIB
    cutter = threading.Thread(target=lambda: (_until(lambda: line.passed["down"] > 20 * MIB), line.cut()))
    cutter.start()
    get(f"s3://{BUCKET}/cut", tmp_path / "x")
    cutter.join()
    assert (tmp_path / "x").read_bytes() == data and line.passed["down"] < 140 * MIB, "what had come was not fetched again"


def test_an_upload_goes_on_after_the_line_was_cut(line, s3, tmp_path, hasty):
    path = sized(tmp_path / "big", 64 * MIB)
    line.rate = 20 * MIB
    cutter = threading.Thread(target=lambda: (_until(lambda: line.passed["up"] > 20 * MIB), line.cut()))
    cutter.start()
    put(path, f"s3://{BUCKET}/cut-up")
    cutter.join()
    assert stored(s3, "cut-up") == path.read_bytes() and uploads(s3) == []


def test_a_server_that_falls_silent_is_left(line, s3, tmp_path, hasty, monkeypatch):
    from scitq.fetch import s3client

    s3.client.put_object(Bucket=BUCKET, Key="silent", Body=b"x" * 1000)
    monkeypatch.setattr(s3client, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(s3client, "TRIES", 1)
    monkeypatch.setattr(transfer, "TRIES", 2)
    info(f"s3://{BUCKET}/silent")
    line.silent = {"down"}
    with pytest.raises(TransferFailed, match="no answer from S3.*timeout"):
        get(f"s3://{BUCKET}/silent", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


# --- what is wrong ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "kind", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, NotAllowed, "SignatureDoesNotMatch.*set AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "wrong"}, NotAllowed, "InvalidAccessKeyId.*set AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, NotAllowed, "no credentials for S3 here.*set AWS_ACCESS_KEY_ID"),
        ({"AWS_PROFILE": "none"}, InvalidRequest, "profile .none. could not be found"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, InvalidRequest, "Invalid endpoint: nonsense"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, TransferFailed, "is AWS_ENDPOINT_URL right"),
    ],
)
def test_a_wrong_configuration_is_told(s3, tmp_path, variables, kind, said):
    s3.client.put_object(Bucket=BUCKET, Key="there", Body=b"x")
    os.environ.update(variables)
    forget()
    for act in (lambda: get(f"s3://{BUCKET}/there", tmp_path / "x"), lambda: list_content(f"s3://{BUCKET}/")):
        with pytest.raises(kind, match=said) as caught:
            act()
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_secret_is_told_when_sending(s3, tmp_path):
    os.environ["AWS_SECRET_ACCESS_KEY"] = "wrong"
    for size in (10, 20 * MIB):
        forget()
        with pytest.raises(NotAllowed, match="set AWS_ACCESS_KEY_ID"):
            put(sized(tmp_path / "x", size), f"s3://{BUCKET}/x")


def test_what_is_missing_is_told(s3, tmp_path):
    path = sized(tmp_path / "x", 10)
    put(path, f"s3://{BUCKET}/there")
    for act in (
        lambda: info("s3://no-bucket/x"), lambda: list_content("s3://no-bucket/x/"), lambda: put(path, "s3://no-bucket/x"),
        lambda: copy("s3://no-bucket/x", f"s3://{BUCKET}/x"), lambda: copy(f"s3://{BUCKET}/there", "s3://no-bucket/x"),
    ):  # fmt: skip
        with pytest.raises(NotFound, match="there is no bucket 'no-bucket'"):
            act()
    with pytest.raises(NotFound, match=f"s3://{BUCKET}/none: there is no such object"):
        info(f"s3://{BUCKET}/none")
    with pytest.raises(InvalidRequest, match="it names no object"):
        put(path, f"s3://{BUCKET}")
    path = path.rename(tmp_path / "inv\udcff")
    with pytest.raises(TransferFailed, match=r"inv.*: its name is not UTF-8, which s3:// wants: rename it"):
        put(tmp_path, f"s3://{BUCKET}/names/")


def test_a_server_that_speaks_no_s3_is_told(s3, tmp_path):
    port = free_port()
    words = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    other = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        (tmp_path / "says-hello").write_text("<p>Hello")
        (tmp_path / "leads-elsewhere").mkdir()
        wait_for_port(port, other)
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
        forget()
        for bucket in ("says-hello", "leads-elsewhere"):
            with pytest.raises(TransferFailed, match="is AWS_ENDPOINT_URL right"):
                list_content(f"s3://{bucket}/")
    finally:
        other.kill()
        other.wait()


def test_a_full_disk_is_told(s3, tmp_path):
    s3.client.put_object(Bucket=BUCKET, Key="fills", Body=os.urandom(MIB) * 12)
    with small_disk(tmp_path / "disk") as disk:
        with pytest.raises(TransferFailed, match="no space left"):
            get(f"s3://{BUCKET}/fills", disk.directory / "x")
        assert not (disk.directory / "x").exists()


def test_a_profile_and_an_address_in_the_configuration_file(s3, tmp_path):
    config = tmp_path / "config"
    v = s3.variables
    config.write_text(
        f"[profile lab]\nregion = us-east-1\nendpoint_url = {v['AWS_ENDPOINT_URL']}\n"
        f"aws_access_key_id = {v['AWS_ACCESS_KEY_ID']}\naws_secret_access_key = {v['AWS_SECRET_ACCESS_KEY']}\n"
    )
    for name in v:
        del os.environ[name]
    os.environ.update(AWS_CONFIG_FILE=str(config), AWS_PROFILE="lab")
    forget()
    put(sized(tmp_path / "x", 10), f"s3://{BUCKET}/by-profile")
    assert stored(s3, "by-profile") == (tmp_path / "x").read_bytes()


def test_the_command_line(s3, tmp_path):
    sized(tmp_path / "a b", 3000)
    (tmp_path / "a b").rename(tmp_path / "c d")

    def fetch(*words):
        return subprocess.run([*PROGRAM, "fetch", *map(str, words)], capture_output=True, text=True, timeout=60)

    assert fetch("put", tmp_path / "c d", f"s3://{BUCKET}/line/").returncode == 0
    assert fetch("list", f"s3://{BUCKET}/line/").stdout == f"s3://{BUCKET}/line/c d\n"
    done = fetch("get", f"s3://{BUCKET}/line/none", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1) and "there is no such object" in done.stderr


def test_it_is_loaded_only_for_its_own():
    script = "import sys, scitq.fetch as f; f.info('/etc/hostname'); print({'boto3', 'botocore'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "set()\n", done.stderr


def _until(condition, seconds: float = 60.0) -> None:
    import time

    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
