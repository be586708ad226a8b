"""`s3://bucket/key`: any server that speaks S3, with the usual configuration of AWS programs (`AWS_*`, `~/.aws`)."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from datetime import timezone
from pathlib import Path

from botocore.exceptions import ClientError

from ..errors import InvalidRequest, NotFound, ScitqError, TransferFailed
from .parallel import together
from .progress import Meter
from .s3bare import SMALL_BYTES, Bare
from .s3client import Connection, of_code
from .s3uploads import Uploads
from .scheme import CHUNK_BYTES, Entry, Replaced, Scheme
from .slices import Slice, spans
from .transfer import insist
from .uri import Uri

PART_BYTES = 16 * 2**20
COPY_PART_BYTES = 512 * 2**20
MOST_PARTS = 10_000
_DELETED_AT_ONCE = 1000
_MD5 = re.compile("[0-9a-f]{32}")


class Place(Scheme):
    """Objects in buckets. What is sent is there only when it is whole: that is how S3 is."""

    streams = 4
    files = 16

    def __init__(self, name: str, options: tuple[str, ...]):
        super().__init__(name, options)
        self._connection = Connection(self.files * self.streams)
        self._client, self._told = self._connection.client, self._connection.told
        self._bare = Bare(self._connection)
        self._uploads = Uploads(self._client)
        self._client.meta.events.register("before-sign.s3.DeleteObjects", _add_md5)

    def info(self, uri: Uri) -> Entry:
        bucket, key = _place(uri)
        with self._told(uri):
            try:
                answer = self._client.head_object(Bucket=bucket, Key=key)
            except ClientError as error:
                raise self._why(uri, error) from error
        return _entry(uri, uri.name, answer, answer["ContentLength"], _tells_md5(answer))

    def list(self, uri: Uri, recursive: bool = True) -> Iterator[Entry]:
        bucket, _, prefix = uri.place.partition("/")
        wanted = {"Bucket": bucket, "Prefix": prefix, **({} if recursive else {"Delimiter": "/"})}
        trusted = None  # whether an ETag that looks like an md5 is one: the first such object tells
        with self._told(uri):
            for page in self._client.get_paginator("list_objects_v2").paginate(**wanted):
                for one in page.get("Contents", ()):
                    key = one["Key"]
                    if key.endswith("/"):
                        continue  # the mark of a folder
                    if trusted is None and _MD5.fullmatch(_etag(one)):
                        trusted = self._has_md5(bucket, key)
                    relative = key[len(prefix) :]
                    yield _entry(uri.child(relative), relative, one, one["Size"], bool(trusted))
                for one in page.get("CommonPrefixes", ()):
                    relative = one["Prefix"][len(prefix) :]
                    yield Entry(uri.child(relative), relative)

    def read(self, entry: Entry, start: int, stop: int | None) -> Iterator[bytes | memoryview]:
        bare = self._bare.read(*_place(entry.uri), entry.etag, start, stop)
        return self._read(entry, start, stop) if bare is None else bare

    def _read(self, entry: Entry, start: int, stop: int | None) -> Iterator[bytes]:
        bucket, key = _place(entry.uri)
        wanted = {"IfMatch": f'"{entry.etag}"'} if entry.etag else {}
        if start or stop is not None:
            wanted["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        with self._told(entry.uri):
            answer = self._client.get_object(Bucket=bucket, Key=key, **wanted)
            with contextlib.closing(answer["Body"]) as body:
                if entry.etag and _etag(answer) != entry.etag:  # not every server knows If-Match
                    raise Replaced(entry.uri)
                if "Range" in wanted and "ContentRange" not in answer:
                    raise TransferFailed(f"{entry.uri}: the server gives no ranges of it")
                while data := body.read(CHUNK_BYTES):
                    yield data

    def whole(self, entry: Entry) -> bytes | None:
        if entry.size is None or entry.size > SMALL_BYTES:
            return None
        came = self._bare.get(*_place(entry.uri))
        return came[1] if came and came[0] == entry.etag else None

    def put(self, path: Path, uri: Uri, meter: Meter) -> None:
        bucket, key = _place(uri)
        size = path.stat().st_size
        if size <= SMALL_BYTES and self._bare.put(bucket, key, path.read_bytes()):
            meter.add(size)
            return
        with self._told(uri), open(path, "rb") as file:
            if size > PART_BYTES:
                self._put_parts(file.fileno(), size, uri, meter)
            else:
                self._client.put_object(Bucket=bucket, Key=key, Body=file)
                meter.add(size)

    def copy(self, entry: Entry, uri: Uri, meter: Meter) -> bool:
        bucket, key = _place(uri)
        source = dict(zip(("Bucket", "Key"), _place(entry.uri)))
        wanted = {"Bucket": bucket, "Key": key, "CopySource": source}
        if entry.etag:
            wanted["CopySourceIfMatch"] = f'"{entry.etag}"'
        with self._told(entry.uri):
            try:
                if entry.size and entry.size > COPY_PART_BYTES:
                    return self._copy_parts(wanted, entry.size, uri, meter)
                self._client.copy_object(**wanted)
            except ClientError as error:
                if error.response["Error"].get("Code") == "NoSuchBucket":  # that of the source has just been seen
                    raise self._connection.of_answer(uri, error) from error
                raise
            meter.add(entry.size or 0)
            return True

    def delete(self, entries: list[Entry]) -> None:
        for start in range(0, len(entries), _DELETED_AT_ONCE):
            some = entries[start : start + _DELETED_AT_ONCE]
            places = [_place(entry.uri) for entry in some]
            with self._told(some[0].uri):
                wanted = {"Objects": [{"Key": key} for _, key in places], "Quiet": True}
                answer = self._client.delete_objects(Bucket=places[0][0], Delete=wanted)
            for fault in answer.get("Errors", ()):
                if fault["Code"] != "NoSuchKey":
                    uri = next(entry.uri for entry, (_, key) in zip(some, places) if key == fault["Key"])
                    raise of_code(uri, fault["Code"], fault.get("Message", ""), 403 if fault["Code"] == "AccessDenied" else 0)

    def vouches(self, entry: Entry) -> bool:
        bucket, key = _place(entry.uri)
        with self._told(entry.uri):
            return _tells_md5(self._client.head_object(Bucket=bucket, Key=key))

    # --- inside -------------------------------------------------------------------------------------------------------------

    def _put_parts(self, descriptor: int, size: int, uri: Uri, meter: Meter) -> None:
        def send(upload: dict, number: int, start: int, stop: int) -> dict:
            body = Slice(descriptor, start, stop)
            return self._client.upload_part(**upload, PartNumber=number, Body=body, ContentLength=stop - start)

        status = os.fstat(descriptor)
        content = [status.st_dev, status.st_ino, size, status.st_mtime_ns]
        self._in_parts(uri, content, spans(size, PART_BYTES, MOST_PARTS), send, meter)

    def _copy_parts(self, wanted: dict, size: int, uri: Uri, meter: Meter) -> bool:
        """A copy of several parts; False: the server knows no copies of parts."""
        source = {name: wanted[name] for name in wanted if name.startswith("CopySource")}

        def send(upload: dict, number: int, start: int, stop: int) -> dict:
            span = f"bytes={start}-{stop - 1}"
            answer = self._client.upload_part_copy(**upload, **source, PartNumber=number, CopySourceRange=span)
            if "ETag" not in answer.get("CopyPartResult", {}):
                raise _NotKnown
            return answer["CopyPartResult"]

        try:
            self._in_parts(uri, [source, size], spans(size, COPY_PART_BYTES, MOST_PARTS), send, meter)
        except _NotKnown:
            return False
        return True

    def _in_parts(self, uri: Uri, content: list, parts: list[tuple[int, int]], send: Callable[..., dict], meter: Meter) -> None:
        """An upload of several parts, side by side, each tried again by itself; gone on with where one was left."""
        sizes = {number: stop - start for number, (start, stop) in enumerate(parts, 1)}
        with self._uploads.begun(*_place(uri), [*content, sizes[1]]) as upload:
            etags = {number: etag for number, (etag, size) in upload.parts.items() if size == sizes.get(number)}
            meter.add(sum(map(sizes.__getitem__, etags)))

            def one(number: int) -> None:
                with self._told(uri):
                    etags[number] = send(upload.words, number, *parts[number - 1])["ETag"]
                meter.add(sizes[number])

            missing = sorted(sizes.keys() - etags.keys())
            together(lambda number: insist(lambda: one(number), meter, f"{uri}"), missing, self.streams, Meter())
            with self._told(uri):
                self._uploads.complete(upload, {number: etags[number] for number in sizes})

    def _has_md5(self, bucket: str, key: str) -> bool:
        try:
            return _tells_md5(self._client.head_object(Bucket=bucket, Key=key))
        except ClientError:
            return False  # gone, or not to be read: nothing is known

    def _why(self, uri: Uri, error: ClientError) -> ScitqError:
        """What a refusal without a text means: asking for a list says more."""
        bucket, key = _place(uri)
        missing = isinstance(self._connection.of_answer(uri, error), NotFound)
        try:
            below = self._client.list_objects_v2(Bucket=bucket, Prefix=key + "/", MaxKeys=1).get("Contents")
        except ClientError as better:
            bucket_is_missing = isinstance(self._connection.of_answer(uri, better), NotFound)
            return self._connection.of_answer(uri, error if missing and not bucket_is_missing else better)
        if missing and below:
            return NotFound(f"{uri}: there is no such object, but a folder: end it with /")
        return self._connection.of_answer(uri, error)


class _NotKnown(Exception):
    """The server does something else than what it was asked for."""


def _place(uri: Uri) -> tuple[str, str]:
    """Bucket and key. Raises InvalidRequest for a bucket alone."""
    bucket, _, key = uri.place.partition("/")
    if not bucket or not key:
        raise InvalidRequest(f"{uri}: it names no object: s3://bucket/key")
    return bucket, key


def _entry(uri: Uri, path: str, told: dict, size: int, tells_md5: bool) -> Entry:
    etag = _etag(told)
    md5 = etag if tells_md5 and _MD5.fullmatch(etag) else None
    return Entry(uri, path, size, told["LastModified"].astimezone(timezone.utc), md5, etag)


def _etag(told: dict) -> str:
    """Without the quotation marks, which not every server writes; it is an md5 if the object was sent in one part."""
    return told.get("ETag", "").strip('"')


def _tells_md5(answer: dict) -> bool:
    """Whether the ETag is that of the content, not of what is stored encrypted."""
    return "SSECustomerAlgorithm" not in answer and not answer.get("ServerSideEncryption", "").startswith("aws:kms")


def _add_md5(request, **_) -> None:
    """Servers of older times want it."""
    import base64
    import hashlib

    digest = hashlib.md5(request.body if isinstance(request.body, bytes) else request.body.encode(), usedforsecurity=False)
    request.headers["Content-MD5"] = base64.b64encode(digest.digest()).decode()
