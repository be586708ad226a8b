"""`http://` and `https://`: files of web servers, read only; `@aria2` lets aria2c do it over many connections."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timezone
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

import requests

from .. import __version__
from ..errors import NotAllowed, NotFound, TransferFailed
from ..uris import shown
from . import aria2, refusals
from .certificates import certificates
from .progress import Meter
from .scheme import CHUNK_BYTES, STALL_SECONDS, Entry, Replaced, Scheme
from .uri import Uri

_CONNECT_SECONDS = 15.0
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
_NOT_ALLOWED = (401, 403, 407)


class Place(Scheme):
    """Anything that answers HTTP. Proxies come from the environment, passwords from `~/.netrc` or the URI."""

    options = ("aria2",)

    def __init__(self, name: str, options: tuple[str, ...]):
        super().__init__(name, options)
        self._session = _Session()
        self._session.headers.update({"User-Agent": f"scitq/{__version__}", "Accept-Encoding": "identity"})
        adapter = requests.adapters.HTTPAdapter(pool_connections=self.files, pool_maxsize=self.files * self.streams)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        self._session.verify = certificates() or True

    def info(self, uri: Uri) -> Entry:
        answer = self._ask("HEAD", uri)
        if answer.status_code in (403, 405, 501):  # servers that sign URLs for GET alone, or know no HEAD
            answer = self._ask("GET", uri, {"Range": "bytes=0-0"})
        with answer:
            self._check(answer, uri)
            return _entry(uri, answer)

    def read(self, entry: Entry, start: int, stop: int | None) -> Iterator[bytes]:
        headers = {}
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
            if entry.etag and not entry.etag.startswith("W/"):
                headers["If-Range"] = entry.etag
            elif entry.modified_at:
                headers["If-Range"] = format_datetime(entry.modified_at, usegmt=True)
        with self._ask("GET", entry.uri, headers) as answer:
            self._check(answer, entry.uri)
            skip = start if answer.status_code == 200 else 0  # it knows no ranges, or the file is another one now
            if headers and _is_another(_entry(entry.uri, answer), entry):
                raise Replaced(entry.uri)
            if answer.status_code == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise TransferFailed(f"{entry.uri}: the server gives another part of it than it was asked for", again=True)
            yield from self._bytes(answer, entry, skip, None if stop is None else stop - start)

    def fetch(self, entry: Entry, part: Path, meter: Meter) -> bool:
        return "aria2" in self.chosen and not refusals.any_are_set() and aria2.fetch(_url(entry.uri), part, meter)

    def _ask(self, method: str, uri: Uri, headers: dict | None = None) -> requests.Response:
        try:
            return self._session.request(
                method, _url(uri), headers=headers, stream=True, allow_redirects=True, timeout=(_CONNECT_SECONDS, STALL_SECONDS)
            )
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            if refusal := refusals.behind(error):
                raise NotAllowed(f"{uri}: {refusal}") from error
            if not isinstance(error, requests.exceptions.SSLError):
                raise TransferFailed(f"{uri}: no answer ({_cause(error)})", again=True) from error
            raise TransferFailed(f"{uri}: the server's certificate is not trusted here ({_cause(error)})") from error
        except requests.exceptions.RequestException as error:
            raise TransferFailed(f"{uri}: {shown(_cause(error))}") from error

    def _check(self, answer: requests.Response, uri: Uri) -> None:
        status = answer.status_code
        if status < 300:
            return
        if status in (404, 410):
            raise NotFound(f"{uri}: there is no such file ({status})")
        if status in _NOT_ALLOWED:
            raise NotAllowed(f"{uri}: the server refuses it ({status} {answer.reason}): check the password, or ~/.netrc")
        raise TransferFailed(f"{uri}: the server answered {status} {answer.reason}", again=status in _MAY_PASS)

    def _bytes(self, answer: requests.Response, entry: Entry, skip: int, most: int | None) -> Iterator[bytes]:
        left = most
        try:
            while left is None or left > 0:
                data = answer.raw.read1(CHUNK_BYTES, decode_content=False)  # what is there, without waiting for more
                if not data:
                    return
                passed = min(skip, len(data))
                skip -= passed
                data = data[passed:] if left is None else data[passed : passed + left]
                left = None if left is None else left - len(data)
                if data:
                    yield data
        except OSError as error:
            raise TransferFailed(f"{entry.uri}: the connection was lost ({_cause(error)})", again=True) from error
        except Exception as error:  # urllib3's own kinds: a body that is cut off, a silent server
            raise TransferFailed(f"{entry.uri}: the connection was lost ({_cause(error)})", again=True) from error


class _Session(requests.Session):
    """Looks at each address that it is sent to, the first one too."""

    def send(self, request, **options):
        scheme, _, place = request.url.partition("://")
        refusals.check(Uri(scheme.lower(), place))
        return super().send(request, **options)


def _entry(uri: Uri, answer: requests.Response) -> Entry:
    """What the headers tell; of an answer to a range the whole size."""
    headers, size = answer.headers, None
    if answer.status_code == 206:
        total = headers.get("Content-Range", "").rpartition("/")[2]
        size = int(total) if total.isdigit() else None
    elif headers.get("Content-Length", "").isdigit() and "Content-Encoding" not in headers:
        size = int(headers["Content-Length"])
    modified = headers.get("Last-Modified")
    try:
        moment = parsedate_to_datetime(modified) if modified else None
        if moment:
            moment = moment.replace(tzinfo=moment.tzinfo or timezone.utc).astimezone(timezone.utc)
    except ValueError:
        moment = None  # not written as a time: then it says nothing
    ranges = answer.status_code == 206 or headers.get("Accept-Ranges") == "bytes"
    return Entry(uri, uri.name.partition("?")[0], size, moment, etag=headers.get("ETag"), ranges=ranges)


def _is_another(now: Entry, before: Entry) -> bool:
    """Whether two answers are of different content, as far as both tell."""
    pairs = [(now.size, before.size), (now.etag, before.etag), (now.modified_at, before.modified_at)]
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def _url(uri: Uri) -> str:
    return f"{uri.scheme}://{uri.place}"


def _cause(error: BaseException) -> str:
    """The innermost reason, without the addresses of objects that requests puts around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
