"""Which tasks, in the one grammar of filters; and nothing is changed before it was shown and agreed to."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator

from ...errors import Conflict, InvalidRequest, NotFound, nearest
from ...lib.objects import ids_of, ranges
from ...lib.server import Server, find, query
from ...protocol import TASK_STATES
from ..parser import Parser, SomeOf
from . import tables

_MOST_REASONS = 20
_MOST_CHARACTERS = 60  # of a list of ids in a sentence
_NOT_THERE = "is not there"  # as the server says it
_NONE = "no task passes the filter"


def add_filters(parser: Parser, noun: str = "tasks", states: tuple[str, ...] = TASK_STATES) -> None:
    """The filters of tasks, or of executions."""
    add = _add_ids(parser, noun)
    add("-b", "--batch", help="of this batch")
    add("-S", "--state", type=SomeOf(states, "state"), metavar="STATE", help="in this state, or these: failed,canceled")
    add("-n", "--name", metavar="GLOB", help="whose name matches: 'align*'")
    add("--worker", metavar="WORKER", help="whose latest execution was on this worker (name or id)")
    add("--exit-code", metavar="CODES", help="that ended with this exit code, or these: 1,137")
    add("--grep", metavar="TEXT", help="with this text in the last lines of output")
    add("--since", metavar="TIME", help="in their state since: 2h, 3d or 2026-02-28T12:00 (of this machine's zone)")


def add_ids_and_name(parser: Parser) -> None:
    """Ids and a name: for verbs whose other letters mean something else."""
    _add_ids(parser, "tasks")("-n", "--name", metavar="GLOB", help="whose name matches: 'align*'")


def _add_ids(parser: Parser, noun: str) -> Callable:
    add = parser.add_argument_group(f"which {noun} (all that is given must hold)").add_argument
    add("numbers", nargs="*", metavar="ID", help="ids and ranges: 3 5-9")
    add("-i", "--ids", "--id", action="append", metavar="IDS", help="the same: 3,5-9 (repeatable)")
    return add


def filters(arguments) -> dict:
    """The filters that were given, as `lib.Server` takes them."""
    names = ("batch", "state", "name", "worker", "exit_code", "grep", "since")
    found = {name: getattr(arguments, name) for name in names if getattr(arguments, name, None) is not None}
    if "since" in found:
        found["since"] = tables.zoned(found["since"])
    ids = [*(arguments.ids or []), *arguments.numbers]
    return found | ({"ids": ",".join(ids)} if ids else {})


def listed(server: Server, path: str, arguments, **more) -> Iterator[dict]:
    """The rows of a list that pass the filters.

    A batch that does not exist is told of: it would look like one with nothing in it.
    """
    rows = tables.rows_of(server, path, arguments, **filters(arguments), **more)
    first = next(rows, None)
    if first is not None:
        return itertools.chain([first], rows)
    if arguments.batch is not None and arguments.watch is None:
        known = [batch["name"] for batch in server.client.pages("/batches")]
        if arguments.batch not in known:
            print(f"scitq: there is no batch '{tables.safe(arguments.batch)}'{nearest(arguments.batch, known)}", file=sys.stderr)
    return iter(())


def some_filters(arguments, verb: str) -> dict:
    """The filters that were given. Raises InvalidRequest without any: forgetting them must not mean all tasks."""
    found = filters(arguments)
    if not found:
        raise InvalidRequest(f"{verb} which tasks? give ids or a filter (-n '*' means all; -h lists them)")
    return found


def chosen(server: Server, arguments, verb: str) -> tuple[Iterator[dict], bool]:
    """The tasks themselves, page by page, and whether they are several.

    Raises NotFound: there is none, or one that was named is missing.
    """
    wanted = some_filters(arguments, verb)
    tasks = find(server.client, "tasks", None, "id", query(wanted))
    if _names_each(wanted):
        tasks = iter(found := list(tasks))
        if missing := sorted(set(ids_of(wanted["ids"])) - {task["id"] for task in found}):
            raise NotFound(f"there is no {some(missing)}")
    first = list(itertools.islice(tasks, 2))
    if not first:
        raise NotFound(_NONE)
    return itertools.chain(first, tasks), len(first) > 1


def _names_each(wanted: dict) -> bool:
    """Whether it is single ids alone: one that is missing is a mistake, in a range or beside a filter it is not."""
    return set(wanted) == {"ids"} and "-" not in wanted["ids"]


# --- before something is changed -----------------------------------------------------------------------------------


def add_yes(parser: Parser) -> None:
    """--yes and --dry-run of a verb that changes things."""
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask (needed when not on a terminal)")
    parser.add_argument("-t", "--dry-run", action="store_true", help="show what would be done, and do not do it")


def agree(question: str, arguments) -> bool:
    """Whether it shall be done. Asks on a terminal; elsewhere raises InvalidRequest unless --yes was given."""
    if arguments.dry_run:
        print(f"would {question}")
        return False
    if arguments.yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InvalidRequest(f"this would {question}: give --yes to do it (nobody can be asked here), or --dry-run to look")
    print(f"{question}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    print("nothing was changed", file=sys.stderr)
    return False


def change(
    verb: str, bulk: Callable, arguments, how: str = "", look: Callable[[dict], None] | None = None, none: str = _NONE, **body
) -> int:  # fmt: skip
    """A change of many tasks: looks, shows, asks, and changes the very ones that were shown; the exit code.

    `bulk` is a method of `lib.Server`; `look(answer)` shows more of what is to come. `verb` is one word, `relaunch`; `how`
    follows the tasks in the question; `none` says what it means that no task is left.
    """
    wanted = some_filters(arguments, verb)
    which = {"ids": ids_of(wanted["ids"])} if _names_each(wanted) else wanted
    seen = bulk(**which, dry_run=True, **body)
    _tell_skipped(seen["skipped"])
    if not seen["ids"]:
        if any(one["why"] != _NOT_THERE for one in seen["skipped"]):
            raise Conflict("nothing was changed")
        raise NotFound(f"{'there is no such task' if seen['skipped'] else none}: nothing was changed")
    if look:
        look(seen)
    if not agree(f"{verb} {some(seen['ids'])}{how}", arguments):
        return 0 if arguments.dry_run else 1
    changed = bulk(ids=seen["ids"], **body)
    _tell_skipped(changed["skipped"])
    print(f"{verb}: {some(changed['ids'])}" if changed["ids"] else "nothing was changed")
    surprises = _surprises(seen, changed)
    if surprises:
        print(f"scitq: somebody else changed {some(surprises)} meanwhile: look at what became of it", file=sys.stderr)
    return 1 if changed["skipped"] or surprises or (seen["skipped"] and "ids" in which) else 0


def _surprises(seen: dict, changed: dict) -> list[int]:
    """The tasks that became something else than what was shown."""
    shown, done = ({one["id"]: one["after"] for one in answer.get("changes", ())} for answer in (seen, changed))
    skipped = {one["id"] for one in changed["skipped"]}
    return [task_id for task_id, after in shown.items() if done.get(task_id) != after and task_id not in skipped]


def some(ids: list[int], noun: str = "task") -> str:
    """`task 3`, `12 tasks (3-9,12,14-17)`."""
    if len(ids) == 1:
        return f"{noun} {ids[0]}"
    told = ranges(ids)
    if len(told) > _MOST_CHARACTERS:
        told = told[:_MOST_CHARACTERS].rpartition(",")[0] + ",..."
    return f"{len(ids)} {noun}s ({told})"


def _tell_skipped(skipped: list[dict]) -> None:
    """What is left out, each reason once."""
    by_reason: dict[str, list[int]] = {}
    for one in skipped:
        by_reason.setdefault(one["why"], []).append(one["id"])
    for place, (reason, ids) in enumerate(by_reason.items()):
        if place == _MOST_REASONS:
            print(f"scitq: left out more, for {len(by_reason) - place} other reasons", file=sys.stderr)
            return
        print(f"scitq: left out {some(ids)}: {reason}", file=sys.stderr)
