"""What `s3://` does by itself rather than through botocore: the signature, the connection; and files that are settled together.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from contextlib import contextmanager, suppress

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from scitq.errors import TransferFailed
from scitq.fetch import get, parts, put
from scitq.fetch.arrivals import MOST, Arrivals
from scitq.fetch.parallel import together
from scitq.fetch.progress import Meter
from scitq.fetch.s3line import Line, Strange
from scitq.fetch.s3signature import Signer
from scitq.fetch.scheme import Entry, Scheme
from scitq.fetch.transfer import download, insist
from scitq.fetch.uri import Uri

MIB = 2**20


@pytest.mark.parametrize("token", [None, "a+b/c="])
@pytest.mark.parametrize("method, body, extra", [("GET", b"", {"range": "bytes=5-9", "if-match": '"ab"'}), ("PUT", b"data", {})])
def test_the_signature_is_botocores(method, body, extra, token):
    credentials = Credentials("key", "secret", token)
    ours = Signer(lambda: credentials.get_frozen_credentials(), "eu-west-3").headers(
        method, "host:9000", "/bucket/a%20b/%C3%BC~c", extra, body
    )
    request = AWSRequest(method, "http://host:9000/bucket/a%20b/%C3%BC~c", data=body, headers=dict(extra))
    signer = S3SigV4Auth(credentials, "s3", "eu-west-3")
    request.context["timestamp"] = ours["x-amz-date"]
    request.headers["X-Amz-Date"] = ours["x-amz-date"]
    request.headers["X-Amz-Content-SHA256"] = signer.payload(request)
    if token:
        request.headers["X-Amz-Security-Token"] = token
    text = signer.string_to_sign(request, signer.canonical_request(request))
    assert ours["authorization"].endswith("Signature=" + signer.signature(text, request))
    assert f"SignedHeaders={signer.signed_headers(signer.headers_to_sign(request))}," in ours["authorization"]


@contextmanager
def answering(*answers: bytes):
    """A server that gives one of these to each request over one connection, then ends it; its port."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for answer in answers:
                connection.recv(65536)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(60)


def test_a_connection_is_used_again_while_the_server_keeps_it():
    plain = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 5\r\n\r\nhello'
    last = plain.replace(b"ETag", b"Connection: Close\r\nETag")
    with answering(plain, last) as port:
        line = Line("127.0.0.1", port, None)
        for is_free in (True, False):
            status, fields = line.ask("GET", "/a", {"host": "x"})
            assert (status, fields[b"etag"], line.body(), line.is_free) == (200, b'"x"', b"hello", is_free)
        line.close()


def test_a_large_body_comes_in_pieces():
    data = os.urandom(MIB + 7)
    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data) + data) as port:
        line = Line("127.0.0.1", port, None)
        line.ask("GET", "/a", {})
        assert b"".join(bytes(piece) for piece in line.pieces()) == data and line.is_free
        line.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"220 ftp ready\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
    ],
)
def test_any_other_answer_is_strange(answer):
    with answering(answer) as port:
        line = Line("127.0.0.1", port, None)
        with pytest.raises((Strange, ConnectionError)):
            line.ask("GET", "/a", {})
        line.close()


def test_what_came_before_a_connection_broke_is_not_lost():
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b"x" * 99) as port:
        line, came = Line("127.0.0.1", port, None), bytearray()
        line.ask("GET", "/a", {})
        with pytest.raises(ConnectionError):
            for piece in line.pieces():
                came += piece
        assert came == b"x" * 99 and not line.is_free
        line.close()


class Memory(Scheme):
    """Files in memory."""

    def __init__(self, files: dict[str, bytes]):
        super().__init__("memory", ())
        self.contents = files

    def read(self, entry, start, stop):
        yield self.contents[entry.path][start:stop]

    def whole(self, entry):
        return self.contents[entry.path] if entry.size < MIB else None

    def entry(self, path: str) -> Entry:
        data = self.contents[path]
        return Entry(Uri.of(f"s3://memory/{path}"), path, len(data), None, hashlib.md5(data).hexdigest())


def test_a_large_file_is_summed_while_it_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", MIB)
    monkeypatch.setattr("scitq.fetch.transfer.PART_BYTES", MIB)
    monkeypatch.setattr("scitq.fetch.transfer.md5_of", lambda path: pytest.fail("it was read again"))
    place = Memory({"a": os.urandom(5 * MIB + 3)})
    download(place, place.entry("a"), tmp_path / "a", Meter())
    assert (tmp_path / "a").read_bytes() == place.contents["a"] and [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("size", [100, 5 * MIB + 3])
def test_a_wrong_sum_is_noticed_on_the_way(tmp_path, monkeypatch, size):
    monkeypatch.setattr(parts, "PART_BYTES", MIB)
    monkeypatch.setattr("scitq.fetch.transfer.PART_BYTES", MIB)
    place = Memory({"a": os.urandom(size)})
    entry = place.entry("a")
    place.contents["a"] = bytes(size)
    with pytest.raises(TransferFailed, match="its md5 is"):
        download(place, entry, tmp_path / "a", Meter(), tries=1)
    assert not (tmp_path / "a").exists()


def test_small_files_get_their_names_after_they_are_on_the_disk(tmp_path, monkeypatch):
    """Many at once; one that cannot have its name stops no other."""
    order: list[tuple[str, str]] = []
    synced, renamed = os.fsync, os.replace

    def sync(descriptor) -> None:
        order.append(("disk", os.readlink(f"/proc/self/fd/{descriptor}")))
        synced(descriptor)

    def replace(source, target) -> None:
        order.append(("name", str(source)))
        renamed(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    place = Memory({f"f{number:03}": os.urandom(50) for number in range(3 * MOST)})
    (tmp_path / "f007" / "in the way").mkdir(parents=True)
    with pytest.raises(TransferFailed, match="s3://memory/f007"):
        with Arrivals() as arrivals:
            for path in sorted(place.contents):
                with suppress(TransferFailed):  # of f007, told to whoever comes next
                    download(place, place.entry(path), tmp_path / path, Meter(), arrivals=arrivals)
    assert {path.name for path in tmp_path.iterdir() if path.is_file() and path.name[0] != "."} == place.contents.keys() - {
        "f007"
    }
    for what, path in order:
        if what == "name":
            assert order.index(("disk", path)) < order.index(("name", path))


def test_a_uri_is_told_once():
    def fails() -> None:
        raise TransferFailed("s3://b/k: no answer", again=True)

    with pytest.raises(TransferFailed, match=r"^s3://b/k: no answer \(tried 1 times\)$"):
        insist(fails, Meter(), "s3://b/k", tries=1)


def test_a_terminal_shows_why_it_is_waited(monkeypatch, capsys):
    monkeypatch.setattr("scitq.fetch.progress.obeyed", lambda stream: True)
    Meter(True).wait(0.001, "s3://b/k: no answer\x1b[2J")
    assert capsys.readouterr().err == "\ragain in 0 s: s3://b/k: no answer\\x1b[2J\x1b[K"
    Meter().wait(0.001, "s3://b/k: no answer")
    assert capsys.readouterr().err == ""


def test_the_first_error_ends_all_and_is_told():
    meter, done = Meter(), []

    def work(number: int) -> None:
        if number == 5:
            raise ValueError("five")
        meter.wait(0)
        done.append(number)

    def numbers():
        yield from range(1_000_000)

    with pytest.raises(ValueError, match="five"):
        together(work, numbers(), 4, meter)
    assert len(done) < 1_000_000
    with pytest.raises(TransferFailed):
        meter.add(1)


def test_an_error_while_things_are_found_is_told():
    def numbers():
        yield 1
        raise KeyError("two")

    done = []
    with pytest.raises(KeyError, match="two"):
        together(done.append, numbers(), 3, Meter())
    assert done == [1]


def test_many_small_files_go_there_and_back(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(300):
        (tmp_path / "a" / f"{number}").write_bytes(os.urandom(number))
    put(tmp_path / "a", f"file://{tmp_path}/b/")
    get(f"file://{tmp_path}/b/", tmp_path / "c")
    assert {p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()
    }
