"""The bytes of a sync: one line of JSON, then the raw output its chunks announce, in their order."""

from __future__ import annotations

import json
from dataclasses import fields

from .errors import InvalidRequest
from .protocol import EXECUTION_STATES, STREAMS, Chunk, Order, Report, SyncAnswer, SyncRequest

SYNC_CONTENT_TYPE = "application/x-scitq-sync"
MAX_NUMBER = 2**62  # what a database holds


def encode_request(request: SyncRequest, data: list[bytes]) -> bytes:
    """The body of a sync; `data[i]` are the bytes of `request.output[i]`."""
    head = _plain(request)
    head["executions"] = [_plain(report) for report in request.executions]
    head["output"] = [_plain(chunk) for chunk in request.output]
    return b"".join([json.dumps(head, separators=(",", ":")).encode(), b"\n", *data])


def decode_request(body: bytes) -> tuple[SyncRequest, list[memoryview]]:
    """The request and the bytes of each of its chunks. Raises InvalidRequest naming what is wrong."""
    line, _, rest = body.partition(b"\n")
    try:
        head = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the first line is not JSON: {error}", field="body") from None
    request = _build(SyncRequest, head, "body")
    request.executions = [_build(Report, item, f"executions[{i}]") for i, item in enumerate(request.executions)]
    request.output = [_build(Chunk, item, f"output[{i}]") for i, item in enumerate(request.output)]
    for i, report in enumerate(request.executions):
        if report.state not in EXECUTION_STATES:
            raise InvalidRequest(f"{report.state!r} is no state of an execution", field=f"executions[{i}].state")
    data, view, position = [], memoryview(rest), 0
    for i, chunk in enumerate(request.output):
        if chunk.stream not in STREAMS or chunk.length < 0 or chunk.offset < 0:
            raise InvalidRequest("wants a stream of stdout or stderr, and no negative offset or length", field=f"output[{i}]")
        data.append(view[position : position + chunk.length])
        position += chunk.length
    if position != len(view):
        raise InvalidRequest(f"{len(view)} bytes follow, the chunks announce {position}", field="output")
    return request, data


def encode_answer(answer: SyncAnswer) -> dict:
    """The answer as JSON values."""
    plain = _plain(answer)
    plain["orders"] = [_plain(order) for order in answer.orders]
    return plain


def decode_answer(plain: dict) -> SyncAnswer:
    """The answer of a server; fields that a newer server adds are passed over."""
    answer = _build(SyncAnswer, plain, "answer", strict=False)
    answer.orders = [_build(Order, item, "orders", strict=False) for item in answer.orders]
    return answer


def _plain(message) -> dict:
    """A message without the fields that are None or empty: what is left out has its default."""
    names = _names(type(message))
    values = ((name, getattr(message, name)) for name in names)
    return {name: value for name, value in values if value is not None and value != [] and value != {}}


_KINDS = {"int": int, "float": (int, float), "str": str, "bool": bool, "dict": dict, "list": list}


def _build(kind, plain, where: str, strict: bool = True):
    """A message from JSON values, its types checked. A worker of a newer version may say more: that is passed over."""
    if not isinstance(plain, dict):
        raise InvalidRequest("wants an object", field=where)
    checks = _checks(kind)
    values = {name: value for name, value in plain.items() if name in checks}
    for name, value in values.items():
        wanted, optional = checks[name]
        right = isinstance(value, wanted) or (value is None and optional)
        if (strict and not right) or (isinstance(value, bool) and wanted is int):
            raise InvalidRequest(f"cannot be {value!r:.60}", field=f"{where}.{name}")
        if isinstance(value, int) and not -MAX_NUMBER <= value <= MAX_NUMBER:
            raise InvalidRequest("is too large a number", field=f"{where}.{name}")
        if isinstance(value, str) and not value.isprintable():
            values[name] = _storable(value)
    try:
        return kind(**values)
    except TypeError as error:
        raise InvalidRequest(str(error).partition(") ")[2] or str(error), field=where) from None


def _storable(text: str) -> str:
    """Without NUL and halves of characters, which no database keeps: an error message may quote a file name of any bytes."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


_names_of: dict[type, tuple] = {}
_checks_of: dict[type, dict] = {}


def _names(kind) -> tuple:
    if kind not in _names_of:
        _names_of[kind] = tuple(f.name for f in fields(kind))
    return _names_of[kind]


def _checks(kind) -> dict:
    if kind not in _checks_of:
        _checks_of[kind] = {f.name: (_KINDS[f.type.split(" |")[0].split("[")[0]], "None" in f.type) for f in fields(kind)}
    return _checks_of[kind]
