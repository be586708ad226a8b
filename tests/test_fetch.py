"""What every scheme must do, on its real service; and what `fetch` does with any of them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from env import PROGRAM
from scitq.errors import InvalidRequest, NotAllowed, NotFound, TransferFailed
from scitq.fetch import Uri, copy, delete, get, info, list_content, put, sync, transfer
from scitq.fetch.parts import PART_BYTES
from scitq.fetch.scheme import Replaced
from scitq.fetch.schemes import scheme_of
from services import Ftp, Nginx, needed
from stores import S3, Azure, Swift, Variables

NAMES = ("plain", "with space", "ü%41", "a+b&c=d", "deep/er/file", "-dash", "'quote'", "semi;colon", "empty")
BIG = 70 * 2**20 + 12345  # three parts


class LocalPlace:
    """Files of this machine."""

    writes = lists = True

    def __init__(self, folder: Path):
        self.root = folder
        self.uri = f"file://{folder}/"

    def put_raw(self, name: str, data: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def get_raw(self, name: str) -> bytes | None:
        path = self.root / name
        return path.read_bytes() if path.is_file() else None

    def close(self) -> None:
        pass


class WebPlace(LocalPlace):
    """What nginx serves."""

    writes = lists = False

    def __init__(self, folder: Path):
        self.service = Nginx(folder)
        self.root, self.uri = self.service.root, self.service.url
        self.close = self.service.close


class FtpPlace(LocalPlace):
    """An FTP server that knows MLSD."""

    plain = False

    def __init__(self, folder: Path):
        self.service = Ftp(folder, plain=self.plain)
        self.root, self.uri = folder, self.service.writable
        self.close = self.service.close


class PlainFtpPlace(FtpPlace):
    """One that does not."""

    plain = True


class S3Place:
    """Objects, looked at with boto3 itself."""

    writes = lists = True
    uri = "s3://bucket/"
    store: type = S3

    def __init__(self, folder: Path):
        self.service = self.store(folder)
        self.variables = Variables(self.service.variables)

    def put_raw(self, name: str, data: bytes) -> None:
        self.service.client.put_object(Bucket="bucket", Key=name, Body=data)

    def get_raw(self, name: str) -> bytes | None:
        try:
            return self.service.client.get_object(Bucket="bucket", Key=name)["Body"].read()
        except self.service.client.exceptions.NoSuchKey:
            return None

    def close(self) -> None:
        self.variables.restore()
        self.service.close()


class SwiftPlace(S3Place):
    """Those of another kind of server: it knows what rclone's does not, conditions, copies of parts, true ETags of parts."""

    store = Swift


class RclonePlace(LocalPlace):
    """A remote of rclone's configuration."""

    def __init__(self, folder: Path):
        needed("rclone", "rclone")
        super().__init__(folder / "served")
        self.root.mkdir()
        (folder / "rclone.conf").write_text(f"[My Remote]\ntype = alias\nremote = {self.root}\n")
        self.uri = "My Remote://"
        self._before = os.environ.get("RCLONE_CONFIG")
        os.environ["RCLONE_CONFIG"] = str(folder / "rclone.conf")

    def close(self) -> None:
        del os.environ["RCLONE_CONFIG"]
        if self._before is not None:
            os.environ["RCLONE_CONFIG"] = self._before


class AzurePlace:
    """Blobs, looked at with Microsoft's own client."""

    writes = lists = True
    uri = "azure://bucket/"

    def __init__(self, folder: Path):
        self.service = Azure(folder)
        self.variables = Variables(self.service.variables)

    def put_raw(self, name: str, data: bytes) -> None:
        self.service.client.get_blob_client("bucket", name).upload_blob(data, overwrite=True)

    def get_raw(self, name: str) -> bytes | None:
        blob = self.service.client.get_blob_client("bucket", name)
        return blob.download_blob().readall() if blob.exists() else None

    def close(self) -> None:
        self.variables.restore()
        self.service.close()


PLACES = {
    "rclone": RclonePlace,
    "file": LocalPlace,
    "http": WebPlace,
    "ftp": FtpPlace,
    "plain ftp": PlainFtpPlace,
    "s3": S3Place,
    "swift": SwiftPlace,
    "azure": AzurePlace,
}


SLOW = ("swift",)


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in PLACES])
def service(request, tmp_path_factory):
    made = PLACES[request.param](tmp_path_factory.mktemp("place"))
    yield made
    made.close()


@pytest.fixture
def place(service, request):
    """A folder of its own for each test."""
    folder = hashlib.md5(request.node.name.encode()).hexdigest()[:8]

    class Below:
        uri = f"{service.uri}{folder}/"
        writes, lists = service.writes, service.lists

        def put_raw(self, name, data):
            service.put_raw(f"{folder}/{name}", data)

        def get_raw(self, name):
            return service.get_raw(f"{folder}/{name}")

    return Below()


def writable(place):
    if not place.writes:
        pytest.skip("is read only")
    return place


def listable(place):
    if not place.lists:
        pytest.skip("cannot be listed")
    return place


def names_in(folder: Path) -> list[str]:
    """All there is, hidden files too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- what every scheme must do ----------------------------------------------------------------------------------------


def quoted(place, name: str) -> str:
    """A name as it stands in a URI of this place: web addresses and FTP have their own signs."""
    if place.uri.startswith(("http", "ftp")):
        from urllib.parse import quote

        return quote(name)
    return name


@pytest.mark.parametrize("name", NAMES)
def test_a_file_comes_as_it_is(place, tmp_path, name):
    data = b"" if name == "empty" else os.urandom(5000)
    place.put_raw(name, data)
    (path,) = get(place.uri + quoted(place, name), tmp_path / "here")
    assert path == tmp_path / "here" and path.read_bytes() == data and names_in(tmp_path) == ["here"]


def test_a_large_file_comes_in_parts(place, tmp_path):
    data = os.urandom(2**20) * 70 + os.urandom(12345)
    place.put_raw("big", data)
    get(place.uri + "big", tmp_path)
    assert (tmp_path / "big").read_bytes() == data and names_in(tmp_path) == ["big"]


def test_what_is_known_of_a_file(place):
    place.put_raw("f", b"12345")
    found = info(place.uri + "f", md5=True)
    assert (found.size, found.path, found.md5) == (5, "f", hashlib.md5(b"12345").hexdigest())
    assert found.modified_at is None or found.modified_at.tzinfo is not None


def test_a_file_that_was_replaced_is_told(place):
    """Nothing that has come of the old one is gone on with."""
    place.put_raw("changes", b"old" * 1000)
    entry = info(place.uri + "changes")
    place.put_raw("changes", b"other" * 1000)
    with pytest.raises(Replaced, match="was replaced while it was fetched: fetch it again") as caught:
        list(scheme_of(entry.uri).read(entry, 10, None))
    assert caught.value.again, "a worker does"


def test_a_missing_file_is_not_found(place, tmp_path):
    place.put_raw("f", b"")
    for act in (lambda: info(place.uri + "none"), lambda: get(place.uri + "none", tmp_path / "x")):
        with pytest.raises(NotFound):
            act()
    assert names_in(tmp_path) == []


def test_folders_are_listed(place):
    listable(place)
    for name in ("a", "b/c", "b/d e", "b/f/g"):
        place.put_raw(name, name.encode())
    found = {entry.path: entry.size for entry in list_content(place.uri)}
    assert found == {"a": 1, "b/c": 3, "b/d e": 5, "b/f/g": 5}
    assert sorted(entry.path for entry in list_content(place.uri, no_rec=True)) == ["a", "b/"]
    assert sorted(entry.path for entry in list_content(place.uri + "b/", no_rec=True)) == ["c", "d e", "f/"]
    assert {entry.md5 for entry in list_content(place.uri + "b/f/", md5=True)} == {hashlib.md5(b"b/f/g").hexdigest()}


def test_a_folder_comes_with_all_below(place, tmp_path):
    listable(place)
    for name in ("a", "b/c", "b/d e"):
        place.put_raw(name, name.encode())
    get(place.uri, tmp_path / "new")
    assert names_in(tmp_path / "new") == ["a", "b/c", "b/d e"] and (tmp_path / "new/b/d e").read_bytes() == b"b/d e"
    with pytest.raises(NotFound):
        get(place.uri + "none/", tmp_path)


def test_files_and_folders_are_sent(place, tmp_path):
    writable(place)
    source = tmp_path / "source"
    for name in ("a", "b/c", "b/ü"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(os.urandom(3000))
    put(source, place.uri + "all")
    put(source / "a", place.uri + "one/")
    put(source / "a", place.uri + "renamed")
    for name, there in (("a", "all/a"), ("b/c", "all/b/c"), ("b/ü", "all/b/ü"), ("a", "one/a"), ("a", "renamed")):
        assert place.get_raw(there) == (source / name).read_bytes()
    (source / "a").write_bytes(b"new")
    put(source / "a", place.uri + "renamed")
    assert place.get_raw("renamed") == b"new"


def test_a_large_file_is_sent(place, tmp_path):
    writable(place)
    (tmp_path / "big").write_bytes(os.urandom(2**20) * 40)
    put(tmp_path / "big", place.uri)
    assert place.get_raw("big") == (tmp_path / "big").read_bytes()


def test_files_are_deleted(place):
    writable(place)
    for name in ("a", "b/c", "b/d.txt"):
        place.put_raw(name, b"x")
    assert [Uri.of(uri).name for uri in delete(place.uri + "b/", include=["*.txt"], dry_run=True)] == ["d.txt"]
    assert place.get_raw("b/d.txt") == b"x"
    delete(place.uri + "b/", include=["*.txt"])
    assert (place.get_raw("b/d.txt"), place.get_raw("b/c")) == (None, b"x")
    delete(place.uri + "a")
    delete(place.uri)
    assert place.get_raw("a") is None and place.get_raw("b/c") is None
    with pytest.raises(NotFound):
        delete(place.uri + "a")


@pytest.mark.parametrize("uri", ["/", "file:///", "/proc/../"])
def test_all_of_a_machine_is_not_deleted(uri):
    with pytest.raises(NotAllowed, match="is all of this machine"):
        delete(uri, include=["no-file-is-called-this"], dry_run=True)


def test_sync_brings_what_is_new_or_different(place, tmp_path):
    listable(writable(place))
    for name in ("a", "b/c", "b/d.txt"):
        place.put_raw(name, b"1")
    here = tmp_path / "here"
    assert sync(place.uri, str(here)) == 3 and sync(place.uri, str(here)) == 0
    place.put_raw("b/c", b"22")
    place.put_raw("new.txt", b"3")
    assert sync(place.uri, str(here), include=["*.txt"]) == 1 and names_in(here) == ["a", "b/c", "b/d.txt", "new.txt"]
    assert sync(place.uri, str(here)) == 1 and (here / "b/c").read_bytes() == b"22"
    (here / "mine").write_bytes(b"4444")
    assert sync(str(here), place.uri) == 1 and place.get_raw("mine") == b"4444"
    assert sync(place.uri, place.uri.rstrip("/") + "-copy/") == 5
    assert {entry.path for entry in list_content(place.uri.rstrip("/") + "-copy/")} == {"a", "b/c", "b/d.txt", "new.txt", "mine"}


def test_copies_within_a_place(place):
    writable(place)
    place.put_raw("a/b", b"inner")
    copy(place.uri + "a/b", place.uri + "c/d")
    copy(place.uri + "a/", place.uri + "e/")
    assert place.get_raw("c/d") == place.get_raw("e/b") == b"inner"


# --- what is broken off -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    made = Nginx(tmp_path_factory.mktemp("web"))
    (made.root / "file").write_bytes(os.urandom(2**20))
    (made.root / "big").write_bytes(os.urandom(2**20) * 66)
    yield made
    made.close()


@pytest.fixture
def hasty(monkeypatch):
    """Pauses of no length between tries."""
    monkeypatch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.01)


def test_a_stalled_server_is_left_and_gone_on_with(web, tmp_path, hasty, monkeypatch):
    from scitq.fetch import schemes
    from scitq.fetch import web as module

    monkeypatch.setattr(module, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(schemes, "_open", {})
    get(web.url + "stalls/file", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == (web.root / "file").read_bytes() and names_in(tmp_path) == ["x"]
    assert sum('" 206 ' in line and "/stalls/file" in line for line in web.requests()) >= 3, "it went on from where it was"


def test_a_killed_fetch_goes_on_where_it_was(web, tmp_path):
    words = [*PROGRAM, "fetch", "get", "--quiet", web.url + "slow/big", str(tmp_path / "big")]
    fetch = subprocess.Popen(words)
    try:
        _until(lambda: sum(path.stat().st_blocks for path in tmp_path.iterdir()) * 512 > 6 * 2**20)
        assert not (tmp_path / "big").exists()
    finally:
        fetch.kill()
        fetch.wait()
    lines = len(web.requests())
    get(web.url + "big", tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == (web.root / "big").read_bytes() and len(web.requests()) > lines


def test_a_replaced_source_is_fetched_anew(web, tmp_path):
    (web.root / "changes").write_bytes(b"first" * 100_000)
    entry = info(web.url + "changes")
    part = tmp_path / f".x.scitq-{transfer._key(entry)}"
    part.write_bytes(b"first" * 10)
    get(web.url + "changes", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"first" * 100_000
    (web.root / "changes").write_bytes(b"other" * 100_001)
    get(web.url + "changes", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"other" * 100_001


def test_a_record_of_parts_is_not_believed_without_them(web, tmp_path):
    """It is what one leaves that is killed when the file has just got its name; then somebody removes that."""
    entry = info(web.url + "big")
    (tmp_path / f".x.scitq-{transfer._key(entry)}.parts").write_text(
        "".join(f"{start}\n" for start in range(0, entry.size, PART_BYTES))
    )
    get(web.url + "big", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == (web.root / "big").read_bytes() and names_in(tmp_path) == ["x"]


def test_a_server_without_ranges(web, tmp_path):
    get(web.url + "norange/big", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == (web.root / "big").read_bytes()


def test_redirects_and_passwords(web, tmp_path):
    get(web.url + "moved/file", tmp_path / "moved")
    get(web.url.replace("http://", "http://ann:secret@") + "auth/file", tmp_path / "secret")
    assert (tmp_path / "moved").read_bytes() == (tmp_path / "secret").read_bytes() == (web.root / "file").read_bytes()
    with pytest.raises(NotAllowed, match="401"):
        get(web.url + "auth/file", tmp_path / "x")


def test_a_busy_server_is_asked_again_and_told(web, tmp_path, hasty):
    before = len(web.requests())
    with pytest.raises(TransferFailed, match="503.*"):
        get(web.url + "busy/file", tmp_path / "x")
    assert len(web.requests()) - before >= 1


@pytest.mark.parametrize("size", [0, 3_000_000])
def test_aria2_fetches_over_many_connections(web, tmp_path, size):
    needed("aria2c", "aria2")
    (web.root / "aria").write_bytes(os.urandom(size))
    get(web.url.replace("http://", "http@aria2://") + "slow/aria", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == (web.root / "aria").read_bytes() and names_in(tmp_path) == ["x"]


def test_a_missing_program_says_how_to_get_it(web, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TransferFailed, match="aria2c is not installed here: apt install aria2"):
        get(web.url.replace("http://", "http@aria2://") + "file", tmp_path / "x")


def test_ftp_goes_on_after_a_lost_connection(tmp_path, hasty):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "file").write_bytes(os.urandom(5_000_000))
    server = Ftp(tmp_path / "served", drop_after=1_000_000)
    try:
        get(server.url + "file", tmp_path / "x")
    finally:
        server.close()
    assert (tmp_path / "x").read_bytes() == (tmp_path / "served" / "file").read_bytes()


def test_ftp_refuses_a_wrong_password(tmp_path):
    server = Ftp(tmp_path)
    try:
        with pytest.raises(NotAllowed, match="log in as ann"):
            get(server.writable.replace("secret", "wrong") + "file", tmp_path / "x")
    finally:
        server.close()


def test_no_server_is_told(tmp_path, hasty):
    from ports import free_port

    for scheme in ("http", "ftp"):
        with pytest.raises(TransferFailed, match="refused"):
            get(f"{scheme}://127.0.0.1:{free_port()}/file", tmp_path / "x")
    assert names_in(tmp_path) == []


def test_two_fetch_the_same_file_at_once(web, tmp_path):
    words = [*PROGRAM, "fetch", "get", "-q", web.url + "slow/file", str(tmp_path / "x")]
    processes = [subprocess.Popen(words) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "x").read_bytes() == (web.root / "file").read_bytes() and names_in(tmp_path) == ["x"]


def _until(condition, seconds: float = 60.0) -> None:
    import time

    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- the command line -------------------------------------------------------------------------------------------------


def run(*words, cwd=None):
    return subprocess.run([*PROGRAM, "fetch", *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=60)


def test_the_command_line(tmp_path):
    (tmp_path / "src/a").mkdir(parents=True)
    (tmp_path / "src/a/f").write_text("12345")
    (tmp_path / "src/g").write_text("6")
    assert run("copy", "src/", "dst/", cwd=tmp_path).returncode == 0
    assert names_in(tmp_path / "dst") == ["a/f", "g"]
    assert run("list", "dst/", cwd=tmp_path).stdout.splitlines() == [f"file://{tmp_path}/dst/g", f"file://{tmp_path}/dst/a/f"]
    assert run("nrlist", "dst", cwd=tmp_path).stdout.splitlines() == ["g", "a/"]
    md5 = hashlib.md5(b"12345").hexdigest()
    assert f"md5       {md5}" in run("info", "--md5", "dst/a/f", cwd=tmp_path).stdout
    assert run("nrlist", "--md5", "dst/a/", cwd=tmp_path).stdout == f"{md5}\tf\n"
    assert run("sync", "src", "third", "--include", "g", cwd=tmp_path).stdout == "1 files were new or different\n"
    assert run("put", "src", "file://" + str(tmp_path / "fourth"), cwd=tmp_path).returncode == 0
    assert run("delete", "--dry-run", "fourth/", cwd=tmp_path).stdout.count("would delete") == 2
    assert run("delete", "fourth/a/f", cwd=tmp_path).stdout == f"deleted file://{tmp_path}/fourth/a/f\n"
    assert names_in(tmp_path / "fourth") == ["g"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["get", "s4://x/y"], 2, "there is no scheme 's4'"),
        (["get", "htp://x/y"], 2, "did you mean 'http'"),
        (["get", "http@aria3://x/y"], 2, "knows no option @aria3 (did you mean 'aria2'?)"),
        (["get", "file:///x/y|untarr"], 2, "did you mean 'untar'"),
        (["get", "file:///x|mv:../y"], 2, "leads out of the folder"),
        (["get", "file://relative"], 2, "an absolute path"),
        (["get", "none"], 3, "there is no such file"),
        (["get", "."], 3, "it is a folder: end it with /"),
        (["list", "none/"], 3, "there is no such folder"),
        (["get", ""], 2, "is no URI"),
        (["put", "none", "dst"], 3, "there is no such file"),
        (["put", "/etc/hostname", "http://127.0.0.1:1/x"], 2, "cannot be written"),
        (["lst", "x"], 2, "unknown verb 'lst' (did you mean 'list'?)"),
        (["get"], 2, "URI"),
        (["get", "x", "--paralel", "3"], 2, "did you mean '--parallel'"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(tmp_path, words, code, told):
    done = run(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1) and told in done.stderr
    assert names_in(tmp_path) == []


def test_rclone_is_quoted_once_without_its_log(tmp_path, monkeypatch):
    needed("rclone", "rclone")
    (tmp_path / "rclone.conf").write_text("[lab]\ntype = local\n")
    monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
    with pytest.raises(TransferFailed, match=rf"^lab://{tmp_path}/rclone.conf/x: rclone: [A-Za-z][^\n]+$"):
        put(tmp_path / "rclone.conf", f"lab://{tmp_path}/rclone.conf/x")


def test_no_file_takes_the_place_of_a_device(tmp_path):
    (tmp_path / "f").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    for act in (get, put):
        with pytest.raises(InvalidRequest, match="pipe: it is a device, a pipe or a socket"):
            act(f"file://{tmp_path}/f" if act is get else tmp_path / "f", str(tmp_path / "pipe"))
    assert (tmp_path / "pipe").is_fifo() and names_in(tmp_path) == ["f"]


def test_it_works_without_a_server_and_imports_no_heavy_parts(tmp_path):
    (tmp_path / "f").write_text("x")
    words = [sys.executable, "-X", "importtime", PROGRAM[1], "fetch", "get", "f", "g"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (tmp_path / "g").read_text() == "x"
    for heavy in ("requests", "boto3", "peewee", "bottle"):
        assert f" {heavy}\n" not in done.stderr


# --- URIs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("s3://bucket/a b/", ("s3", "bucket/a b/", (), ())),
        ("HTTPS@aria2://h/x.tgz|untar", ("https", "h/x.tgz", ("aria2",), ("untar",))),
        ("run+fastq@ftp@aria2://ERR1", ("run+fastq", "ERR1", ("ftp", "aria2"), ())),
        ("file:///a|gunzip|mv:ref/x", ("file", "/a", (), ("gunzip", "mv:ref/x"))),
        ("/a/b", ("file", "/a/b", (), ())),
        ("/a/b/", ("file", "/a/b/", (), ())),
        ("/a|b", ("file", "/a|b", (), ())),
        ("/a|b|untar", ("file", "/a|b", (), ("untar",))),
        ("My Remote://x", ("My Remote", "x", (), ())),
    ],
)
def test_uris(text, parts):
    found = Uri.of(text)
    assert (found.scheme, found.place, found.options, found.actions) == parts
    assert "|b" in text or Uri.of(str(found)) == found  # typed after a scheme, what follows | is an action


@pytest.mark.parametrize(
    "text", ["", "a\nb", "s3://", "file://x", "s3://b/x|zip", "s3://b/x|mv:/etc", "s3://b/x|mv:a/../../b", "x\0"]
)
def test_wrong_uris(text):
    with pytest.raises(InvalidRequest):
        Uri.of(text)


def test_files_of_a_folder_that_match_and_never_meet(tmp_path):
    """Two folders with files of the same name, fetched at once into one: each in its own."""
    for folder, text in (("a", "1"), ("b", "2")):
        (tmp_path / folder / "deep").mkdir(parents=True)
        for name in ("x.bam", "x.log", "deep/y.bam"):
            (tmp_path / folder / name).write_text(text)
    here = tmp_path / "here"
    here.mkdir()
    for folder in "ab":
        get(f"file://{tmp_path}/{folder}/|only:*.bam|mv:to/{folder}", here)
    assert {str(path.relative_to(here)): path.read_text() for path in here.rglob("*") if path.is_file()} == {
        "to/a/x.bam": "1", "to/a/deep/y.bam": "1", "to/b/x.bam": "2", "to/b/deep/y.bam": "2",
    }  # fmt: skip
    with pytest.raises(NotFound, match=r"no file below it matches"):
        get(f"file://{tmp_path}/a/|only:*.txt", here)
    with pytest.raises(InvalidRequest, match=r"\|only: is no action"):
        get(f"file://{tmp_path}/a/|only:", here)


def test_what_is_moved_is_never_in_the_way(tmp_path):
    """What is fetched into a folder by |mv: leaves a file of its name above that folder alone."""
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "x").write_text("new")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "x").write_text("old")
    get(f"{tmp_path}/from/x|mv:a", tmp_path / "here")
    assert (tmp_path / "here" / "x").read_text() == "old" and (tmp_path / "here" / "a" / "x").read_text() == "new"
