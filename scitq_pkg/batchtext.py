"""A batch becomes the text of a batch file that makes its tasks again, its recruiters, and who is told by mail."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields

from .protocol import TaskSpec
from .substitution import MARK

_SAFE = re.compile(
    r"[A-Za-z_/.](?:[A-Za-z0-9_/.+=@%,-]|:(?=[A-Za-z0-9_/.]))*(?: (?:[A-Za-z0-9_/.+=@%,-]|:(?=[A-Za-z0-9_/.]))+)*"
)  # means itself in YAML
_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n", ".inf", ".nan", "=", ".")
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_KEYS = [known.name for known in fields(TaskSpec) if known.name not in ("batch", "require")]
_LISTED = ("input", "resource")
_RECRUITER = (
    "rank", "flavor", "provider", "region", "tasks_per_worker", "minimum_tasks", "maximum_workers", "concurrency", "prefetch",
)  # fmt: skip


def batch_text(batch: str, tasks: list[dict], recruiters: Iterable[dict] = (), notifiers: Iterable[dict] = ()) -> str:
    """A batch file of what the API shows of a batch. Where tasks' names are missing or not alone, the id is put in or after them.

    The addresses of webhooks are secrets that nobody is shown: they are not in it.
    """
    names = _names(tasks)
    given = [_given(task, names) for task in tasks]
    shared = _shared(given)
    lines = ["# Passwords in URIs are not in here.\n"] if any("..." in str(task["input"]) for task in tasks) else []
    lines += [f"batch: {_scalar(batch, '')}\n", *_rules("recruit", map(_recruiter, recruiters))]
    hidden = any(row["kind"] == "webhook" for row in notifiers)
    lines += ["# Webhooks are not in here: their addresses are secrets.\n"] if hidden else []
    lines += _rules("notify", (_notifier(row) for row in notifiers if row["kind"] == "mail"))
    if shared:
        lines += ["defaults:\n", *_mapping(shared, "  ")]
    lines.append("tasks:\n" if given else "tasks: []\n")
    for keys in given:
        own = {key: value for key, value in keys.items() if key not in shared}
        lines += _item(own)
    return "".join(lines)


def _rules(key: str, bodies: Iterable[dict]) -> list[str]:
    items = [line for body in bodies for line in _item(body)]
    return [f"{key}:\n", *items] if items else []


def _recruiter(row: dict) -> dict:
    """Its properties; a prefetch of nothing is written, since without the key it is 0."""
    return {key: row[key] for key in _RECRUITER if row[key] is not None or key == "prefetch"}


def _notifier(row: dict) -> dict:
    keys: dict = {"mail": row["target"]}
    keys |= {} if row["done"] else {"when": "failures"}
    return keys | ({} if row["failures"] is None else {"failures": row["failures"]})


def _names(tasks: list[dict]) -> dict[int, str]:
    """A name for each task, no two the same."""
    count = Counter(task["name"] for task in tasks)
    names = {task["id"]: task["name"] for task in tasks if task["name"] and count[task["name"]] == 1}
    taken = set(names.values())
    for task in tasks:
        if task["id"] not in names:
            name = f"{task['name'] or 'task'}-{task['id']}"
            while name in taken:
                name += "-"
            names[task["id"]] = name
            taken.add(name)
    return names


def _given(task: dict, names: dict[int, str]) -> dict:
    """What of a task is not by default, under the keys of a batch file."""
    plain = {known.name: None if known.default is MISSING else known.default for known in fields(TaskSpec)}
    found = {"name": names[task["id"]]}
    found |= {key: task[key] for key in _KEYS if key != "name" and task[key] != plain[key] and task[key] not in ([], {})}
    needs = [names[other] for other in task["require"] if other in names]
    others = [other for other in task["require"] if other not in names]
    found |= {"needs": needs} if needs else {}
    found |= {"require": others} if others else {}
    marks = MARK.findall(json.dumps(found, ensure_ascii=False))  # what would be replaced, or taken for a slip
    kept = {name + modifiers: f"{{{name}{modifiers}}}" for name, modifiers in marks}
    return found | ({"each": [kept]} if kept else {})  # a column of the same name, with itself as its value


def _shared(given: list[dict]) -> dict:
    """What all tasks have in common; `env` is merged by who reads it, so it is shared whole or not at all."""
    if len(given) < 2:
        return {}
    first = given[0]
    own = ("name", "command", "needs", "each")
    return {key: value for key, value in first.items() if key not in own and all(keys.get(key) == value for keys in given)}


# --- YAML --------------------------------------------------------------------------------------------------------------------


def _item(keys: dict) -> Iterator[str]:
    for number, line in enumerate(_mapping(keys, "    ")):
        yield f"  - {line[4:]}" if number == 0 else line


def _mapping(keys: dict, indent: str) -> Iterator[str]:
    for key, value in keys.items():
        name = _scalar(key, indent)
        if isinstance(value, dict):
            yield f"{indent}{name}:\n"
            yield from _mapping(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{indent}{name}:\n"
            for item in value:
                if isinstance(item, dict):
                    pairs = ", ".join(f"{_quoted(column)}: {_quoted(cell)}" for column, cell in item.items())
                    yield f"{indent}  - {{{pairs}}}\n"
                else:
                    yield f"{indent}  - {_scalar(item, indent + '  ')}\n"
        else:
            yield f"{indent}{name}: {_scalar(value, indent)}\n"


def _scalar(value: object, indent: str) -> str:
    """A value as it is written after its key; a text of several lines stays readable where it can."""
    if not isinstance(value, str):
        return json.dumps(value)
    if _SAFE.fullmatch(value) and value.lower() not in _WORDS:
        return value
    if "\n" in value and _is_block(value):
        ends = {True: "", False: "-"}[value.endswith("\n")]
        lines = value.removesuffix("\n").split("\n")
        return f"|{ends}\n" + "\n".join(f"{indent}  {line}" if line else "" for line in lines)
    return _quoted(value)


def _is_block(text: str) -> bool:
    """Whether a text can be written line by line, as it is."""
    plain = not _HIDDEN.search(text) and "\r" not in text and "\t" not in text[:1]
    return plain and text[0] not in " \n" and not text.endswith("\n\n")


def _quoted(text: str) -> str:
    if "\n" not in text and not _HIDDEN.search(text) and "\t" not in text:
        return "'" + text.replace("'", "''") + "'"
    escaped = json.dumps(text, ensure_ascii=False)
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", escaped)
