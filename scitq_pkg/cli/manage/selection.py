"""Which tasks, in the one grammar of filters; and nothing is changed before it was shown and agreed to."""

from __future__ import annotations

import sys
from collections import Counter

from ...errors import InvalidRequest, NotFound
from ...lib.objects import ranges
from ...protocol import TASK_STATES
from ..parser import Parser, some_of

_FILTERS = ("batch", "state", "name", "ids", "worker", "exit_code", "grep", "since")
_SHOWN = 20  # of a list in a question


def add_filters(parser: Parser) -> None:
    """The filters of tasks, and ids as plain words."""
    group = parser.add_argument_group("which tasks (all that is given must hold)")
    add = group.add_argument
    add("numbers", nargs="*", metavar="ID", help="ids and ranges: 3 5-9")
    add("-i", "--ids", action="append", metavar="IDS", help="ids and ranges: 3,5-9 (repeatable)")
    add("-b", "--batch", help="of this batch")
    add("-S", "--state", type=some_of(TASK_STATES, "state"), metavar="STATE", help="in this state, or these: failed,canceled")
    add("-n", "--name", metavar="GLOB", help="whose name matches: 'align*'")
    add("--worker", metavar="WORKER", help="whose latest execution was on this worker (name or id)")
    add("--exit-code", metavar="CODES", help="that ended with this exit code, or these: 1,137")
    add("--grep", metavar="TEXT", help="with this text in the last lines of output")
    add("--since", metavar="TIME", help="changed since: 2h, 3d or 2026-02-28T12:00")


def filters(arguments) -> dict:
    """The filters that were given, as `lib.Server` takes them."""
    found = {name: getattr(arguments, name) for name in _FILTERS if name != "ids" and getattr(arguments, name, None) is not None}
    ids = [*(getattr(arguments, "ids", None) or []), *(getattr(arguments, "numbers", None) or [])]
    return found | ({"ids": ",".join(ids)} if ids else {})


def some_filters(arguments, verb: str) -> dict:
    """The filters that were given. Raises InvalidRequest without any: forgetting them must not mean all tasks."""
    found = filters(arguments)
    if not found:
        raise InvalidRequest(f"which tasks should be changed by {verb}? give ids or a filter; -n '*' means all of them")
    return found


def add_yes(parser: Parser) -> None:
    """--yes and --dry-run of a verb that changes things."""
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask (needed when not on a terminal)")
    parser.add_argument("-t", "--dry-run", action="store_true", help="show what would be done, and do not do it")


def agree(question: str, arguments) -> bool:
    """Whether it shall be done. Asks on a terminal; elsewhere raises InvalidRequest unless --yes was given."""
    if getattr(arguments, "dry_run", False):
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


def change(verb: str, done: str, bulk, chosen: dict, arguments, look=None, **body) -> int:
    """A change of many tasks: looks, shows, asks, and changes the ones that were shown; the exit code.

    `bulk(**chosen, dry_run=True)` is a method of `lib.Server`; `look(answer)` shows more of what is to come.
    """
    seen = bulk(**chosen, dry_run=True, **body)
    _tell_skipped(seen["skipped"])
    if not seen["ids"] and not seen["skipped"]:
        raise NotFound("no task passes the filter, nothing was changed")
    if not seen["ids"]:
        return 1
    if look:
        look(seen)
    if not agree(f"{verb} {some(seen['ids'])}", arguments):
        return 0 if arguments.dry_run else 1
    changed = bulk(ids=seen["ids"], **body)
    _tell_skipped(changed["skipped"])
    print(f"{done} {some(changed['ids'])}")
    return 1 if changed["skipped"] or seen["skipped"] else 0


def some(ids: list[int], noun: str = "task") -> str:
    """`task 3`, `12 tasks (3-9,12,14-17)`."""
    if len(ids) == 1:
        return f"{noun} {ids[0]}"
    told = ranges(ids)
    return f"{len(ids)} {noun}s ({told if len(told) <= 60 else told[:57].rpartition(',')[0] + ',...'})"


def _tell_skipped(skipped: list[dict]) -> None:
    """The reasons, each once: `task 3 runs` or `12 tasks (3-14): ...`."""
    by_reason: dict[str, list[int]] = {}
    for one in skipped:
        by_reason.setdefault(one["why"], []).append(one["id"])
    for reason, ids in list(by_reason.items())[:_SHOWN]:
        print(f"scitq: left out {some(ids)}: {reason}", file=sys.stderr)
    if len(by_reason) > _SHOWN:
        more = Counter(one["why"] for one in skipped).total() - sum(len(ids) for ids in list(by_reason.values())[:_SHOWN])
        print(f"scitq: left out {more} more", file=sys.stderr)
