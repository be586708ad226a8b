"""`azure://container/path`: blobs of an Azure storage account, with the variables that Azure's own command line reads."""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections.abc import Iterator
from datetime import timezone
from pathlib import Path

import requests
from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobBlock, BlobClient, BlobPrefix, BlobProperties, BlobServiceClient, ExponentialRetry

from ..errors import InvalidRequest, NotAllowed, NotFound, ScitqError, TransferFailed
from . import refusals
from .certificates import certificates
from .parallel import together
from .progress import Meter
from .scheme import STALL_SECONDS, Entry, Replaced, Scheme
from .slices import Slice, spans
from .transfer import insist
from .uri import Uri

CONNECT_SECONDS = 15.0
PART_BYTES = 16 * 2**20
MOST_PARTS = 50_000
TRIES = 2  # of each request; a transfer is tried again by `transfer`
_READ_BYTES = 4 * 2**20  # a request while reading
_DELETED_AT_ONCE = 256
_COPY_LOOK_SECONDS = 0.5
_QUERY = re.compile(r"\?\S+=\S*")
_MAY_PASS = (408, 429, 500, 502, 503, 504)
_HOW = (
    "set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT and one of AZURE_STORAGE_KEY and AZURE_STORAGE_SAS_TOKEN"
)


class Place(Scheme):
    """Blobs in containers of one account. What is sent is there only when it is whole: that is how blobs are."""

    streams = 4
    files = 8

    def __init__(self, name: str, options: tuple[str, ...]):
        super().__init__(name, options)
        self._service = _service(self.files * self.streams)

    def info(self, uri: Uri) -> Entry:
        with _told(uri):
            try:
                return _entry(uri, uri.name, self._blob(uri).get_blob_properties())
            except ResourceNotFoundError:
                self._tell_of_folder(uri)
                raise

    def list(self, uri: Uri, recursive: bool = True) -> Iterator[Entry]:
        container, _, prefix = uri.place.partition("/")
        with _told(uri):
            client = self._service.get_container_client(container)
            listed = client.list_blobs if recursive else client.walk_blobs
            for one in listed(name_starts_with=prefix or None, include=["metadata"]):
                relative = one.name[len(prefix) :]
                if isinstance(one, BlobPrefix):
                    yield Entry(uri.child(relative), relative)
                elif relative and not relative.endswith("/") and not _is_folder(one):
                    yield _entry(uri.child(relative), relative, one)

    def read(self, entry: Entry, start: int, stop: int | None) -> Iterator[bytes]:
        with _told(entry.uri):
            span = {} if start == 0 and stop is None else {"offset": start, "length": None if stop is None else stop - start}
            yield from self._blob(entry.uri).download_blob(**span, **_unchanged(entry)).chunks()

    def put(self, path: Path, uri: Uri, meter: Meter) -> None:
        blob, size = self._blob(uri), path.stat().st_size
        with _told(uri), open(path, "rb") as file:
            if size > PART_BYTES:
                self._put_parts(file.fileno(), size, uri, meter)
            else:
                blob.upload_blob(file, length=size, overwrite=True)
                meter.add(size)

    def copy(self, entry: Entry, uri: Uri, meter: Meter) -> bool:
        source, target = self._blob(entry.uri), self._blob(uri)
        unchanged = {f"source_{name}": value for name, value in _unchanged(entry).items()}
        with _told(entry.uri):
            copied = target.start_copy_from_url(source.url, **unchanged)
            status = copied["copy_status"]
            try:
                while status == "pending":
                    meter.wait(_COPY_LOOK_SECONDS)
                    status = target.get_blob_properties().copy.status
            except BaseException:
                with contextlib.suppress(AzureError):  # it has ended by itself
                    target.abort_copy(copied["copy_id"])
                raise
        if status != "success":
            raise TransferFailed(f"{entry.uri}: the copy to {uri} ended as '{status}'", again=True)
        meter.add(entry.size or 0)
        return True

    def delete(self, entries: list[Entry]) -> None:
        if not hasattr(self._service.credential, "account_key"):  # who has a SAS token may not be allowed to delete many at once
            together(self._delete_one, entries, self.files, Meter())
            return
        client = self._service.get_container_client(_names(entries[0].uri)[0])
        for start in range(0, len(entries), _DELETED_AT_ONCE):
            some = entries[start : start + _DELETED_AT_ONCE]
            with _told(some[0].uri):
                names = [_names(entry.uri)[1] for entry in some]
                answers = client.delete_blobs(*names, delete_snapshots="include", raise_on_any_failure=False)
                for entry, answer in zip(some, answers):
                    if answer.status_code not in (202, 404):
                        raise _of_answer(entry.uri, answer.status_code, answer.headers.get("x-ms-error-code", ""), answer.reason)

    # --- inside -------------------------------------------------------------------------------------------------------------

    def _blob(self, uri: Uri) -> BlobClient:
        return self._service.get_blob_client(*_names(uri))

    def _delete_one(self, entry: Entry) -> None:
        with _told(entry.uri), contextlib.suppress(ResourceNotFoundError):  # then it is gone
            self._blob(entry.uri).delete_blob(delete_snapshots="include")

    def _put_parts(self, descriptor: int, size: int, uri: Uri, meter: Meter) -> None:
        """Blocks side by side, each tried again by itself; those that are never put together vanish after a week."""
        blob = self._blob(uri)
        parts = spans(size, PART_BYTES, MOST_PARTS)
        run = os.urandom(8).hex()  # so that blocks of two who write the same blob are not mixed
        names = [base64.b64encode(f"{run}-{number:05}".encode()).decode() for number in range(len(parts))]

        def send(number: int) -> None:
            start, stop = parts[number]
            with _told(uri):
                blob.stage_block(names[number], Slice(descriptor, start, stop), length=stop - start)  # type: ignore[arg-type]
            meter.add(stop - start)

        together(lambda number: insist(lambda: send(number), meter, f"{uri}"), range(len(parts)), self.streams, Meter())
        blob.commit_block_list([BlobBlock(block_id=name) for name in names])

    def _tell_of_folder(self, uri: Uri) -> None:
        """Raises NotFound that says so if it is a folder."""
        container, path = _names(uri)
        below = self._service.get_container_client(container).list_blobs(name_starts_with=path + "/", results_per_page=1)
        if next(iter(below), None) is not None:
            raise NotFound(f"{uri}: there is no such blob, but a folder: end it with /")


def _service(connections: int) -> BlobServiceClient:
    """The account that the environment describes. Raises NotAllowed, InvalidRequest."""
    told = {name: os.environ.get(f"AZURE_STORAGE_{name}", "") for name in ("CONNECTION_STRING", "ACCOUNT", "KEY", "SAS_TOKEN")}
    options = _options(connections)
    try:
        if told["CONNECTION_STRING"]:
            return BlobServiceClient.from_connection_string(told["CONNECTION_STRING"], **options)
        if not told["ACCOUNT"]:
            raise NotAllowed(f"azure:// knows no storage account: {_HOW}")
        url = os.environ.get("AZURE_STORAGE_SERVICE_ENDPOINT") or f"https://{told['ACCOUNT']}.blob.core.windows.net"
        key = {"account_name": told["ACCOUNT"], "account_key": told["KEY"]} if told["KEY"] else None
        return BlobServiceClient(url, credential=key or told["SAS_TOKEN"].lstrip("?") or None, **options)
    except ValueError as error:
        raise InvalidRequest(f"the configuration of Azure storage is wrong: {error}: {_HOW}") from error


class _Session(requests.Session):
    """Looks at each address that it is sent to."""

    def send(self, request, **options):
        refusals.check_endpoint(request.url)
        return super().send(request, **options)


def _options(connections: int) -> dict:
    session = _Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_connections=connections, pool_maxsize=connections))
    trusted = os.environ.get("REQUESTS_CA_BUNDLE") or certificates() or True
    transport = RequestsTransport(
        session=session, session_owner=False, connection_verify=trusted,
        connection_timeout=CONNECT_SECONDS, read_timeout=STALL_SECONDS,
    )  # fmt: skip
    return {
        "transport": transport,
        "retry_policy": ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=TRIES - 1),
        "max_single_get_size": _READ_BYTES,
        "max_chunk_get_size": _READ_BYTES,
        "max_single_put_size": PART_BYTES,
    }


@contextlib.contextmanager
def _told(uri: Uri) -> Iterator[None]:
    """Turns what the client raises inside into NotFound, NotAllowed, InvalidRequest or TransferFailed."""
    try:
        yield
    except ScitqError:
        raise
    except HttpResponseError as error:
        if isinstance(error, ClientAuthenticationError) and not error.status_code:  # it cannot even sign
            raise NotAllowed(f"{uri}: {_line(error)}: {_HOW}") from error
        code = getattr(error, "error_code", None) or ""
        raise _of_answer(uri, error.status_code or 0, getattr(code, "value", code), error.reason or "") from error
    except (ServiceRequestError, ServiceResponseError) as error:
        told = TransferFailed(f"{uri}: no answer from Azure ({_line(error)})", again=True)
        raise told from error.inner_exception or error  # it names no cause itself: that may be a refusal of ours
    except AzureError as error:
        raise TransferFailed(f"{uri}: {_line(error)}", again=True) from error
    except ValueError as error:
        raise InvalidRequest(f"{uri}: {_line(error)}") from error


def _of_answer(uri: Uri, status: int, code: str, reason: str) -> Exception:
    """The error that an answer of the service means."""
    container = uri.place.partition("/")[0]
    if code == "ContainerNotFound":
        return NotFound(f"{uri}: there is no container '{container}' in the account: check its name and the account")
    if status == 404:
        return NotFound(f"{uri}: there is no such blob")
    if status in (401, 403):
        return NotAllowed(f"{uri}: the account does not accept the credentials, or they do not allow this ({code}): {_HOW}")
    if status == 412:
        return Replaced(uri)
    if status == 400:
        return InvalidRequest(f"{uri}: Azure refuses it: {code or reason}")
    if status < 400:
        return TransferFailed(f"{uri}: what answers there is no storage of Azure: look at AZURE_STORAGE_*")
    return TransferFailed(f"{uri}: Azure answered {status} {code or reason}", again=status in _MAY_PASS)


def _line(error: BaseException) -> str:
    """What it says first, on one line, without what signs an address."""
    return _QUERY.sub("?...", " ".join(str(error).split("\n")[0].split()))[:300]


def _names(uri: Uri) -> tuple[str, str]:
    """Container and path. Raises InvalidRequest for a container alone, and for names under which Azure would store another."""
    container, _, path = uri.place.partition("/")
    if not container or not path:
        raise InvalidRequest(f"{uri}: it names no blob: azure://container/path")
    if "\\" in path or {".", ".."} & set(uri.place.split("/")):
        raise InvalidRequest(
            f"{uri}: no blob can have a name with a \\, or with . or .. between its slashes: rename it, or leave it out"
        )
    return container, path


def _entry(uri: Uri, path: str, blob: BlobProperties) -> Entry:
    md5 = blob.content_settings.content_md5
    return Entry(
        uri, path, blob.size, blob.last_modified.astimezone(timezone.utc), bytes(md5).hex() if md5 else None, blob.etag.strip('"')
    )


def _is_folder(blob: BlobProperties) -> bool:
    """Whether it is the mark of a folder, as accounts with real folders list it."""
    return (blob.metadata or {}).get("hdi_isfolder") == "true"


def _unchanged(entry: Entry) -> dict:
    """The condition that it is still the same blob."""
    return {"etag": f'"{entry.etag}"', "match_condition": MatchConditions.IfNotModified} if entry.etag else {}
