"""What a file says of its whole batch: which workers it recruits, and who is notified."""

from __future__ import annotations

import yaml

from ..errors import InvalidRequest, NotFound, nearest
from ..lib import Server
from ..limits import number_fault
from ..mailing import check_recipient
from ..protofilter import check_flavor
from ..substitution import unknown_name
from ..webhook import check_url, masked
from ..yamlvalues import Value, line_of, mapping
from .model import BatchFile, schema
from .templates import scalars

_LEAST = {"tasks_per_worker": 1, "concurrency": 1}  # of the others: 0
_EVENTS = ("done", "failures")


def recruiters_of(value: Value) -> list[dict]:
    """The recruiters of `recruit`: a mapping, or a list of them in the order of their ranks. Raises InvalidRequest."""
    found: dict[int, dict] = {}
    lines: dict[int, int] = {}
    for place, (node, keys) in enumerate(_mappings(value, "recruiter", "flavor"), 1):
        body = {key: _number_or_text(one, key) for key, one in keys.items()}
        rank = body["rank"] = place if body.get("rank") is None else body["rank"]
        if rank in found:
            raise Value(value.path, value.key, node, {}).wrong(
                f"two recruiters have rank {rank}: the other is at line {lines[rank]}"
            )
        found[rank], lines[rank] = body, line_of(node)
    return list(found.values())


def _number_or_text(value: Value, key: str):
    """None, where it is written, is a value: it means that workers stay as they are."""
    described = schema()["$defs"]["recruiter"]["properties"][key]
    found = value.read(described)
    if isinstance(found, int) and (fault := number_fault(found, _LEAST.get(key, 0))):
        raise value.wrong(f"`{key}` {fault}, not {found!s:.40}")
    if key == "flavor" and found is not None:
        try:
            check_flavor(found)
        except InvalidRequest as error:
            raise value.wrong(f"`flavor`: {error.message}") from None
    return found


def notifiers_of(value: Value) -> list[dict]:
    """Who `notify` says: one for each webhook and each address. Raises InvalidRequest."""
    found: dict[tuple[str, str], dict] = {}
    for node, keys in _mappings(value, "notifier", "webhook"):
        when = _when(keys)
        targets = [(kind, target) for kind in ("webhook", "mail") if kind in keys for target in keys[kind].texts() or []]
        if not targets:
            raise Value(value.path, value.key, node, {}).wrong("`notify` does not say whom: give a `webhook` or `mail`")
        for kind, target in targets:
            _check_target(keys[kind], kind, target)
            body = {kind: target, **when}
            if found.setdefault((kind, target), body) != body:
                who = "" if kind == "webhook" else f" {target!r}"
                raise keys[kind].wrong(f"`{kind}`{who} is named twice, for different things: say all of it in one `when`")
    return list(found.values())


def _check_target(value: Value, kind: str, target: str) -> None:
    try:
        (check_url if kind == "webhook" else check_recipient)(target)
    except InvalidRequest as error:
        raise value.wrong(f"`{kind}` {error.message}") from None


def _when(keys: dict[str, Value]) -> dict:
    """`done`, and `failures`: None where failures are not told."""
    failures = keys["failures"].number() if "failures" in keys else None
    if failures is not None and (fault := number_fault(failures, 0)):
        raise keys["failures"].wrong(f"`failures` {fault}, not {failures!s:.40}")
    events = (keys["when"].texts() or []) if "when" in keys else []
    for event in events:
        if event not in _EVENTS:
            raise keys["when"].wrong(f"`when` is {' or '.join(_EVENTS)}, not {event!r:.60}{nearest(event, _EVENTS)}")
    if failures is not None and events and "failures" not in events:
        raise keys["failures"].wrong("`failures` is given, and `when` leaves it out: write when: [done, failures]")
    if "failures" in events:
        failures = failures or 0
    return {"done": not events or "done" in events, "failures": failures}


def _mappings(value: Value, kind: str, such: str) -> list[tuple[yaml.Node, dict[str, Value]]]:
    """The mappings of one, of a list, or of nothing, their keys known and the names in their texts too."""
    if isinstance(value.node, yaml.ScalarNode) and value.text() is None:
        return []
    nodes = value.node.value if isinstance(value.node, yaml.SequenceNode) else [value.node]
    known = schema()["$defs"][kind]["properties"]
    found = []
    for node in nodes:
        keys = mapping(value.path, node, known, f"`{value.key}`", such)
        read = {key: Value(value.path, key, one, value.row) for key, one in keys.items()}
        for one in read.values():
            _check_names(one)
        found.append((node, read))
    return found


def _check_names(value: Value) -> None:
    for text in scalars(value.node):
        wrong = unknown_name(text, value.row, strict=True)
        if wrong:
            raise value.wrong(f"`{value.key}`: {wrong}")


# --- as it is shown, and sent ---------------------------------------------------------------------------------------------


def described(file: BatchFile) -> list[str]:
    """A line for each recruiter and notifier of a file, without what is secret in the address of a webhook."""
    lines = []
    for body in file.recruiters or ():
        keys = ", ".join(f"{key} {value}" for key, value in body.items() if key != "rank" and value is not None)
        lines.append(f"recruiter {body['rank']}: {keys or 'any worker'}")
    for body in file.notifiers or ():
        target = masked(body["webhook"]) if "webhook" in body else body["mail"]
        when = ["when it is done"] * body["done"]
        when += [f"when more than {body['failures']} tasks failed"] if body["failures"] is not None else []
        lines.append(f"notifies {target} {' and '.join(when)}")
    return lines


def put_rules(server: Server, file: BatchFile) -> None:
    """The recruiters and notifiers of a file are made, or made like these; those that it made before and names no more go."""
    for path, bodies in (("/recruiters", file.recruiters), ("/notifiers", file.notifiers)):
        if bodies is None:
            continue
        known = {"batch": file.batch, "origin": file.name}
        kept = {server.client.send("POST", path, {**body, **known})["id"] for body in bodies}
        for row in list(server.client.pages(path, batch=file.batch)):
            if row["origin"] == file.name and row["id"] not in kept:
                _delete(server, f"{path}/{row['id']}")


def _delete(server: Server, path: str) -> None:
    try:
        server.client.send("DELETE", path)
    except NotFound:
        return  # another launch of the file was faster
