"""`ftp://`: anonymous, or with `user:password@` before the host; `@aria2` lets aria2c fetch."""

from __future__ import annotations

import contextlib
import ftplib
import posixpath
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import unquote

from ..errors import InvalidRequest, NotAllowed, NotFound, TransferFailed
from . import aria2, refusals
from .progress import Meter
from .scheme import STALL_SECONDS, Entry, Replaced, Scheme
from .transfer import sending
from .uri import Uri

_BLOCK_BYTES = 64 * 1024


class Place(Scheme):
    """FTP servers. A connection carries one file at a time, so each call opens its own."""

    options = ("aria2",)
    streams = 1  # public servers count connections
    files = 4

    def info(self, uri: Uri) -> Entry:
        with _connected(uri) as (ftp, path):
            ftp.voidcmd("TYPE I")
            return Entry(uri, posixpath.basename(path), ftp.size(path), _modified(ftp, path))

    def list(self, uri: Uri, recursive: bool = True) -> Iterator[Entry]:
        with _connected(uri) as (ftp, path):
            yield from _listed(ftp, uri, path, "", recursive)

    def read(self, entry: Entry, start: int, stop: int | None) -> Iterator[bytes]:
        with _connected(entry.uri) as (ftp, path):
            ftp.voidcmd("TYPE I")
            if start and _is_another(ftp, path, entry):
                raise Replaced(entry.uri)
            with ftp.transfercmd(f"RETR {path}", rest=start or None) as channel:
                while data := channel.recv(_BLOCK_BYTES):
                    yield data
            ftp.voidresp()

    def fetch(self, entry: Entry, part: Path, meter: Meter) -> bool:
        return "aria2" in self.chosen and not refusals.any_are_set() and aria2.fetch(f"ftp://{entry.uri.place}", part, meter)

    def put(self, path: Path, uri: Uri, meter: Meter) -> None:
        name = posixpath.basename(_place(uri)[3])
        with sending(path, name) as part, _connected(uri) as (ftp, target), open(path, "rb") as file:
            _make_folders(ftp, posixpath.dirname(target))
            part = posixpath.join(posixpath.dirname(target), part)
            try:
                ftp.storbinary(f"STOR {part}", file, _BLOCK_BYTES, lambda data: meter.add(len(data)))
                ftp.rename(part, target)
            except BaseException:
                with contextlib.suppress(*ftplib.all_errors):  # the connection is gone, or nothing was begun
                    ftp.delete(part)
                raise

    def delete(self, entries: list[Entry]) -> None:
        with _connected(entries[0].uri) as (ftp, _):
            for entry in entries:
                with contextlib.suppress(ftplib.error_perm):  # it is not there any more; another reason is found by listing again
                    ftp.delete(_place(entry.uri)[3])


@contextlib.contextmanager
def _connected(uri: Uri) -> Iterator[tuple[ftplib.FTP, str]]:
    """A connection that is logged in, and the path; what goes wrong is told as errors of ours."""
    host, port, (user, password), path = _place(uri)
    ftp = ftplib.FTP(timeout=STALL_SECONDS, encoding="utf-8")
    try:
        ftp.connect(host, port)
        ftp.login(user, password)
        yield ftp, path
    except ftplib.error_perm as error:
        code = str(error)[:3]
        if code in ("530", "532"):
            raise NotAllowed(f"{uri}: the server refuses to log in as {user or 'anonymous'} ({error})") from error
        raise (NotFound if code == "550" else TransferFailed)(f"{uri}: {error}") from error
    except UnicodeError as error:
        raise TransferFailed(f"{uri}: a name on the way is not UTF-8: rename it, or leave it out") from error
    except (ftplib.Error, EOFError, OSError) as error:
        if refusal := refusals.behind(error):
            raise NotAllowed(f"{uri}: {refusal}") from error
        if isinstance(error, (NotAllowed, NotFound, TransferFailed)):
            raise
        raise TransferFailed(f"{uri}: {error or 'the connection was lost'}", again=True) from error
    finally:
        ftp.close()


def _place(uri: Uri) -> tuple[str, int, tuple[str, str], str]:
    parts = uri.address
    path = "/" + unquote(uri.place.partition("/")[2], errors="surrogateescape")
    login = (unquote(parts.username or ""), unquote(parts.password or ""))
    if re.search("[\r\n\0]", "".join((path, *login))):
        raise InvalidRequest(f"{uri}: a name with a line break in it cannot be told to an FTP server")
    return str(parts.hostname), parts.port or ftplib.FTP_PORT, login, path


def _is_another(ftp: ftplib.FTP, path: str, entry: Entry) -> bool:
    """Whether the file has another size or time than it had, as far as both are told."""
    now = ((entry.size, ftp.size(path)), (entry.modified_at, _modified(ftp, path)))
    return any(None not in pair and pair[0] != pair[1] for pair in now)


def _modified(ftp: ftplib.FTP, path: str) -> datetime | None:
    try:
        return _time_of(ftp.voidcmd(f"MDTM {path}")[4:])
    except ftplib.error_perm:
        return None  # it does not tell


# --- listing ----------------------------------------------------------------------------------------------------------------

_UNIX_LINE = re.compile(r"([-dl])\S+\s+\d+\s+\S+\s+\S+\s+(\d+)\s+\w+\s+\d+\s+[\d:]+ (.+)")


def _listed(ftp: ftplib.FTP, uri: Uri, path: str, below: str, recursive: bool) -> Iterator[Entry]:
    for name, is_folder, size, modified in sorted(_names(ftp, path)):
        relative = f"{below}{name}"
        if not is_folder:
            yield Entry(uri.child(relative), relative, size, modified)
        elif recursive:
            yield from _listed(ftp, uri, posixpath.join(path, name), f"{relative}/", True)
        else:
            yield Entry(uri.child(relative + "/"), f"{relative}/")


def _names(ftp: ftplib.FTP, path: str) -> list[tuple[str, bool, int | None, datetime | None]]:
    """Name, whether it is a folder, size, time: by MLSD (RFC 3659), else by the lines of LIST that Unix servers write."""
    try:
        found = list(ftp.mlsd(path, ["type", "size", "modify"]))
    except ftplib.error_perm as error:
        if str(error)[:3] not in ("500", "501", "502", "504"):
            raise
        lines: list[str] = []
        ftp.dir(path, lines.append)
        matches = [match.groups() for match in map(_UNIX_LINE.match, lines) if match]
        return [(name, kind == "d", int(size), None) for kind, size, name in matches if kind != "l" and name not in (".", "..")]
    return [
        (name, facts.get("type") == "dir", int(facts["size"]) if "size" in facts else None, _time_of(facts.get("modify", "")))
        for name, facts in found
        if facts.get("type") in ("file", "dir")
    ]


def _time_of(text: str) -> datetime | None:
    try:
        return datetime.strptime(text[:14], "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def _make_folders(ftp: ftplib.FTP, folder: str) -> None:
    """Makes a folder and those above it, as far as they are not there."""
    path = ""
    for part in filter(None, folder.split("/")):
        path += f"/{part}"
        with contextlib.suppress(ftplib.error_perm):  # it is there; if it is not, storing the file tells
            ftp.mkd(path)
