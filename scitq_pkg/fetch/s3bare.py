"""Objects of S3 by bare HTTP: one signed request over a connection that stays open, a tenth of what botocore spends on it.

It does nothing but succeed: whatever else happens is left to botocore, which then does the same again and knows all errors.
"""

from __future__ import annotations

import ssl
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from functools import cached_property
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError
from botocore.utils import get_environ_proxies, percent_encode

from .refusals import check_endpoint
from .s3client import Connection
from .s3line import Line, Strange
from .s3signature import Signer

SMALL_BYTES = 4 * 2**20  # an object that is held in memory as a whole
_MARK = "x"  # a key whose address shows that of its bucket
_PORTS = {"http": 80, "https": 443}


class Bare:
    """Gets and puts objects. One for all threads: who needs a connection takes one that is idle."""

    def __init__(self, connection: Connection):
        self._connection = connection
        region = connection.client.meta.region_name
        credentials = connection.session.get_credentials()
        self._signer = Signer(
            lambda: credentials.get_frozen_credentials(), "us-east-1" if region in (None, "aws-global") else region
        )
        self._hosts: dict[str, _Host | None] = {}
        weakref.finalize(self, _close, self._hosts)  # before the collector of cycles comes to the sockets themselves

    def get(self, bucket: str, key: str) -> tuple[str, bytes] | None:
        """ETag (without quotation marks) and content of a small object; None: let botocore do it."""
        host = self._host(bucket)
        line, fields = host.ask("GET", key) if host else (None, {})
        data = host.finish(line) if host and line else None
        return None if data is None else (_etag(fields), data)

    def put(self, bucket: str, key: str, data: bytes) -> bool:
        """Whether it is there now; else let botocore do it."""
        host = self._host(bucket)
        line, _ = host.ask("PUT", key, {"content-length": str(len(data))}, data) if host else (None, {})
        return bool(host and line) and host.finish(line) is not None

    def read(self, bucket: str, key: str, etag: str | None, start: int, stop: int | None) -> Iterator[memoryview] | None:
        """The bytes from `start` to `stop` (None: the end) of the object that has this ETag; None: let botocore do it.

        A piece holds only until the next is asked for. Raises OSError when the connection breaks.
        """
        host = self._host(bucket)
        if host is None or etag is None:
            return None
        part = bool(start) or stop is not None
        wanted = {"if-match": f'"{etag}"'}
        if part:
            wanted["range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        line, fields = host.ask("GET", key, wanted)
        if line is None:
            return None
        if _etag(fields) != etag or part != (b"content-range" in fields):  # not every server knows If-Match, and ranges
            line.close()
            return None
        return self._pieces(host, line)

    @staticmethod
    def _pieces(host: _Host, line: Line) -> Iterator[memoryview]:
        try:
            yield from line.pieces()
            host.take_back(line)
        except BaseException:
            line.close()
            raise

    def _host(self, bucket: str) -> _Host | None:
        """Where a bucket is; None where more is needed than a signature."""
        if bucket not in self._hosts:
            address = self._address(bucket)
            host = None if address is None else _Host(address, self._signer, lambda: self._trusted)
            self._hosts.setdefault(bucket, host)  # another thread may have been faster, and have connections there
        return self._hosts[bucket]

    def _address(self, bucket: str) -> str | None:
        """The URL of a bucket, with a final `/`. Raises NotAllowed if it is refused here."""
        if not self._connection.signed or ":" in bucket or bucket.endswith("--x-s3"):
            return None
        try:
            url = self._connection.client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": _MARK})
        except BotoCoreError:
            return None
        address = url.partition("?")[0]
        check_endpoint(address)
        return None if get_environ_proxies(address) else address.removesuffix(_MARK)

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._connection.certificates)


class _Host:
    """A bucket at its address, and the connections to there that are idle."""

    def __init__(self, address: str, signer: Signer, trusted: Callable[[], ssl.SSLContext]):
        url = urlsplit(address)
        assert url.hostname is not None
        self._name, self._port, self._path = url.hostname, url.port or _PORTS[url.scheme], url.path
        self._told = url.netloc if url.port not in (None, _PORTS[url.scheme]) else url.hostname  # as servers check it
        self._context = trusted() if url.scheme == "https" else None
        self._signer = signer
        self._idle: deque[Line] = deque()

    def ask(self, method: str, key: str, extra: dict[str, str] | None = None, data: bytes = b"") -> tuple[Line | None, dict]:
        """A connection whose answer says that all is well, and its headers; None, and the connection is closed."""
        path = self._path + percent_encode(key, safe="/~")
        line = None
        try:
            headers = self._signer.headers(method, self._told, path, extra or {}, data)
            line = self._line()
            status, fields = line.ask(method, path, headers, data)
            if status in (200, 206):
                return line, fields
        except (OSError, Strange, BotoCoreError):
            pass  # botocore will tell
        if line is not None:
            line.close()  # the server may not have read all
        return None, {}

    def finish(self, line: Line) -> bytes | None:
        """The body of a small answer; None if the connection broke. Another may ask over it then."""
        try:
            data = line.body()
        except OSError:
            line.close()
            return None
        self.take_back(line)
        return data

    def take_back(self, line: Line) -> None:
        """A connection whose answer was read."""
        if line.is_free:
            self._idle.append(line)
        else:
            line.close()

    def close(self) -> None:
        """Ends the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _line(self) -> Line:
        try:
            return self._idle.pop()
        except IndexError:
            return Line(self._name, self._port, self._context)


def _close(hosts: dict[str, _Host | None]) -> None:
    for host in filter(None, hosts.values()):
        host.close()


def _etag(fields: dict[bytes, bytes]) -> str:
    return fields.get(b"etag", b"").decode("latin-1").strip('"')
