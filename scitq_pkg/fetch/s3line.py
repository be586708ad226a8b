"""One kept-alive HTTP/1.1 connection for the two requests that S3 sees most: get and put an object.

It understands plain answers only: a status and `Content-Length` bytes. Any other raises Strange, and then the connection is of
no more use.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

from .scheme import STALL_SECONDS

_HEAD_BYTES = 64 * 1024  # more than the head of an answer takes
_PIECE_BYTES = 256 * 1024  # stays in a processor's cache on its way from the socket to the file
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Strange(Exception):
    """An answer that is not the plain one."""


class Line:
    """A connection to one host. Every method may raise OSError."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None):
        bare = socket.create_connection((host, port), timeout=STALL_SECONDS)
        bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = bare if context is None else context.wrap_socket(bare, server_hostname=host)  # closes it if that fails
        self._buffer = bytearray(_HEAD_BYTES)
        self._begun = memoryview(b"")  # of the body: what came with the head
        self._left = 0  # bytes of the body that were not read yet
        self.is_kept = True  # by the server, for another request

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, dict[bytes, bytes]]:
        """Status and headers (small names) of the answer. Raises Strange."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
        if len(body) <= _HEAD_BYTES:
            self._socket.sendall(head + body)
        else:
            self._socket.sendall(head)
            self._socket.sendall(body)
        answer, self._begun = self._head()
        found = _STATUS.match(answer)
        fields = dict(map(_field, answer.split(b"\r\n")[1:]))
        if found is None or b"content-encoding" in fields or not fields.get(b"content-length", b"").isdigit():
            raise Strange
        self._left = int(fields[b"content-length"])
        self.is_kept = fields.get(b"connection", b"").lower() != b"close"
        return int(found[1]), fields

    def _head(self) -> tuple[bytes, memoryview]:
        """The head of an answer, and what came after it."""
        view, end, size = memoryview(self._buffer), -1, 0
        while end < 0:
            came = self._socket.recv_into(view[size:]) if size < len(view) else 0
            if not came:
                raise Strange
            end = self._buffer.find(b"\r\n\r\n", max(0, size - 3), size + came)
            size += came
        return bytes(view[:end]), view[end + 4 : size]

    def body(self) -> bytes:
        """All of it, of a small answer."""
        whole = bytearray(self._left)
        at = 0
        for piece in self.pieces():
            whole[at : at + len(piece)] = piece
            at += len(piece)
        return bytes(whole)

    def pieces(self) -> Iterator[memoryview]:
        """The body as it comes; each piece holds only until the next is asked for. Raises ConnectionError if it ends too soon."""
        if self._begun:
            piece, self._begun = self._begun[: self._left], memoryview(b"")
            self._left -= len(piece)
            yield piece
        view = memoryview(bytearray(min(_PIECE_BYTES, self._left)))
        while self._left:
            size, error = self._filled(view[: self._left])
            self._left -= size
            if size:
                yield view[:size]
            if error:
                raise error

    def _filled(self, view: memoryview) -> tuple[int, OSError | None]:
        """How many bytes came into it, and why not all: what came before a line broke counts too."""
        size = 0
        try:
            while size < len(view):
                came = self._socket.recv_into(view[size:])
                if not came:
                    raise ConnectionResetError("the connection ended too soon")
                size += came
        except OSError as error:
            return size, error
        return size, None

    @property
    def is_free(self) -> bool:
        """Whether the answer was read to its end, and another may be asked for."""
        return not self._left and self.is_kept

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip()
