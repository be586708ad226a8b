"""A workflow on a terminal: progress by step, failures, and keys that act on all of it. Elsewhere: lines, now and then."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable

from ..errors import ScitqError
from ..escapes import safe
from ..lib.progress import Progress
from ..protocol import ACCEPTED, ASSIGNED, CANCELED, FAILED, PENDING, RUNNING, SUCCEEDED, UPLOADING, WAITING
from ..transport import Interrupted
from . import terminal
from .watch import Watch

KEYS = {"p": "pause", "s": "suspend", "u": "resume", "d": "destroy", "r": "refresh", "q": "quit"}
QUIT, DESTROY = "quit", "destroy"
_COLUMNS = (
    ("waiting", (WAITING,)), ("pending", (PENDING,)), ("fetching", (ASSIGNED, ACCEPTED)), ("running", (RUNNING, UPLOADING)),
    ("succeeded", (SUCCEEDED,)), ("failed", (FAILED,)), ("canceled", (CANCELED,)),
)  # fmt: skip
_COLORS = {"succeeded": "32", "failed": "31", "running": "36"}
_BAR_CHARACTERS = 30
_LEAST_SECONDS = 0.5  # between two looks, and two drawings, if much happens
_PARTING_SECONDS = 2.0
_TOLD = 20  # failures that get a line of their own where there is no terminal
_LAST_LINES = 3

log = logging.getLogger("scitq.lib")  # where the client says that it waits for the server


def follow_in_lines(watch: Watch, refresh: float) -> None:
    """Until nothing can happen any more: a line now and then, one for each failure."""
    known: set[tuple[int, str]] = set()
    with Progress(len(watch.labels)) as progress:
        while True:
            watch.look(refresh)
            for step, task_id, words in reversed(watch.summary.failures):
                if len(known) < _TOLD and (task_id, words) not in known:
                    known.add((task_id, words))
                    progress.say(f"failed: {safe(step)} (task {task_id}): {safe(words)}")
                    for line in watch.last_words(task_id, _LAST_LINES):
                        progress.say(f"    | {line}")
            why = watch.why
            progress.show(watch.summary.counts)
            if watch.over:
                return
            if why:
                progress.say(f"nothing starts: {safe(why)}")
                watch.why = ""
            time.sleep(_LEAST_SECONDS)


class View:
    """The screen. Another thread looks at the server, so that a key is never kept waiting."""

    def __init__(self, watch: Watch, refresh: float, title: str, act: Callable[[str], None]):
        self.watch, self.refresh, self.title, self.act = watch, refresh, title, act
        self.note = ""
        self.waiting = ""  # what the client says while no server answers
        self.asked = False  # whether all should really be destroyed
        self._error: BaseException | None = None
        self._start = time.monotonic()
        self._ended = threading.Event()
        self._now = threading.Event()
        self._screen = terminal.Terminal()

    def show(self) -> str | None:
        """Until nothing can happen any more, or somebody leaves: `quit` or `destroy` then."""
        with self._screen, _notes(self):
            looking = threading.Thread(target=self._look, daemon=True, name="workflow view")
            looking.start()
            try:
                return self._listen()
            finally:
                self._ended.set()
                self._now.set()
                until = time.monotonic() + _PARTING_SECONDS  # it may wait for a server that is away
                while looking.is_alive() and time.monotonic() < until:
                    self.watch.client.interrupt()
                    looking.join(0.05)

    def _look(self) -> None:
        try:
            while not self.watch.over and not self._ended.is_set():
                try:
                    self.watch.look(self.refresh)
                    self.waiting = ""
                except Interrupted:  # somebody wants to see it anew
                    self.watch.forget()
                self._screen.ring()
                self._now.wait(_LEAST_SECONDS)
                self._now.clear()
        except BaseException as error:  # raised by the thread that shows
            self._error = error
        self._screen.ring()

    def _listen(self) -> str | None:
        drawn = 0.0
        while True:
            if self._error is not None and not self._ended.is_set():
                raise self._error
            if self.watch.over:
                return None
            pause = drawn + _LEAST_SECONDS - time.monotonic()
            if pause <= 0:
                self._screen.draw(self.lines(*terminal.size()))
                drawn, pause = time.monotonic(), 1.0
            for key in self._screen.keys(pause):
                left = self._press(key.lower())
                drawn = 0.0
                if left:
                    return left

    def _press(self, key: str) -> str | None:
        if self.asked:
            self.asked = False
            if key == "y":
                return DESTROY
            self.note = "nothing was destroyed"
            return None
        verb = KEYS.get(key)
        if verb == "quit":
            return QUIT
        if verb == "destroy":
            self.asked = True
        elif verb == "refresh":
            self.note = ""
            self._hurry()
        elif verb:
            self.note = f"{verb}..."
            threading.Thread(target=self._do, args=(verb,), daemon=True).start()
        return None

    def _do(self, verb: str) -> None:
        """In a thread of its own: a server that is away is waited for."""
        try:
            self.act(verb)
            self.note = {"pause": "paused: nothing new starts", "suspend": "suspended", "resume": "resumed"}[verb]
        except ScitqError as error:
            self.note = f"{verb}: {error}"
        self._hurry()
        self._screen.ring()

    def _hurry(self) -> None:
        self._now.set()
        self.watch.client.interrupt()

    # --- what is shown ----------------------------------------------------------------------------------------------------

    def lines(self, columns: int, height: int) -> list[str]:
        """The screen, from its size."""
        summary = self.watch.summary
        total, done = len(self.watch.labels), summary.done
        filled = _BAR_CHARACTERS * done // max(1, total)
        bar = f"[{'#' * filled}{'.' * (_BAR_CHARACTERS - filled)}]"
        head = [self.title, f"{bar} {done}/{total} done  {_clock(time.monotonic() - self._start)}", ""]
        foot = ["", safe(self.waiting or self.note), self._footer()]
        room = max(2, height - len(head) - len(foot))
        table = self._table(max(1, room - 1 if summary.failures or self.watch.why else room))
        body = [*table, *self._troubles(max(0, room - len(table)))]
        return [_cut(line, columns) for line in (*head, *body[:room], *foot)][:height]

    def _table(self, room: int) -> list[str]:
        summary, names = self.watch.summary, [batch.name for batch in self.watch.batches]
        width = max(4, min(30, max(len(safe(name)) for name in names)))
        lines = [f"{'step':<{width}}" + "".join(f"{title:>10}" for title, _ in _COLUMNS) + f"{'workers':>9}"]
        shown = names if len(names) < room else names[: max(1, room - 2)]
        for name in shown:
            counts, cells = summary.batches[name], []
            for title, states in _COLUMNS:
                number = sum(counts.get(state, 0) for state in states)
                cells.append(_colored(f"{number:>10}", _COLORS.get(title) if number else None))
            mark = "  paused" if self.watch.stopped.get(name) else ""
            lines.append(f"{safe(name)[:width]:<{width}}{''.join(cells)}{self.watch.workers.get(name, 0):>9}{mark}")
        return lines + ([f"... and {len(names) - len(shown)} more steps"] if len(shown) < len(names) else [])

    def _troubles(self, room: int) -> list[str]:
        lines = ["", f"nothing starts: {safe(self.watch.why)}"] if self.watch.why else []
        failures = self.watch.summary.failures
        if failures:
            lines.append("")
            lines += [_colored(f"failed: {safe(step)} (task {task}): {safe(words)}", "31") for step, task, words in failures]
        return lines[:room]

    def _footer(self) -> str:
        if self.asked:
            return f"Delete all {len(self.watch.labels)} tasks of this workflow and what they wrote, and stop what runs? y / n"
        return "  ".join(f"{key} {verb}" for key, verb in KEYS.items())


@contextlib.contextmanager
def _notes(view: View):
    """What the client says while it waits for the server comes to the foot of the screen."""

    class Note(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            view.waiting = record.getMessage()
            view._screen.ring()

    handler, before = Note(), log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before


def _colored(text: str, color: str | None) -> str:
    return f"\x1b[{color}m{text}\x1b[0m" if color and "NO_COLOR" not in os.environ else text


def _cut(line: str, columns: int) -> str:
    """As much of a line as fits; colors take no place."""
    if len(line) <= columns:
        return line
    first, *rest = line.split("\x1b[")
    kept, room = first[:columns], columns - len(first)
    for part in rest:
        color, _, text = part.partition("m")
        kept += f"\x1b[{color}m{text[: max(0, room)]}"
        room -= len(text)
    return kept


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
