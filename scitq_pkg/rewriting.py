"""What a regular expression makes of many texts: found in a process of its own, which is ended when it takes too long.

Some expressions take years on some texts, and meanwhile no other thread of their process runs.
"""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys

from .errors import InvalidRequest, ScitqError
from .program import command

LONGEST_SECONDS = 5  # of processor time, and one more for so many texts:
_TEXTS_A_SECOND = 20_000
_SLOWEST = 10  # times as long on the clock: others may want the processor too
MAX_CHARACTERS = 1_000_000  # of a text
_MOST_CHARACTERS = 20_000_000  # that are put into all of them
_MOST_BYTES = 4 * 2**30  # of the process's memory


def rewritten(texts: dict[int, str], pattern: str, replacement: str, count: int = 0) -> dict[int, str]:
    """The texts that change, as they become, in at most `count` places each (0: all). Raises InvalidRequest."""
    seconds = LONGEST_SECONDS + len(texts) // _TEXTS_A_SECOND
    request = {"texts": list(texts.items()), "pattern": pattern, "replacement": replacement, "count": count}
    words = command("rewrite", str(seconds))
    try:
        done = subprocess.run(
            words, input=json.dumps(request).encode(), capture_output=True, timeout=seconds * _SLOWEST, check=False
        )
    except subprocess.TimeoutExpired:
        raise _too_long(len(texts), seconds) from None
    if done.returncode == -signal.SIGXCPU:
        raise _too_long(len(texts), seconds)
    if done.returncode != 0:
        raise ScitqError(f"the process that replaces ended with {done.returncode}: {done.stderr[-300:].decode(errors='replace')}")
    answer = json.loads(done.stdout)
    if "fault" in answer:
        raise InvalidRequest(answer["fault"], field=f"sub.{answer['field']}")
    return dict(answer["changed"])


def _too_long(count: int, seconds: int) -> InvalidRequest:
    advice = "choose fewer, or repeat no repetition, as in (a+)+"
    return InvalidRequest(
        f"takes longer than {seconds} s on {count} command{'s' if count != 1 else ''}: {advice}", field="sub.pattern"
    )


def main(arguments: list[str]) -> int:
    """`scitq rewrite SECONDS`, the process: one request as JSON on stdin, its answer on stdout."""
    seconds = int(arguments[0])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))  # it ends even if nobody is left who waits
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
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
