"""Which tasks or executions: the grammar of the command line and of the query string, and its SQL."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from ..errors import InvalidRequest, nearest
from ..protocol import EXECUTION_STATES, TASK_STATES
from .transaction import Transaction, marks

NAMES = ("batch", "state", "name", "ids", "worker", "exit_code", "grep", "since")
MAX_ID = 2**31 - 1
_EXPANDED = 1000  # ids of a range that are listed one by one
_MOST_RANGES = 200  # wider ones, each a test of its own
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class Filter:
    """All that is given must hold; nothing given is all there are."""

    batch: str | None = None
    states: tuple[str, ...] = ()
    name: str | None = None  # a glob; "*" is everything
    ids: tuple[tuple[int, int], ...] | None = None  # first and last of each range
    worker: str | None = None  # name or id
    exit_codes: tuple[int, ...] = ()
    grep: str | None = None
    since: str | None = None

    @classmethod
    def of(cls, words: Mapping[str, object]) -> Filter:
        """From what a user wrote. Raises InvalidRequest naming the word that is wrong."""
        given = {name: str(words[name]) for name in NAMES if words.get(name) is not None}
        return cls(
            batch=given.get("batch"),
            states=_states(given["state"]) if "state" in given else (),
            name=checked_glob(given["name"]) if "name" in given else None,
            ids=_ranges(given["ids"]) if "ids" in given else None,
            worker=given.get("worker"),
            exit_codes=_exit_codes(given["exit_code"]) if "exit_code" in given else (),
            grep=given.get("grep"),
            since=_checked_since(given["since"]) if "since" in given else None,
        )

    def of_tasks(self, tx: Transaction) -> tuple[str, list]:
        """A test on `task`, `batch` and `execution` (the latest one, if any), and its parameters."""
        return self._sql(tx, {"id": "task.id", "state": "task.state", "since": "task.state_at"})

    def of_executions(self, tx: Transaction) -> tuple[str, list]:
        """A test on `execution`, its `task` and its `batch`, and its parameters."""
        since = "COALESCE(execution.finished_at, execution.started_at, execution.assigned_at)"
        return self._sql(tx, {"id": "execution.id", "state": "execution.state", "since": since})

    def _sql(self, tx: Transaction, columns: dict[str, str]) -> tuple[str, list]:
        tests: list[tuple[str, Sequence]] = []
        if self.batch is not None:
            tests.append(("batch.name = ?", [self.batch]))
        if self.states:
            tests.append((f"{columns['state']} IN ({marks(self.states)})", self.states))
        if self.name not in (None, "*"):  # all of them, those without a name too
            tests.append(glob_test(tx, "task.name", self.name))
        if self.ids is not None:
            tests.append(among(tx, columns["id"], self.ids))
        if self.worker is not None:
            tests.append(_worker(self.worker))
        if self.exit_codes:
            tests.append((f"execution.exit_code IN ({marks(self.exit_codes)})", self.exit_codes))
        if self.grep is not None:
            tests.append((f"{'strpos' if tx.postgresql else 'instr'}(execution.last_output, ?) > 0", [self.grep]))
        if self.since is not None:
            tests.append((f"{columns['since']} >= ?", [moment_of(self.since, tx.now)]))
        return " AND ".join(test for test, _ in tests) or "1 = 1", [value for _, values in tests for value in values]


def among(tx: Transaction, column: str, ranges: Sequence[tuple[int, int]]) -> tuple[str, list]:
    """A test for ids within ranges, however many: the narrow ones go as one parameter."""
    narrow = [number for first, last in ranges if last - first < _EXPANDED for number in range(first, last + 1)]
    wide = [pair for pair in ranges if pair[1] - pair[0] >= _EXPANDED]
    if len(wide) > _MOST_RANGES:
        raise InvalidRequest(f"holds more than {_MOST_RANGES} wide ranges: give fewer", field="ids")
    tests = [f"{column} = ANY(?)" if tx.postgresql else f"{column} IN (SELECT value FROM json_each(?))"]
    tests += [f"{column} BETWEEN ? AND ?" for _ in wide]
    first = narrow if tx.postgresql else json.dumps(narrow)
    cast = tests[0].replace("?", "?::int[]") if tx.postgresql else tests[0]
    return f"({' OR '.join([cast, *tests[1:]])})", [first, *(bound for pair in wide for bound in pair)]


def _worker(word: str) -> tuple[str, list]:
    number = int(word) if word.isascii() and word.isdigit() and int(word) <= MAX_ID else -1
    return "execution.worker_id IN (SELECT id FROM worker WHERE name = ? OR id = ?)", [word, number]


_GLOB = re.compile(r"\*|\[(!|(?!!))(\][^\]]*|[^\]]+)\]|.", re.DOTALL)  # as `fnmatch` reads it
_RANGE = re.compile(r"(.)-(.)|.", re.DOTALL)  # within brackets


def checked_glob(pattern: str) -> str:
    """The glob itself. Raises InvalidRequest for a range that holds nothing."""
    for piece in _GLOB.finditer(pattern):
        for found in _RANGE.finditer(piece[2] or ""):
            if found[1] and found[1] > found[2]:
                raise InvalidRequest(f"[{found[0]}] holds nothing: write [{found[2]}-{found[1]}]", field="name")
    return pattern


def glob_test(tx: Transaction, column: str, pattern: str) -> tuple[str, list]:
    """A test with `*`, `?`, `[a-z]` and `[!a-z]`, which means on both databases what it means to `fnmatch`."""
    if tx.postgresql:
        return f"{column} ~ ?", [f"^{''.join(_regular(piece) for piece in _GLOB.finditer(pattern))}$"]
    return f"fnmatch({column}, ?)" if "[" in pattern else f"{column} GLOB ?", [pattern]


def _regular(piece: re.Match) -> str:
    """One piece of a glob as a regular expression of PostgreSQL."""
    if piece[2]:
        return f"[{'^' if piece[1] else ''}{_RANGE.sub(_escaped_range, piece[2])}]"
    return {"*": ".*", "?": "."}.get(piece[0]) or _escaped(piece[0])


def _escaped_range(found: re.Match) -> str:
    return f"{_escaped(found[1])}-{_escaped(found[2])}" if found[1] else _escaped(found[0])


def _escaped(character: str) -> str:
    return f"\\{character}" if character.isascii() and not character.isalnum() else character


def words_of(text: str | None, what: str, known: Sequence[str], name: str = "state") -> list[str]:
    """Several words with commas between, of those that are known, for the query parameter `name`; `what` has them.

    Raises InvalidRequest.
    """
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    for word in words:
        if word not in known:
            raise InvalidRequest(f"{word!r:.80} is no {name} of a {what}{nearest(word, known)}", field=name)
    return words


def _states(text: str) -> tuple[str, ...]:
    known = tuple(dict.fromkeys((*TASK_STATES, *EXECUTION_STATES)))
    states = tuple(word.strip() for word in text.split(",") if word.strip())
    for state in states:
        if state not in known:
            raise InvalidRequest(f"{state!r:.80} is no state{nearest(state, known)}: there are {', '.join(known)}", field="state")
    if not states:
        raise InvalidRequest(f"names no state: there are {', '.join(known)}", field="state")
    return states


def _ranges(text: str) -> tuple[tuple[int, int], ...]:
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,18})\s*(?:-\s*([0-9]{1,18})\s*)?", part)
        if match is None:
            raise InvalidRequest(f"{part!r:.60} is no id and no range of ids, such as 5 or 3-9", field="ids")
        first, last = int(match[1]), int(match[2] or match[1])
        found.append((min(first, MAX_ID), min(last, MAX_ID)))
    return tuple(found)


def _exit_codes(text: str) -> tuple[int, ...]:
    try:
        codes = tuple(int(word) for word in text.split(","))
    except ValueError:
        raise InvalidRequest(f"{text!r:.60} is no exit code, and no several with commas between", field="exit_code") from None
    if any(not -MAX_ID <= code <= MAX_ID for code in codes):
        raise InvalidRequest(f"{text!r:.60} is no exit code", field="exit_code")
    return codes


def _checked_since(text: str) -> str:
    moment_of(text, 0.0)
    return text


def moment_of(text: str, now: float) -> float:
    """The moment that `2h` (ago), `1d12h` or an ISO time means, in seconds since the epoch; without a zone it is UTC."""
    if re.fullmatch(r"(?:\d{1,9}(?:\.\d{1,9})?[smhdw])+", text):
        return now - sum(float(amount) * _UNITS[unit] for amount, unit in re.findall(r"([\d.]+)([smhdw])", text))
    try:
        moment = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{text!r:.60} is neither an age such as 90s, 2h or 3d nor a time such as 2026-11-21T10:00", field="since"
        ) from None
