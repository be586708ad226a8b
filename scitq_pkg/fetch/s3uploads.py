"""Uploads of several parts that have begun: noted on this machine until they are complete or taken back.

A note is locked by the process that is at its upload. One that nobody locks was left by a process that was killed, or lost its
server: the next try with the same content goes on with it, another content of the same name takes it back, and a day
later any large upload to the same server does.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from ..cache import cache_folders
from ..durable import sync
from ..errors import TransferFailed
from .transfer import may_pass

LEFT_SECONDS = 24 * 3600.0
_GONE = ("NoSuchUpload", "NoSuchBucket")
_OTHERS = ("InvalidPart", "InvalidPartOrder", "NoSuchUpload")


class OtherParts(TransferFailed):
    """The server does not have the parts that were sent: what a killed process was sending can arrive after those."""


@dataclass
class Upload:
    """One that has begun: its words in every request, and the parts that are there already, number -> (ETag, bytes)."""

    words: dict[str, str]
    parts: dict[int, tuple[str, int]]


class Uploads:
    """All that were begun at the server of a client."""

    def __init__(self, client):
        self._client = client
        self._looked_for_left = False

    @contextlib.contextmanager
    def begun(self, bucket: str, key: str, content: list) -> Iterator[Upload]:
        """One to be completed inside: gone on with, if one of the same content was left, else a new one.

        After a failure that may pass it is left for the next try, after any other taken back; so it is after OtherParts, which a
        new one may well pass. `content`: plain values that differ where the content, or its parts, do.
        """
        place = [platform.node(), self._client.meta.endpoint_url, bucket, key]
        note, upload = self._left(place, content) or self._new(place, content)
        try:
            yield upload
            note.forget()
        except BaseException as error:
            if isinstance(error, OtherParts) or not (isinstance(error, OSError) and may_pass(error)):
                self._take_back(note, upload.words)
            raise
        finally:
            note.close()

    def complete(self, upload: Upload, etags: dict[int, str]) -> None:
        """Makes the object of its parts, part -> ETag in their order. Raises OtherParts, ClientError."""
        sent = [{"PartNumber": number, "ETag": etag} for number, etag in etags.items()]
        try:
            self._client.complete_multipart_upload(**upload.words, MultipartUpload={"Parts": sent})
        except ClientError as error:
            if error.response["Error"].get("Code") not in _OTHERS:
                raise
            place = "/".join((upload.words["Bucket"], upload.words["Key"]))
            raise OtherParts(f"s3://{place}: the server has other parts of it than were sent", again=True) from error

    def _new(self, place: list, content: list) -> tuple[_Note, Upload]:
        words = {"Bucket": place[2], "Key": place[3]}
        words["UploadId"] = self._client.create_multipart_upload(**words)["UploadId"]
        return _Note.made(place, {"place": place, "content": content, "upload": words["UploadId"]}), Upload(words, {})

    def _left(self, place: list, content: list) -> tuple[_Note, Upload] | None:
        """One to go on with. All others that were left of this object, or long ago, are taken back."""
        found = None
        for note in _Note.left(place, not self._looked_for_left):
            told = note.told
            words = dict(zip(("Bucket", "Key"), told["place"][2:]), UploadId=told["upload"])
            same = found is None and (told["place"], told["content"]) == (place, content)
            with contextlib.ExitStack() as held:
                held.callback(note.close)
                if same and (upload := self._known(words)):
                    held.pop_all()
                    found = note, upload
                else:
                    self._take_back(note, words)
        self._looked_for_left = True
        return found

    def _known(self, words: dict[str, str]) -> Upload | None:
        """With the parts that the server has of it; None where it does not tell."""
        try:
            pages = self._client.get_paginator("list_parts").paginate(**words)
            return Upload(words, {part["PartNumber"]: (part["ETag"], part["Size"]) for part in pages.search("Parts[]") if part})
        except ClientError:
            return None

    def _take_back(self, note: _Note, words: dict[str, str]) -> None:
        """What cannot be taken back now stays noted: whatever else failed is the one to tell."""
        try:
            self._client.abort_multipart_upload(**words)
        except ClientError as error:
            if error.response["Error"].get("Code") not in _GONE:
                return
        except BotoCoreError:
            return
        note.forget()


class _Note:
    """What is noted of one upload, in a file that is locked as long as this is open. Where no file can be, it does nothing."""

    def __init__(self, path: Path | None = None, descriptor: int | None = None, told: dict | None = None):
        self._path, self._descriptor, self.told = path, descriptor, told or {}

    @classmethod
    def made(cls, place: list, told: dict) -> _Note:
        """A new one, that is there after a power loss too."""
        for cache in cache_folders():
            with contextlib.suppress(OSError):  # no room, no rights, no locks: the next may do, and the upload goes on anyway
                folder = Path(cache, "uploads")
                folder.mkdir(mode=0o700, exist_ok=True)
                return cls._made(folder, _beginning(place), told)
        return cls()

    @classmethod
    def _made(cls, folder: Path, beginning: str, told: dict) -> _Note:
        descriptor, new = tempfile.mkstemp(prefix=".new-", dir=folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, json.dumps(told).encode())
            os.fsync(descriptor)
            path = folder / (beginning + Path(new).name.removeprefix(".new-"))
            os.rename(new, path)
            sync(folder)
        except BaseException:
            os.close(descriptor)
            Path(new).unlink(missing_ok=True)
            raise
        return cls(path, descriptor, told)

    @classmethod
    def left(cls, place: list, old_too: bool) -> Iterator[_Note]:
        """Those that nobody holds: of one place, and with `old_too` of its server, begun long ago. Each is held then."""
        for cache in cache_folders():
            for path in list(Path(cache, "uploads").glob("*")):
                mine = path.name.startswith(_beginning(place))
                if (mine or old_too and _is_old(path)) and (note := cls._held(path)):
                    if note.told["place"][:2] == place[:2]:
                        yield note
                    else:
                        note.close()

    @classmethod
    def _held(cls, path: Path) -> _Note | None:
        with contextlib.suppress(OSError):  # in use, or removed meanwhile
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            note = cls(path, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                    note.told = json.loads(os.read(descriptor, os.fstat(descriptor).st_size))
                    return note
            except ValueError:
                note.forget()  # it was never finished
            except BaseException:
                note.close()
                raise
            note.close()
        return None

    def forget(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _beginning(place: list) -> str:
    """How the names of all notes of a place begin."""
    return hashlib.blake2s(json.dumps(place).encode(), digest_size=12).hexdigest() + "-"


def _is_old(path: Path) -> bool:
    with contextlib.suppress(OSError):  # it is gone
        return time.time() - path.stat().st_mtime > LEFT_SECONDS
    return False
