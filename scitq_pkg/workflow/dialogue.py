"""`debug=True`: one chosen task at a time, with its live log, and the question what next."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from urllib.parse import quote

from ..escapes import colored, safe
from ..lib.ends import exit_words
from ..lib.follow import follow
from ..protocol import ENDED, FINAL, PENDING, RUNNING, SUCCEEDED, WAITING
from ..reconcile import Plan
from .declaring import Declaration
from .steps import Step

_LOOK_SECONDS = 1.0
_EXPLAIN_SECONDS = 10.0  # that it has not started: then it is told why
_COLORS = {"stdout": b"\x1b[34m", "stderr": b"\x1b[31m"}
_PLAIN_COLOR = b"\x1b[0m"
_COMMAND_CHARACTERS = 200
QUIT, EXIT = "q", "x"
_LEAVING = {QUIT: "[q]uit", EXIT: "e[x]it from debugging"}
_RUN = {"y": "run it? [y]es", "n": "[n]o, another one", **_LEAVING}
_NEXT = {"c": "[c]ontinue", "r": "[r]etry", **_LEAVING}


class _Away(Exception):
    """Nobody looks any more."""


class Dialogue:
    """Asks for each step that could run whether it should. What is not chosen is not queued."""

    def __init__(self, workflow: Declaration):
        self.workflow, self.client = workflow, workflow.server.client
        plan = Plan(workflow.server, workflow.declared(workflow.steps))
        self.known = {key: row["id"] for key, row in plan.rows.items()}  # the tasks that were there before
        self.done: set[tuple[str, str]] = set()
        self.failed: set[tuple[str, str]] = set()  # here, and not tried again
        for step in workflow.steps:
            if plan.is_done(step.key) and all(need.key in self.done for need in self._needs(step)):
                self.done.add(step.key)
                workflow.adopt(step, self.known[step.key])
        self._colored = colored(sys.stdout)

    def run(self) -> str:
        """Until nothing is left, or somebody leaves: QUIT, or EXIT if all should go on as usual."""
        print(f"workflow {safe(self.workflow.name)}: {len(self.done)} of {len(self.workflow.steps)} steps are done", flush=True)
        while isinstance(chosen := self._choose(), Step):
            again, answer = False, "r"
            while answer == "r":
                self._run(chosen, again)
                again, answer = True, _ask(_NEXT)
            if answer in _LEAVING:
                return answer
        return chosen

    def _choose(self) -> Step | str:
        """The step to run next; the letter if somebody leaves, nothing if nothing is left."""
        while steps := list(self._runnable()):
            for step in steps:
                command = " ".join(step.command.split())
                print(f"\n{safe(step.label)}: {safe(command[:_COMMAND_CHARACTERS])}", flush=True)
                answer = _ask(_RUN)
                if answer == "y":
                    return step
                if answer in _LEAVING:
                    return answer
            print("these were all that could run now", flush=True)
        print("nothing is left that could run", flush=True)
        return ""

    def _runnable(self) -> Iterator[Step]:
        """Those that are not done, and of which all that they need is."""
        for step in self.workflow.steps:
            if step.key not in self.done | self.failed and all(need.key in self.done for need in self._needs(step)):
                yield step

    def _needs(self, step: Step) -> list[Step]:
        return [need for need in step.needs if isinstance(need, Step) and need.workflow is self.workflow]

    # --- one step -----------------------------------------------------------------------------------------------------------

    def _run(self, step: Step, again: bool) -> None:
        """Queues it and shows what it does, until it has ended or Ctrl-C."""
        after = self._ended_attempts(step)
        if again:
            for item in self.workflow.server.client.send("POST", "/tasks/relaunch", {"ids": [step.id]})["skipped"]:
                print(f"it is not queued again: it {item['why']}", flush=True)
        else:
            self.workflow.send([step])
        self.known[step.key] = step.id
        row = self.client.get(f"/batches/{quote(step.batch, safe='')}")
        print(f"task {step.id} of batch {safe(step.batch)}, workers there now: {row['workers']} (Ctrl-C: look away)", flush=True)
        try:
            self._show(step.id, after)
        except KeyboardInterrupt:
            print("\nit goes on", flush=True)
        task = self.client.get(f"/tasks/{step.id}")
        self.failed.discard(step.key)
        if task["state"] in FINAL:
            (self.done if task["state"] == SUCCEEDED else self.failed).add(step.key)
            print(f"{safe(step.label)}: {'succeeded' if task['state'] == SUCCEEDED else safe(exit_words(task))}", flush=True)

    def _ended_attempts(self, step: Step) -> int:
        """The last attempt that is over: its output is not shown."""
        if step.key not in self.known:
            return 0
        attempts = self.client.pages("/executions", task=self.known[step.key], order="id")
        return max((attempt["id"] for attempt in attempts if attempt["state"] in ENDED), default=0)

    def _show(self, task_id: int, after: int) -> None:
        """Its output as it comes, and each change of its state, until it is over."""
        over, errors = threading.Event(), []

        def write(stream: str, data: bytes) -> None:
            if over.is_set():
                raise _Away
            sys.stdout.flush()
            out = getattr(sys.stdout, "buffer", None)
            text = _COLORS[stream] + data + _PLAIN_COLOR if self._colored else data
            out.write(text) if out else sys.stdout.write(text.decode("utf-8", "replace"))
            sys.stdout.flush()

        def run() -> None:
            try:
                follow(self.client.another(), task_id, write, after)
            except BaseException as error:  # raised by the thread that shows
                errors.append(error)

        following = threading.Thread(target=run, daemon=True)
        following.start()
        try:
            self._tell_states(task_id, following)
        finally:
            over.set()
        if errors:
            raise errors[0]

    def _tell_states(self, task_id: int, following: threading.Thread) -> None:
        state, told = None, time.monotonic()
        while following.is_alive():
            task = self.client.get(f"/tasks/{task_id}")
            if task["state"] != state:
                state, told = task["state"], time.monotonic()
                print(f"-- {state}" + (f" on {safe(task['worker'])}" if task["worker"] and state == RUNNING else ""), flush=True)
            elif state in (WAITING, PENDING) and time.monotonic() > told + _EXPLAIN_SECONDS:
                told = time.monotonic()
                print(f"-- {safe(self.client.get(f'/tasks/{task_id}/explain')['sentence'])}", flush=True)
            following.join(_LOOK_SECONDS)


def _ask(choices: dict[str, str]) -> str:
    """The letter of the choice; nothing typed is the first one, the end of what can be typed is `q`."""
    prompt = ", ".join(choices.values()) + ": "
    while True:
        try:
            typed = input(prompt).strip().lower()
        except (EOFError, KeyboardInterrupt):
            print(flush=True)
            return QUIT
        letter = typed[:1] or next(iter(choices))
        if letter in choices:
            return letter
