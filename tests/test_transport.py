"""The one connection, against real little servers: what it sends, what it survives, and what it says when it cannot."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

from scitq import errors, transport
from scitq.address import server_url

OURS = b"Server: scitq/0\r\n"


class Script:
    """A server that answers each connection by a function of its own, and remembers what it was sent."""

    def __init__(self, *steps, tls=None):
        self.steps, self.tls, self.received = list(steps), tls, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def _serve(self):
        for step in self.steps:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with sock, contextlib.suppress(OSError):  # the client went away: what it says of that is what the test looks at
                with self.tls.wrap_socket(sock, server_side=True) if self.tls else sock as spoken:
                    step(self, spoken)

    def read(self, sock) -> bytes:
        """One request: its head and the announced body."""
        data = b""
        while b"\r\n\r\n" not in data:
            part = sock.recv(65536)
            if not part:
                return b""
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        while len(body) < length:
            body += sock.recv(65536)
        self.received.append((head, body))
        return head

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(60)


def reply(body=b"{}", status=b"200 OK", more=b"Content-Type: application/json\r\n"):
    return b"HTTP/1.1 %s\r\n%s%sContent-Length: %d\r\n\r\n%s" % (status, OURS, more, len(body), body)


def answers(*replies):
    """Answers so many requests on one connection, then closes it."""

    def step(script, sock):
        for raw in replies:
            if script.read(sock):
                sock.sendall(raw)

    return step


@pytest.fixture
def script():
    made = []

    def start(*steps, **options):
        made.append(Script(*steps, **options))
        return made[-1]

    yield start
    for each in made:
        each.close()


def test_sends_json_query_and_token(script):
    server = script(answers(reply(b'{"ids": [1]}')))
    with transport.Connection(server.url, token="scitq_x") as connection:
        answer = connection.request("POST", "/api/v1/tasks", {"name": "é"}, query={"a": [1, 2], "b": None, "c": True})
    assert answer.json() == {"ids": [1]}
    head, body = server.received[0]
    assert head.startswith(b"POST /api/v1/tasks?a=1%2C2&c=true HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer scitq_x\r\n" in head
    assert json.loads(body) == {"name": "é"}


@pytest.mark.parametrize("value", ["\udcff", ["ok", "a\ud800"]])
def test_a_query_is_text(value):
    with pytest.raises(errors.InvalidRequest, match="is not UTF-8 text"):
        transport.query_string({"name": value})


def test_keeps_its_connection(script):
    server = script(answers(reply(), reply(b"[2]")), answers(reply(b"[3]")))
    connection = transport.Connection(server.url)
    connection.request("GET", "/")
    assert connection.request("POST", "/", b"x").json() == [2]
    assert len(server.received) == 2


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_opens_again_when_the_kept_connection_was_closed_while_idle(script, method):
    server = script(answers(reply()), answers(reply(b"[2]")))
    connection = transport.Connection(server.url)
    connection.request("GET", "/")
    wait_until(lambda: transport._has_news(connection._socket))
    assert connection.request(method, "/").json() == [2]


def closes_after_reading(script, sock):
    script.read(sock)
    sock.sendall(reply())
    script.read(sock)


def test_repeats_a_get_that_was_read_and_not_answered(script):
    server = script(closes_after_reading, answers(reply(b"[3]")))
    connection = transport.Connection(server.url)
    connection.request("GET", "/")
    assert connection.request("GET", "/").json() == [3]


def test_never_repeats_a_plain_write_that_may_have_been_taken(script):
    server = script(closes_after_reading, answers(reply(b"[3]")))
    connection = transport.Connection(server.url)
    connection.request("GET", "/")
    with pytest.raises(errors.Unreachable, match="closed the connection"):
        connection.request("POST", "/", {})
    assert connection.request("POST", "/", {}, headers={"Idempotency-Key": "k"}).json() == [3]
    assert len(server.received) == 3


def test_repeats_a_write_with_a_key(script):
    server = script(closes_after_reading, answers(reply(b"[3]")))
    connection = transport.Connection(server.url)
    connection.request("GET", "/")
    assert connection.request("POST", "/", {}, headers={"Idempotency-Key": "k"}).json() == [3]
    assert server.received[1][1] == server.received[2][1]


def test_takes_the_answer_to_a_body_that_was_refused_half_way(script):
    def refuse(script, sock):
        sock.recv(1000)
        sock.sendall(reply(b'{"error": {"code": "too_large", "message": "too large"}}', b"413 Too Large"))
        sock.shutdown(socket.SHUT_WR)

    server = script(refuse)
    with pytest.raises(errors.ScitqError) as caught:
        transport.raise_for(transport.Connection(server.url).request("POST", "/", b"x" * 50_000_000))
    assert isinstance(caught.value, (errors.TooLarge, errors.Unreachable))  # the kernel may drop the answer with the rest


def test_a_server_that_is_not_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(errors.Unreachable, match=f"127.0.0.1:{port} .connection refused.*SCITQ_SERVER"):
        transport.Connection(f"127.0.0.1:{port}").request("GET", "/")


def test_a_host_that_does_not_exist():
    with pytest.raises(errors.Unreachable, match="'no-such-host.invalid' .* is not known"):
        transport.Connection("no-such-host.invalid").request("GET", "/")


def test_silence_ends_at_the_timeout(script):
    server = script(lambda script, sock: sock.recv(65536) and sock.recv(65536))
    start = time.monotonic()
    with pytest.raises(errors.Unreachable, match="did not answer in time"):
        transport.Connection(server.url).request("GET", "/", timeout=0.3)
    assert time.monotonic() - start < 20


def test_a_trickle_ends_at_the_timeout(script):
    def trickle(script, sock):
        script.read(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        ended = threading.Event()
        while not ended.wait(0.05):
            sock.sendall(b"x")

    server = script(trickle)
    start = time.monotonic()
    with pytest.raises(errors.Unreachable, match="in time"):
        transport.Connection(server.url).request("GET", "/", timeout=0.4)
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    "raw", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhal"]
)
def test_a_cut_answer_is_no_answer(script, raw):
    server = script(answers(raw))
    with pytest.raises(errors.Unreachable, match="without a whole answer"):
        transport.Connection(server.url).request("GET", "/")


def test_chunked_answers(script):
    server = script(
        answers(b"HTTP/1.1 200 OK\r\n" + OURS + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", reply())
    )
    connection = transport.Connection(server.url)
    assert connection.request("GET", "/").body == b"abcde"
    assert connection.request("GET", "/").body == b"{}"


def test_what_speaks_no_http(script):
    def ssh(script, sock):
        sock.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
        sock.recv(65536)

    with pytest.raises(errors.Unreachable, match="does not speak HTTP"):
        transport.Connection(script(ssh).url).request("GET", "/")


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nServer: other\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 404 Not Found\r\nServer: other\r\nContent-Length: 2\r\n\r\nno",
        b'HTTP/1.1 404 No\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{"error": "nope"}',
        b"HTTP/1.1 301 Moved\r\nLocation: https://x/\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_is_no_scitq_server(script, raw):
    server = script(answers(raw))
    with pytest.raises(errors.Unreachable, match="is not a scitq server .*SCITQ_SERVER"):
        transport.raise_for(transport.Connection(server.url).request("GET", "/api/v1/server"))


def test_answers_become_errors(script):
    body = json.dumps({"error": {"code": "not_found", "message": "no task 7", "field": "id"}}).encode()
    server = script(answers(reply(body, b"404 Not Found")))
    with pytest.raises(errors.NotFound, match="id: no task 7"):
        transport.raise_for(transport.Connection(server.url).request("GET", "/api/v1/tasks/7"))


def test_an_error_without_words_still_tells_its_status(script):
    server = script(answers(reply(b"oops", b"500 Internal Server Error", b"")))
    with pytest.raises(errors.ScitqError, match="answered 500"):
        transport.raise_for(transport.Connection(server.url).request("GET", "/"))


def test_interrupt_ends_a_long_poll_from_another_thread(script):
    arrived = threading.Event()

    def hold(script, sock):
        script.read(sock)
        arrived.set()
        sock.recv(1)

    server = script(hold, answers(reply(b"[1]")))
    connection = transport.Connection(server.url)
    raised = []

    def poll():
        try:
            connection.request("GET", "/", timeout=60)
        except transport.Interrupted as error:
            raised.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    assert arrived.wait(60)
    connection.interrupt()
    thread.join(60)
    assert raised
    assert connection.request("GET", "/").json() == [1]


def test_interrupt_without_a_request_changes_nothing(script):
    server = script(answers(reply(), reply()))
    connection = transport.Connection(server.url)
    connection.interrupt()
    connection.request("GET", "/")
    connection.interrupt()
    connection.request("GET", "/")
    assert len(server.received) == 2


def test_headers_cannot_be_smuggled(script):
    with pytest.raises(errors.InvalidRequest, match="Authorization"):
        transport.Connection("127.0.0.1:1", token="x\r\nX: y")
    server = script(answers(reply()))
    transport.Connection(server.url).request("GET", "/a b\r\nX: y")
    assert server.received[0][0].startswith(b"GET /a%20b%0D%0AX:%20y HTTP/1.1\r\n")


def test_one_write_is_one_packet(script):
    seen = []

    def step(script, sock):
        seen.append(sock.recv(65536))
        sock.sendall(reply())

    transport.Connection(script(step).url).request("POST", "/", {"a": 1})
    assert seen[0].endswith(b'{"a":1}')


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context


def test_tls_with_a_known_authority_keeps_its_connection(script, certificate):
    cert, context = certificate
    server = script(answers(reply(), reply(b"[2]"), reply(b"[3]")), tls=context)
    connection = transport.Connection(server.url, ca=str(cert))
    connection.request("GET", "/")
    connection.request("GET", "/")
    assert connection.request("GET", "/").json() == [3]


def test_tls_refuses_an_unknown_authority(script, certificate):
    server = script(answers(reply()), tls=certificate[1])
    with pytest.raises(errors.Unreachable, match="is not trusted .*SCITQ_CA"):
        transport.Connection(server.url).request("GET", "/")
    assert not server.received


def test_tls_spoken_to_plain_http(script):
    server = script(lambda script, sock: sock.recv(65536) and sock.sendall(reply(status=b"400 Bad Request")))
    with pytest.raises(errors.Unreachable, match="want http://"):
        transport.Connection(server.url.replace("http:", "https:")).request("GET", "/", timeout=5)


def test_authorities_that_cannot_be_read(script, tmp_path):
    server = script(answers(reply()))
    with pytest.raises(errors.InvalidRequest, match="nothing.pem"):
        transport.Connection(server.url.replace("http:", "https:"), ca=str(tmp_path / "nothing.pem")).request("GET", "/")


def test_plain_http_spoken_to_tls(script, certificate):
    server = script(answers(reply()), tls=certificate[1])
    with pytest.raises(errors.Unreachable, match="https://"):
        transport.Connection(server.url.replace("https:", "http:")).request("GET", "/", timeout=5)


# --- a server of the standard library, and IPv6 -----------------------------------------------------------------------


class Six(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


def test_ipv6():
    try:
        server = Six(("::1", 0), http.server.SimpleHTTPRequestHandler)
    except OSError:
        pytest.skip("no IPv6 here")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        answer = transport.Connection(f"[::1]:{server.server_port}").request("HEAD", "/nothing-here")
        assert answer.status == 404 and answer.body == b""
    finally:
        server.shutdown()
        server.server_close()


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:5000"),
        ("lab:7000", "http://lab:7000"),
        ("LAB", "http://lab:5000"),
        ("http://lab", "http://lab:5000"),
        ("https://lab:443/queue/", "https://lab:443/queue"),
        ("::1", "http://[::1]:5000"),
        ("[fe80::1]:80", "http://[fe80::1]:80"),
        ("bücher.example", "http://xn--bcher-kva.example:5000"),
    ],
)
def test_addresses(given, url):
    assert server_url(given) == url
    assert server_url(url) == url


@pytest.mark.parametrize(
    "given", ["a b", "h:99999", "h:x", "h:0", "ftp://h", "http://u:p@h", "http://", "http://h?x=1", "[::1", "h\0"]
)
def test_wrong_addresses_are_told(given):
    with pytest.raises(errors.InvalidRequest, match="is not the address of a server .*host:port"):
        server_url(given)


def test_the_environment_gives_the_default(monkeypatch):
    monkeypatch.setenv("SCITQ_SERVER", "node:1234")
    assert transport.Connection().url == "http://node:1234"
    monkeypatch.delenv("SCITQ_SERVER")
    assert transport.Connection().url == "http://127.0.0.1:5000"


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)
