"""What users see of the server's JSON: dictionaries or objects, with real times and the names older scripts know."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from datetime import datetime

from ..errors import InvalidRequest, nearest

STYLES = ("dict", "object")

# Names of older scripts, beside ours: name -> where it is found.
OLDER_NAMES = {
    "task": {"task_id": "id", "status": "state"},
    "execution": {"execution_id": "id", "status": "state", "return_code": "exit_code"},
    "worker": {"worker_id": "id", "status": "state"},
    "batch": {"batch": "name"},
    "job": {"job_id": "id", "status": "state", "action": "kind"},
    "recruiter": {
        "worker_flavor": "flavor", "worker_provider": "provider", "worker_region": "region",
        "worker_concurrency": "concurrency", "worker_prefetch": "prefetch",
    },
}
NO_ID = "0"  # what an empty list of ids chooses: nothing; an empty filter would choose everything
LONGEST_QUERY = 6000  # characters of a filter that surely fit in a URL
_MOST_IDS = 1_000_000  # of a range that is written out
_MAPPINGS_OF_THE_USER = ("env",)  # their keys are no names of attributes


def check_style(style: str) -> str:
    """The style, if there is such a one."""
    if style not in STYLES:
        raise InvalidRequest(f"{style!r} is no style{nearest(style, STYLES)}: there are 'dict' and 'object'", field="style")
    return style


def shown(plain, style: str, noun: str | None = None):
    """JSON values of the server as users see them: `*_at` become aware datetimes; in style 'object' mappings become Namespaces.

    Lists stay lists. A `noun` (task, execution, worker, batch, recruiter, job) adds the names that older scripts use.
    """
    if isinstance(plain, list):
        return [shown(item, style, noun) for item in plain]
    if not isinstance(plain, dict):
        return plain
    values = {name: _value(name, value, style) for name, value in plain.items()}
    for older, ours in OLDER_NAMES.get(noun or "", {}).items():
        if ours in values:
            values.setdefault(older, values[ours])
    return Namespace(**values) if style == "object" else values


def _value(name: str, value, style: str):
    if (name == "at" or name.endswith("_at")) and isinstance(value, str):
        return to_datetime(value)
    return value if name in _MAPPINGS_OF_THE_USER else shown(value, style)


def to_datetime(text: str) -> datetime:
    """An aware datetime from ISO 8601 as the server writes it. Python 3.10 does not read `Z`."""
    return datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)


def id_of(thing) -> int:
    """The id of a task, an execution or a worker that is given as object, dictionary or id. Raises InvalidRequest."""
    found = None if isinstance(thing, bool) else thing
    if isinstance(thing, dict):
        found = thing.get("id")
    elif not isinstance(thing, (int, str)):
        found = getattr(thing, "id", None)
    try:
        return int(found)
    except (TypeError, ValueError):
        raise InvalidRequest(f"{thing!r:.80} has no id: give an object or a dictionary of the server, or the number") from None


def ids_of(things) -> list[int]:
    """The ids of several things, or of one. A text may hold ranges: `3,5-9`."""
    if isinstance(things, str):
        return list(_from_ranges(things))
    if isinstance(things, (int, dict)) or not isinstance(things, Iterable):
        return [id_of(things)]
    return [id_of(thing) for thing in things]


def ranges(ids: Iterable[int]) -> str:
    """Ids in the grammar of filters, as short as it goes: `3,5-9`."""
    return ",".join(map(_range, _runs(ids)))


def range_groups(ids: Iterable[int], most_characters: int = LONGEST_QUERY) -> list[str]:
    """`ranges` in pieces, each of which fits in a query string."""
    groups, size = [[]], 0
    for text in map(_range, _runs(ids)):
        if size + len(text) + 1 > most_characters:
            groups.append([])
            size = 0
        groups[-1].append(text)
        size += len(text) + 1
    return [",".join(group) for group in groups if group]


def _runs(ids: Iterable[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for number in sorted(set(ids)):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def _range(run: list[int]) -> str:
    return str(run[0]) if run[0] == run[1] else f"{run[0]}-{run[1]}"


def _from_ranges(text: str) -> Iterable[int]:
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InvalidRequest(f"{text!r:.80} holds no ids: numbers and ranges are expected, such as 3,5-9", field="ids")
        if int(last or first) - int(first) > _MOST_IDS:
            raise InvalidRequest(f"{part.strip()!r:.80} are too many ids: give a range of at most {_MOST_IDS:,}", field="ids")
        yield from range(int(first), int(last or first) + 1)
