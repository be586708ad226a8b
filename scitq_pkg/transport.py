"""One kept-alive HTTP/1.1 connection over the standard library, for everybody who speaks to a server.

`http.client` reads the answers; the request is written here in one piece, so that it leaves in one packet, and so that what
happens when a connection dies half-way is decided in one place. `ssl` is used for https only.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPException, HTTPResponse, IncompleteRead
from urllib.parse import quote, urlencode

from . import __version__
from .address import server_url, split_url
from .errors import InvalidRequest, ScitqError, Unreachable, error_from_answer

CONNECT_SECONDS = 15.0
_READ_BYTES = 256 * 1024
_ONE_PACKET_BYTES = 64 * 1024
_SAFE_METHODS = ("GET", "HEAD")


class Interrupted(Unreachable):
    """`interrupt()` ended the request before its answer came."""


class Unanswered(Unreachable):
    """The connection ended after the request had been sent: the server may have done what was asked, or not."""


class Answer:
    """What a server said: `status`, `headers` (names in any case) and `body`."""

    __slots__ = ("status", "headers", "body", "url")

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, url: str):
        self.status, self.headers, self.body, self.url = status, headers, body, url

    def json(self):
        """The body as JSON values. Raises Unreachable if it is none: then it is not our server that spoke."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise not_ours(self, "the answer is not JSON") from None


class Connection:
    """A connection to one server, opened by the first request, opened again when it was closed. Threads take turns."""

    def __init__(self, url: str | None = None, token: str | None = None, timeout: float = 30.0, ca: str | None = None):
        """`url` as `address.server_url` takes it; `timeout` in seconds, for a whole request; `ca` a PEM file of trusted
        authorities (default `$SCITQ_CA`, else the system's)."""
        self.url = server_url(url)
        self.timeout = timeout
        self._scheme, self._host, self._port, self._prefix = split_url(self.url)
        self._ca = ca or os.environ.get("SCITQ_CA") or None
        self._head = self._common_head(token)
        self._socket: socket.socket | None = None
        self._turn = threading.Lock()
        self._state = threading.Lock()  # guards what follows against interrupt()
        self._busy = self._interrupted = self._sent = False

    def request(
        self,
        method: str,
        path: str,
        body: bytes | dict | list | None = None,
        query: Mapping | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        into: io.BufferedIOBase | None = None,
    ) -> Answer:
        """Sends one request and reads its answer, whatever its status (see `raise_for`).

        A body that is no bytes is sent as JSON. `query` leaves out what is None and joins lists with commas. A kept connection
        that the server closed is opened again once; a request that the server may have taken already is sent twice only if
        that is harmless (GET, or an `Idempotency-Key`). The body of a success is written to the file `into`, if one is given.
        Raises Unreachable in a sentence (Unanswered if the request had been sent), Interrupted after `interrupt()`.
        """
        headers = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, bytearray, memoryview)):
            body = json.dumps(body, separators=(",", ":")).encode()
            headers.setdefault("Content-Type", "application/json")
        head = self._request_head(method, path + query_string(query), headers, body)
        repeatable = method in _SAFE_METHODS or "Idempotency-Key" in headers
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        with self._turn, self._in_flight():
            return self._exchange(method, head, body, deadline, repeatable, into)

    def interrupt(self) -> None:
        """Ends the request that is in flight in another thread: it raises Interrupted. Without one, nothing happens."""
        with self._state:
            if self._busy:
                self._interrupted = True
                _shut(self._socket)

    def close(self) -> None:
        """Closes the connection; the next request opens a new one."""
        with self._turn:
            self._drop()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __del__(self) -> None:  # scripts seldom close what they asked with
        if sock := getattr(self, "_socket", None):
            sock.close()

    # --- one exchange -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _in_flight(self) -> Iterator[None]:
        with self._state:
            self._busy, self._interrupted, self._sent = True, False, False
        whole = False
        try:
            yield
            whole = True
        except ScitqError:
            raise
        except (OSError, HTTPException) as error:
            raise self._unreachable(error) from None
        finally:
            with self._state:
                self._busy = False
            if not whole:
                self._drop()

    def _exchange(
        self, method: str, head: bytes, body, deadline: float, repeatable: bool, into: io.BufferedIOBase | None
    ) -> Answer:  # fmt: skip
        kept = self._socket is not None and not _has_news(self._socket)
        if not kept:
            self._open(deadline)
        try:
            return self._send_and_read(method, head, body, deadline, into)
        except (ConnectionError, HTTPException):
            if not (kept and repeatable) or self._interrupted:
                raise
        if into is not None:
            into.seek(0)
            into.truncate()
        self._open(deadline)
        return self._send_and_read(method, head, body, deadline, into)

    def _send_and_read(self, method: str, head: bytes, body, deadline: float, into: io.BufferedIOBase | None) -> Answer:
        sock = self._socket
        sock.settimeout(_left(deadline))
        refused, self._sent = None, True
        try:
            _send(sock, head, body)
        except ConnectionError as error:  # a server may answer (too large, say) and close before it has read everything
            refused = error
        with HTTPResponse(_Received(sock, deadline), method=method) as response:  # type: ignore[arg-type]
            try:
                response.begin()
            except (ConnectionError, HTTPException) as error:
                raise refused or error from None
            received = _read(response, into if response.status < 300 else None)
            answer = Answer(response.status, response.headers, received, self.url)
        if response.will_close or refused:
            self._drop()
        return answer

    def _open(self, deadline: float) -> None:
        self._drop()
        host = self._host.encode()  # bytes: getaddrinfo would load the tables of international names for a str
        sock = socket.create_connection((host, self._port), min(CONNECT_SECONDS, _left(deadline)))
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._scheme == "https":
                sock = _tls(sock, self._host, self._ca)
        except BaseException:
            sock.close()
            raise
        with self._state:
            self._socket = sock
            if self._interrupted:
                raise ConnectionAbortedError("interrupted")

    def _drop(self) -> None:
        with self._state:
            sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    # --- words ----------------------------------------------------------------------------------------------------

    def _common_head(self, token: str | None) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        lines = [f"Host: {host}:{self._port}", f"User-Agent: scitq/{__version__}", "Accept-Encoding: identity"]
        if token:
            lines.append(_header("Authorization", f"Bearer {token}"))
        return "".join(line + "\r\n" for line in lines)

    def _request_head(self, method: str, target: str, headers: Mapping[str, str], body) -> bytes:
        target = quote(self._prefix + target, safe="/?&=%:,;@!$'()*+~-._[]#")
        size = len(body) if body is not None else None if method in _SAFE_METHODS else 0
        length = "" if size is None else f"Content-Length: {size}\r\n"
        more = "".join(_header(name, value) + "\r\n" for name, value in headers.items())
        return f"{method} {target} HTTP/1.1\r\n{self._head}{length}{more}\r\n".encode("latin-1")

    def _unreachable(self, error: Exception) -> Unreachable:
        if self._interrupted:
            return Interrupted(f"the request to {self.url} was interrupted")
        is_http = isinstance(error, (ConnectionError, IncompleteRead)) or not isinstance(error, HTTPException)
        return (Unanswered if self._sent and is_http else Unreachable)(_why(error, self.url, self._host))


def raise_for(answer: Answer) -> Answer:
    """The answer itself if it is a success; raises the error it stands for, or Unreachable if it is not our server's."""
    if answer.status < 300:
        if not _is_ours(answer):
            raise not_ours(answer)
        return answer
    if answer.status < 400:
        raise not_ours(answer, f"it leads to {answer.headers.get('Location')}")
    told = _told(answer)
    if told is None:
        raise not_ours(answer)
    raise error_from_answer(answer.status, told)


def not_ours(answer: Answer, why: str | None = None) -> Unreachable:
    """The error for an answer that no scitq server gives."""
    who = answer.headers.get("Server")
    detail = why or f"it answered {answer.status}" + (f" and calls itself {who!r:.60}" if who else "")
    return Unreachable(f"what answers at {answer.url} is not a scitq server ({detail}): {_ELSEWHERE}")


def query_string(query: Mapping | None) -> str:
    """`?a=1&b=x,y`, or nothing: None is left out, lists are joined with commas, booleans are `true` and `false`.

    Raises InvalidRequest for what is no text: words of a command line may be any bytes.
    """
    pairs = [(name, _query_value(value)) for name, value in (query or {}).items() if value is not None]
    for name, value in pairs:
        if not value.isascii() and value != value.encode(errors="replace").decode():
            raise InvalidRequest(f"{value!r:.80} is not UTF-8 text", field=name)
    return "?" + urlencode(pairs) if pairs else ""


def _query_value(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple, set, frozenset)):
        return ",".join(map(str, value))
    return str(value)


def _told(answer: Answer) -> dict | None:
    """The body of an error of ours, `{"error": ...}`; {} when the server is ours and says nothing; None when it is not ours."""
    with contextlib.suppress(ValueError):  # any other body
        plain = json.loads(answer.body)
        if isinstance(plain, dict) and isinstance(plain.get("error"), dict):
            return plain
    return {} if _names_itself(answer) else None


def _names_itself(answer: Answer) -> bool:
    return (answer.headers.get("Server") or "").startswith("scitq/")


def _is_ours(answer: Answer) -> bool:
    """A proxy may have put its own name in `Server`: then JSON, or a header of ours, has to do."""
    if _names_itself(answer) or answer.headers.get("X-Scitq-Next") or answer.headers.get("X-Scitq-Sha256"):
        return True
    return answer.status == 204 or (answer.headers.get("Content-Type") or "").startswith("application/json")


def _header(name: str, value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise InvalidRequest(f"the header {name} can hold printable ASCII only")
    return f"{name}: {value}"


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _send(sock: socket.socket, head: bytes, body) -> None:
    if body is not None and len(body) <= _ONE_PACKET_BYTES:
        sock.sendall(b"".join((head, body)))
        return
    sock.sendall(head)
    if body is not None:
        sock.sendall(body)


class _Received(io.RawIOBase):
    """What a socket receives until the deadline, which holds for all of it: a trickle does not hold the caller for ever."""

    def __init__(self, sock: socket.socket, deadline: float):
        self._sock, self._deadline = sock, deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        """As http.client asks a socket for it."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        self._sock.settimeout(_left(self._deadline))
        return self._sock.recv_into(buffer)


def _read(response: HTTPResponse, into: io.BufferedIOBase | None) -> bytes:
    """The whole body; nothing when it was written to a file."""
    parts: list[bytes] = []
    take = parts.append if into is None else into.write
    while part := response.read1(_READ_BYTES):
        take(part)
    if response.length:  # read1 says nothing of an early end
        raise ConnectionResetError("the answer was cut")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _has_news(sock: socket.socket) -> bool:
    """Whether an idle connection is readable: it was closed, or something came that nobody asked for."""
    poller = select.poll()
    poller.register(sock, select.POLLIN | select.POLLERR | select.POLLHUP)
    return bool(poller.poll(0))


def _shut(sock: socket.socket | None) -> None:
    if sock is not None:
        with contextlib.suppress(OSError):  # it was closed by the other side already
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not ssl's: that one changes what the reading thread uses


def _tls(sock: socket.socket, host: str, ca: str | None) -> socket.socket:
    import ssl  # 5 ms that http does not pay

    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise InvalidRequest(f"the file of authorities {ca} cannot be used: {error}", field="ca") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context.wrap_socket(sock, server_hostname=host)


_ELSEWHERE = "give another address with -s or SCITQ_SERVER"
_ADVICE = "is `scitq server` running there? -s or SCITQ_SERVER gives another address"


def _why(error: Exception, url: str, host: str) -> str:
    """What went wrong, in a sentence that says what to do."""
    kind = type(error).__name__
    if isinstance(error, ConnectionRefusedError):
        return f"no server answers at {url} (connection refused): {_ADVICE}"
    if isinstance(error, socket.gaierror):
        return f"the host {host!r} of {url} is not known here ({error.strerror}): check the address given with -s or SCITQ_SERVER"
    if isinstance(error, TimeoutError):
        return f"{url} did not answer in time: try again, or {_ELSEWHERE}"
    if kind == "SSLCertVerificationError":
        return f"the certificate of {url} is not trusted ({error.verify_message}): name its authority's file in SCITQ_CA"
    if isinstance(error, OSError) and kind.startswith("SSL"):
        return f"{url} cannot be spoken to with TLS ({error.reason or error}): does it want http:// instead?"
    if isinstance(error, ConnectionError) or kind in ("RemoteDisconnected", "IncompleteRead"):
        return f"{url} closed the connection without a whole answer: is the server being restarted, or does it want https://?"
    if isinstance(error, OSError):
        return f"{url} cannot be reached ({error.strerror or error}): {_ADVICE}"
    return f"what answers at {url} does not speak HTTP ({kind}): {_ELSEWHERE}, or https://"
