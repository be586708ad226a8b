"""`azure://` beyond what every scheme must do: ways to sign in, blocks, wrong credentials and places, lines that break."""

from __future__ import annotations

import datetime
import os
import threading
import time
from pathlib import Path

import pytest
from disks import small_disk
from relay import Relay
from scitq.errors import InvalidRequest, NotAllowed, NotFound, TransferFailed
from scitq.fetch import copy, delete, get, info, list_content, put, transfer
from stores import ACCOUNT, ACCOUNT_KEY, Azure, Variables, forget

MIB = 2**20
BUCKET = "bucket"
NAMED = {"AZURE_STORAGE_CONNECTION_STRING": "", "AZURE_STORAGE_ACCOUNT": ACCOUNT}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Azure(tmp_path_factory.mktemp("azure"))
    yield made
    made.close()


@pytest.fixture
def azure(server):
    """The server, and an environment that leads to it."""
    variables = Variables(server.variables)
    yield server
    variables.restore()


@pytest.fixture
def line(azure):
    """A line to the server that can be cut."""
    relay = Relay(azure.url)
    text = os.environ["AZURE_STORAGE_CONNECTION_STRING"].replace(f":{azure.port}/", f":{relay.port}/")
    os.environ["AZURE_STORAGE_CONNECTION_STRING"] = text
    forget()
    yield relay
    relay.close()


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.01)


def use(**variables: str) -> None:
    os.environ.update(variables)
    forget()


def sized(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(min(size, MIB)) * max(1, size // MIB))
    return path


def stored(azure, name: str) -> bytes:
    return azure.client.get_blob_client(BUCKET, name).download_blob().readall()


def store(azure, name: str, data: bytes) -> None:
    azure.client.get_blob_client(BUCKET, name).upload_blob(data, overwrite=True)


def sas(server, **rights) -> str:
    from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

    kinds = ResourceTypes(object=True, container=True, service=True)
    expiry = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    return generate_account_sas(ACCOUNT, ACCOUNT_KEY, kinds, AccountSasPermissions(**rights), expiry)


def test_a_large_file_goes_in_blocks_and_comes_back(azure, tmp_path):
    path = sized(tmp_path / "big", 66 * MIB)
    put(path, f"azure://{BUCKET}/large/")
    assert info(f"azure://{BUCKET}/large/big").size == 66 * MIB
    get(f"azure://{BUCKET}/large/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_what_was_there_stays_until_the_new_is_whole(azure, tmp_path, monkeypatch, hasty):
    """The file becomes shorter while it is sent."""
    from scitq.fetch import azure as module
    from scitq.fetch.schemes import scheme_of
    from scitq.fetch.uri import Uri

    monkeypatch.setattr(module, "PART_BYTES", MIB)
    monkeypatch.setattr(module, "TRIES", 1)
    store(azure, "replaced", b"before")
    path = sized(tmp_path / "big", 32 * MIB)
    uri = Uri.of(f"azure://{BUCKET}/replaced")

    class Shortening(transfer.Meter):
        def add(self, size: int) -> None:
            os.truncate(path, MIB)

    with pytest.raises(TransferFailed, match="shorter while it was sent"):
        scheme_of(uri).put(path, uri, Shortening())
    assert stored(azure, "replaced") == b"before"


@pytest.mark.parametrize("way", ["key", "token", "token with ?"])
def test_ways_to_sign_in(azure, tmp_path, way):
    token = sas(azure, read=True, write=True, delete=True, list=True, create=True)
    told = {"AZURE_STORAGE_KEY": ACCOUNT_KEY} if way == "key" else {"AZURE_STORAGE_SAS_TOKEN": "?" * ("?" in way) + token}
    use(**NAMED, AZURE_STORAGE_SERVICE_ENDPOINT=azure.url, **told)
    put(sized(tmp_path / "x", 1000), f"azure://{BUCKET}/way/x")
    copy(f"azure://{BUCKET}/way/x", f"azure://{BUCKET}/way/y")
    assert [entry.path for entry in list_content(f"azure://{BUCKET}/way/")] == ["x", "y"]
    assert stored(azure, "way/y") == (tmp_path / "x").read_bytes()
    assert len(delete(f"azure://{BUCKET}/way/")) == 2 and list_content(f"azure://{BUCKET}/way/") == []


def test_marks_of_folders_are_no_files(azure):
    azure.client.get_blob_client(BUCKET, "marked/sub").upload_blob(b"", metadata={"hdi_isfolder": "true"})
    store(azure, "marked/sub/inner", b"x")
    assert [entry.path for entry in list_content(f"azure://{BUCKET}/marked/")] == ["sub/inner"]


# --- lines that break -----------------------------------------------------------------------------------------------------------


def test_transfers_go_on_after_the_line_was_cut(line, azure, tmp_path, hasty):
    path = sized(tmp_path / "big", 24 * MIB)
    uri = f"azure://{BUCKET}/cut"
    for way, act in (("up", lambda: put(path, uri)), ("down", lambda: get(uri, tmp_path / "x"))):
        line.rate, line.passed[way] = 20 * MIB, 0
        cutter = threading.Thread(target=lambda way=way: (_until(lambda: line.passed[way] > 10 * MIB), line.cut()))
        cutter.start()
        act()
        cutter.join()
    assert (tmp_path / "x").read_bytes() == path.read_bytes()


def test_a_server_that_falls_silent_is_left(line, azure, tmp_path, hasty, monkeypatch):
    from scitq.fetch import azure as module

    store(azure, "silent", b"x" * 1000)
    monkeypatch.setattr(module, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(module, "TRIES", 1)
    monkeypatch.setattr(transfer, "TRIES", 2)
    info(f"azure://{BUCKET}/silent")
    line.silent = {"down"}
    with pytest.raises(TransferFailed, match="no answer from Azure.*timed out"):
        get(f"azure://{BUCKET}/silent", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


# --- what is wrong --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "kind", "said"),
    [
        ({"AZURE_STORAGE_CONNECTION_STRING": ""}, NotAllowed, "knows no storage account: set AZURE_STORAGE_CONNECTION_STRING"),
        ({"AZURE_STORAGE_CONNECTION_STRING": "nonsense"}, InvalidRequest, "malformed.*set AZURE_STORAGE_CONNECTION_STRING"),
        ({**NAMED, "AZURE_STORAGE_KEY": "d3Jvbmc="}, NotAllowed, "AuthorizationFailure.*set AZURE_STORAGE"),
        ({**NAMED, "AZURE_STORAGE_KEY": "wrong"}, NotAllowed, "base64.*set AZURE_STORAGE"),
        ({**NAMED, "AZURE_STORAGE_SAS_TOKEN": "sv=2020-01-01&sig=wrong"}, NotAllowed, "set AZURE_STORAGE"),
        (NAMED, NotAllowed, "set AZURE_STORAGE"),
    ],
    ids=["none", "nonsense", "wrong key", "no key", "wrong token", "account alone"],
)
def test_a_wrong_configuration_is_told(azure, tmp_path, variables, kind, said):
    store(azure, "there", b"x")
    use(**variables, AZURE_STORAGE_SERVICE_ENDPOINT=azure.url)
    path = sized(tmp_path / "x", 10)
    for act in (
        lambda: get(f"azure://{BUCKET}/there", tmp_path / "y"), lambda: list_content(f"azure://{BUCKET}/"),
        lambda: put(path, f"azure://{BUCKET}/z"),
    ):  # fmt: skip
        with pytest.raises(kind, match=said) as caught:
            act()
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_rights_that_do_not_reach_are_told(azure, tmp_path):
    use(**NAMED, AZURE_STORAGE_SERVICE_ENDPOINT=azure.url, AZURE_STORAGE_SAS_TOKEN=sas(azure, read=True))
    store(azure, "readable", b"x")
    get(f"azure://{BUCKET}/readable", tmp_path)
    with pytest.raises(NotAllowed, match="do not allow this"):
        put(tmp_path / "readable", f"azure://{BUCKET}/readable")


def test_what_is_missing_is_told(azure, tmp_path):
    path = sized(tmp_path / "x", 10)
    for act in (
        lambda: info("azure://no-bucket/x"), lambda: list_content("azure://no-bucket/x/"),
        lambda: put(path, "azure://no-bucket/x"), lambda: put(sized(path, 20 * MIB), "azure://no-bucket/x"),
    ):  # fmt: skip
        with pytest.raises(NotFound, match="there is no container 'no-bucket'"):
            act()
    store(azure, "folder/x", b"")
    for name, said in (("none", "there is no such blob"), ("folder", "but a folder: end it with /")):
        with pytest.raises(NotFound, match=said):
            info(f"azure://{BUCKET}/{name}")
    for uri, said in ((f"azure://{BUCKET}", "names no blob"), ("azure://-_-/x", "refuses it")):
        with pytest.raises(InvalidRequest, match=said):
            put(path, uri)


def test_no_server_is_told(azure, tmp_path, hasty, monkeypatch):
    from scitq.fetch import azure as module

    monkeypatch.setattr(module, "TRIES", 1)
    use(**NAMED, AZURE_STORAGE_SERVICE_ENDPOINT=f"http://127.0.0.1:1/{ACCOUNT}", AZURE_STORAGE_KEY=ACCOUNT_KEY)
    with pytest.raises(TransferFailed, match="no answer from Azure.*refused"):
        list_content(f"azure://{BUCKET}/")


def test_a_full_disk_is_told(azure, tmp_path):
    store(azure, "fills", os.urandom(MIB) * 12)
    with small_disk(tmp_path / "disk") as disk:
        with pytest.raises(TransferFailed, match="no space left"):
            get(f"azure://{BUCKET}/fills", disk.directory / "x")
        assert not (disk.directory / "x").exists()


def _until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
