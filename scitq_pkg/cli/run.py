"""`scitq run FILE` and `scitq run -- COMMAND`: a server, a worker and the work in one, here and now."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import threading
from concurrent.futures import Future, wait
from pathlib import Path

from .. import batchfile
from ..batchfile import Applied, BatchFile
from ..embedded import Embedded
from ..errors import InvalidRequest, Unreachable
from ..lib.follow import follow
from ..machine import cpu_count
from ..protocol import FINAL, SUCCEEDED, TASK_STATES
from .options import pair
from .parser import Parser, number
from .progress import Watch, exit_words

SOME_FAILED = 10
INTERRUPTED = 130
SIGNALED = 128  # plus the number of the signal, as shells say it
COMMAND_BATCH = "command"
_LOOK_SECONDS = 1.0  # between looks at the server and the worker
_UNDONE = [state for state in TASK_STATES if state not in FINAL]


class _Ended(KeyboardInterrupt):
    """A signal other than Ctrl-C asked this process to end."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def main(arguments: list[str]) -> int:
    """Runs a file, or the words after `--`; 0, or 10 if a task failed, or the exit code of the command."""
    before, command = _split(arguments)
    options = _parser().parse_args(before)
    if options.schema:
        print(json.dumps(batchfile.schema(), indent=2))
        return 0
    file = _file(options, command)
    if options.check:
        print(f"{options.file}: {file.summary}, fine")
        return 0
    if options.dry_run:
        return _show(file)
    _leave_out_rules(file)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _end)
    with Embedded(Path(options.state)) as embedded:
        try:
            return _run(embedded, file, options, command is not None)
        except Unreachable:
            embedded.check()  # tells more, if the server has ended
            raise
        except KeyboardInterrupt as end:
            embedded.stop()
            print("\nscitq: interrupted, nothing of it runs on; the same command goes on where it was", file=sys.stderr)
            return SIGNALED + end.number if isinstance(end, _Ended) else INTERRUPTED


def _split(arguments: list[str]) -> tuple[list[str], list[str] | None]:
    """Our own words, and those of the command."""
    if "--" not in arguments:
        return arguments, None
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _parser() -> Parser:
    parser = Parser(
        prog="scitq run",
        usage="scitq run [options] FILE.yaml\n       scitq run [options] -- COMMAND [WORD...]",
        description="Runs the tasks of a batch file, or one command, with a server and a worker of its own. Started again in the "
        "same folder it goes on where it was: what succeeded is not run again.",
        epilog="Exit codes: 0 all succeeded, 10 some task failed (a command: its own), 130 interrupted. docs/run.md tells more.",
    )
    add = parser.add_argument
    add("file", nargs="?", metavar="FILE", help="a batch file (docs/batchfile.md)")
    add("-j", "--jobs", type=number(1, 10_000), metavar="N", help="how many tasks at once (default: one a processor)")
    add("-b", "--batch", help="the batch (default: the one that the file names)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="choose a parameter of the file (repeatable)")
    add("-t", "--dry-run", action="store_true", help="print the tasks and run nothing")
    add("--check", action="store_true", help="say whether the file is right and run nothing")
    add("-q", "--quiet", action="store_true", help="tell of failures only")
    add("--again", action="store_true", help="run what succeeded before, too")
    add("--serve", action="store_true", help="leave the server up at the end, until Ctrl-C, and print its link")
    add(
        "--shell",
        nargs="?",
        const="sh",
        choices=("sh", "bash"),
        help="run the command with sh -c, or bash -c: the script is one word",
    )
    add("--state", default=".scitq", metavar="DIR", help="the folder of all that has to be remembered (default: .scitq)")
    add("--schema", action="store_true", help="print the JSON schema of batch files")
    add("-v", "--verbose", action="store_true", help="show where an unexpected error came from")
    return parser


def _file(options: argparse.Namespace, command: list[str] | None) -> BatchFile:
    """What is to be done. Relative paths start in the current directory."""
    here = os.getcwd()
    if (options.file is None) == (command is None):
        raise InvalidRequest("what should be run? scitq run FILE.yaml, or scitq run -- COMMAND (-h tells more)")
    if options.file is not None:
        if options.shell:
            raise InvalidRequest("--shell is for commands: write `shell: true` into the file")
        return batchfile.load(options.file, options.batch, here, dict(pair(text, "--set") for text in options.set))
    if options.set or options.check:
        raise InvalidRequest("--set and --check are for batch files: scitq run FILE.yaml")
    line = _command_line(command, options.shell)
    batch = options.batch or COMMAND_BATCH
    task = {"name": line[:200], "batch": batch, "command": line, "workdir": here}
    return BatchFile(here, batch, [task | {"shell": options.shell} if options.shell else task])


def _command_line(words: list[str], shell: str | None) -> str:
    """As `launch` reads them: one word is a command line or a script, several are kept to the letter."""
    if not "".join(words).strip():
        raise InvalidRequest("which command should be run? scitq run -- COMMAND")
    if len(words) > 1 and shell:
        raise InvalidRequest("with --shell the script is one word: scitq run --shell -- 'a | b > c'")
    return words[0] if len(words) == 1 else shlex.join(words)


def _leave_out_rules(file: BatchFile) -> None:
    """The one worker is here, and so is who waits for the end."""
    for key, found in (("recruit", file.recruiters), ("notify", file.notifiers)):
        if found:
            print(f"scitq: `{key}` is for servers, and left out here: scitq launch -f {shlex.quote(file.path)}", file=sys.stderr)
    file.recruiters = file.notifiers = None


def _show(file: BatchFile) -> int:
    _leave_out_rules(file)
    for task in file.tasks:
        needs = f"   (needs {', '.join(map(str, task['require']))})" if task.get("require") else ""
        print(f"{task['name']}: {task['command'].rstrip()}{needs}")
    return 0


def _end(number: int, _frame) -> None:
    raise _Ended(number)


# --- the run --------------------------------------------------------------------------------------------------------


def _run(embedded: Embedded, file: BatchFile, options: argparse.Namespace, is_command: bool) -> int:
    server = embedded.start_server()
    applied = batchfile.apply(server, file)
    for name, why in applied.skipped.items():
        print(f"scitq: {name} stays as it was: {why}", file=sys.stderr)
    if options.again and applied.kept:
        server.client.send("POST", "/tasks/relaunch", {"ids": list(applied.kept.values())})
    _set_aside_others(server, file.batch, applied)
    if options.serve:
        print(f"browser: {embedded.link(sys.stderr.isatty())}", file=sys.stderr, flush=True)
    first = next(iter(applied.ids.values()))
    after = _told_before(server, first) if is_command else 0
    embedded.start_worker(file.batch, options.jobs or cpu_count())
    code = _run_command(embedded, first, after) if is_command else _run_file(embedded, applied, options)
    if options.serve:
        _serve(embedded)
    return code


def _set_aside_others(server, batch: str, applied: Applied) -> None:
    """Cancels what waits in the batch and is not in the file any more. Should it come back, it is queued again."""
    left = {task["id"] for task in server.client.pages("/tasks", batch=batch, state=",".join(_UNDONE))} - set(
        applied.ids.values()
    )
    if left:
        server.client.send("POST", "/tasks/cancel", {"ids": sorted(left)})


def _run_file(embedded: Embedded, applied: Applied, options: argparse.Namespace) -> int:
    with Watch(embedded, applied, options.quiet) as watch:
        watch.until_done()
    watch.sum_up()
    return 0 if watch.all_succeeded else SOME_FAILED


def _run_command(embedded: Embedded, task_id: int, after: int) -> int:
    """Writes what the command writes, in its attempts after that execution; its exit code."""
    outs = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}

    def write(stream: str, data: bytes) -> None:
        outs[stream].write(data)
        outs[stream].flush()

    following: Future = Future()
    threading.Thread(
        target=_into, args=(following, follow, embedded.server.client.another(), task_id, write, after), daemon=True
    ).start()
    while not wait([following], _LOOK_SECONDS).done:
        embedded.check()
    task = following.result()
    if task["state"] == SUCCEEDED:
        return 0
    if task["exit_code"]:
        return task["exit_code"]
    print(f"scitq: {exit_words(task)}", file=sys.stderr)
    return SIGNALED + task["signal"] if task["signal"] else SOME_FAILED


def _into(future: Future, function, *arguments) -> None:
    """The outcome of a call, for the thread that waits for it and looks after more than that."""
    try:
        future.set_result(function(*arguments))
    except BaseException as error:
        future.set_exception(error)


def _told_before(server, task_id: int) -> int:
    """The last execution whose output an earlier run has shown; of a command that succeeded before it is shown again."""
    task = server.client.get(f"/tasks/{task_id}")
    if task["state"] == SUCCEEDED:
        print("scitq: it succeeded before, and this is what it wrote then (--again runs it anew)", file=sys.stderr)
        return task["execution_id"] - 1
    attempts = server.client.get("/executions", task=task_id, order="-id", limit=2)["items"]
    return max((attempt["id"] for attempt in attempts if attempt["started_at"]), default=0)


def _serve(embedded: Embedded) -> None:
    print("scitq: all is done; the server stays up until Ctrl-C", file=sys.stderr, flush=True)
    try:
        while True:
            signal.sigtimedwait([], _LOOK_SECONDS)
            embedded.check()
    except KeyboardInterrupt:
        return
