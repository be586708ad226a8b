"""What a regular expression makes of many texts: found in a process of its own, which is ended when it takes too long.

Some expressions take years on some texts, and meanwhile no other thread of their process runs.
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys

from .errors import InvalidRequest, ScitqError
from .program import command

LONGEST_SECONDS = 5.0
MAX_CHARACTERS = 1_000_000  # of a text
_MOST_CHARACTERS = 20_000_000  # that are put into all of them
_MOST_CPU_SECONDS = 10
_MOST_BYTES = 4 * 2**30  # of the process's memory


def rewritten(texts: dict[int, str], pattern: str, replacement: str, count: int = 0) -> dict[int, str]:
    """The texts that change, as they become, in at most `count` places each (0: all). Raises InvalidRequest."""
    request = {"texts": list(texts.items()), "pattern": pattern, "replacement": replacement, "count": count}
    try:
        done = subprocess.run(
            command("rewrite"), input=json.dumps(request).encode(), capture_output=True, timeout=LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        fault = f"takes longer than {LONGEST_SECONDS:g} s on {len(texts)} commands: choose fewer, or repeat no repetition, as in (a+)+"
        raise InvalidRequest(fault, field="sub.pattern") from None
    if done.returncode != 0:
        raise ScitqError(f"the process that replaces ended with {done.returncode}: {done.stderr[-300:].decode(errors='replace')}")
    answer = json.loads(done.stdout)
    if "fault" in answer:
        raise InvalidRequest(answer["fault"], field=f"sub.{answer['field']}")
    return dict(answer["changed"])


def main(arguments: list[str]) -> int:
    """The process: one request as JSON on stdin, its answer on stdout."""
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_CPU_SECONDS, _MOST_CPU_SECONDS))  # should nobody be left who ends it
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    json.dump(_answer(**json.load(sys.stdin)), sys.stdout)
    return 0


def _answer(texts: list, pattern: str, replacement: str, count: int) -> dict:
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return {"field": "pattern", "fault": f"{pattern!r:.80} is no regular expression: {error}"}
    try:
        compiled.sub(replacement, "")  # a wrong one is told even where nothing is replaced
        return {"changed": list(_changes(texts, compiled, replacement, count))}
    except (re.error, IndexError) as error:
        return {"field": "replacement", "fault": f"{replacement!r:.80} is no replacement: {error}"}
    except _Refused as refused:
        return {"field": "replacement", "fault": str(refused)}


class _Refused(Exception):
    """What would come of it cannot be."""


def _changes(texts: list, pattern: re.Pattern, replacement: str, count: int):
    """(id, text) of those that change."""
    left = _MOST_CHARACTERS
    for number, text in texts:
        after, put = _replaced(text, pattern, replacement, count)
        left -= put
        if left < 0:
            raise _Refused(f"more than {_MOST_CHARACTERS} characters would be put into the commands: choose fewer")
        if after is None or len(after) > MAX_CHARACTERS or "\0" in after or not after.strip():
            fault = f"is empty, holds a NUL or is longer than {MAX_CHARACTERS} characters"
            raise _Refused(f"task {number} would have a command that {fault}")
        if after != text:
            yield number, after


def _replaced(text: str, pattern: re.Pattern, replacement: str, count: int) -> tuple[str | None, int]:
    """What becomes of a text (None: more than can be), and how many characters were put into it."""
    put = 0

    def expand(match: re.Match) -> str:
        nonlocal put
        if put > MAX_CHARACTERS:
            return ""
        piece = match.expand(replacement) if "\\" in replacement else replacement  # the former reads it anew each time
        put += len(piece)
        return piece

    after = pattern.sub(expand, text, count=count)
    return (after if put <= MAX_CHARACTERS else None), put
