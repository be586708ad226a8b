"""`scitq launch`: queues a command, and prints its id.

People call it in shell loops: one task is one request, and what only `--wait`, `--each` and `-f` need is imported for them alone.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time

from ..auth import find_token
from ..errors import InvalidRequest, StorageFull, TaskFailed, TooManyRequests, Unavailable, Unreachable
from ..protocol import API
from ..transport import Connection, Unanswered, raise_for
from ..uris import uris_of
from .options import HELP, SERVER, TOKEN_FILE, VERBOSE, Option, described, duration, pair, parse, token_of, whole_number

OPTIONS = (
    Option("-b --batch", "BATCH", "the batch whose workers run it (default: Default)"),
    Option("-n --name", "NAME", "a label"),
    Option("-d --container --docker", "IMAGE", "run it in this image"),
    Option("-O --container-options --option", "OPTIONS", "more options for the container, as one word"),
    Option("-i --input", "URI", "fetch this for the task, into $INPUT (repeatable; a final / means all below)", repeated=True),
    Option("-r --resource", "URI", "fetch this once per worker, into $RESOURCE (repeatable)", repeated=True),
    Option("-o --output", "URI", "where $OUTPUT is copied to at the end"),
    Option("-u --uid", "UID", "run it as this user (a number)"),
    Option("-g --gid", "GID", "run it as this group (a number)"),
    Option("--shell", "sh|bash", "run it with sh -c, or bash -c; the script is one word", bare="sh"),
    Option("--env", "KEY=VALUE", "set a variable (repeatable)", repeated=True),
    Option("--workdir", "DIRECTORY", "run it there, on the worker (absolute)"),
    Option("--retry", "N", "try it again after so many failures"),
    Option("--download-timeout", "TIME", "the longest its inputs may take: 90, 90s, 5m, 2h, 3d"),
    Option("--run-timeout", "TIME", "the longest its command may take"),
    Option("-R --require --requirements", "ID", "start it after these tasks succeeded (repeatable, or 3,5)", repeated=True),
    Option("--priority", "N", "higher ones go first (default: 0)"),
    Option("--use-cache", None, "take the results of an equal task that succeeded, if there is one"),
    Option("--wait", None, "follow its output; leave with its exit code (10: it failed without one)"),
    Option("--each", "TABLE", "one task a row of a csv or tsv file; {column}, {column:stem} are replaced"),
    Option("-f --file", "FILE", "queue the tasks of a batch file instead of a command"),
    Option("--set", "NAME=VALUE", "choose a parameter of the batch file (repeatable)", repeated=True),
    Option("--check", None, "say whether the batch file is right, and queue nothing"),
    Option("-t --dry-run --test", None, "print the task and do not queue it"),
    SERVER,
    TOKEN_FILE,
    VERBOSE,
    HELP,
)
USAGE = """usage: scitq launch [options] [--] COMMAND [WORD...]
       scitq launch [options] 'COMMAND LINE'
       scitq launch [options] --each TABLE COMMAND [WORD...]
       scitq launch [options] -f FILE

Queues a command and prints its id. Options end at the first word that is none; the words of the command are kept to the letter.
A single word with spaces is a command line. Without --shell no shell reads it: $VARIABLES, pipes and globs need --shell.

"""
EXIT_CODES = """
Exit codes: 0 queued (--wait: succeeded), 2 a wrong word or file, 4 no right to it, 5 no server, 10 a task failed,
130 interrupted.
"""
SOME_FAILED = 10
INTERRUPTED = 130
_PATIENCE_SECONDS = 30.0
_TEXTS = ("batch", "name", "container", "container_options", "output", "workdir")
_URIS = ("input", "resource")
_TIMES = ("download_timeout", "run_timeout")
_OF_FILES_ALONE = ("set", "check")
_OF_A_FILE = ("batch", "file", "wait", "dry_run", "server", "token_file", "verbose", *_OF_FILES_ALONE)


def main(argv: list[str]) -> int:
    """Runs `scitq launch WORDS...`; the exit code."""
    given, words = parse(argv, OPTIONS)
    if given.get("help"):
        sys.stdout.write(USAGE + "options:\n" + described(OPTIONS) + EXIT_CODES)
        return 0
    if "file" in given:
        return _launch_file(given, words)
    for key in _OF_FILES_ALONE:
        if key in given:
            raise InvalidRequest(f"--{key} goes with -f: scitq launch -f FILE --{key}")
    if "each" in given:
        tasks = _one_each(given, words)
    else:
        task = task_of(given, words)
    if given.get("dry_run"):
        return _show(tasks if "each" in given else task)
    with _connection(given) as connection:
        ids = submit(connection, {"tasks": tasks} if "each" in given else task)
    if given.get("wait"):
        return _follow(given, ids[0]) if "each" not in given else _join(given, ids)
    sys.stdout.write("".join(f"{task_id}\n" for task_id in ids))
    return 0


# --- words into a task ----------------------------------------------------------------------------------------------


def task_of(given: dict, words: list[str]) -> dict:
    """The TaskSpec, as JSON values, of options that were given and the words of the command. Raises InvalidRequest."""
    return _sendable({"command": command_of(words, given.get("shell"))} | _policies(given))


def _policies(given: dict) -> dict:
    task: dict = {}
    task |= {key: given[key] for key in _TEXTS if key in given}
    task |= {key: duration(given[key], f"--{key.replace('_', '-')}") for key in _TIMES if key in given}
    task |= {key: uris_of(given[key]) for key in _URIS if key in given}
    task |= {key: whole_number(given[key], f"--{key}", 0) for key in ("uid", "gid", "retry") if key in given}
    if "priority" in given:
        task["priority"] = whole_number(given["priority"], "--priority")
    if "shell" in given:
        task["shell"] = _shell(given["shell"])
    if "env" in given:
        task["env"] = dict(pair(text, "--env") for text in given["env"])
    if "require" in given:
        task["require"] = [
            whole_number(word, "--require", 1) for text in given["require"] for word in text.replace(",", " ").split()
        ]
    if given.get("use_cache"):
        task["use_cache"] = True
    return task


def command_of(words: list[str], shell: str | None, fill=str) -> str:
    """The command line that a worker splits into these very words; with a shell, the script.

    `fill` puts the values of a row in: into words, so that a value with spaces or quotes stays a part of its word.
    """
    if not words or not any(word.strip() for word in words):
        raise InvalidRequest("which command should be queued? scitq launch [options] COMMAND (-h tells more)")
    if len(words) == 1 and (shell or any(c.isspace() for c in words[0])):
        return fill(words[0]) if shell else _checked(fill(words[0]))
    if shell and any(shlex.quote(word) != word for word in words):
        raise InvalidRequest("with --shell the script is one word: scitq launch --shell 'a | b > c'")
    return shlex.join(map(fill, words))


def _checked(line: str) -> str:
    try:
        shlex.split(line)
    except ValueError as error:
        raise InvalidRequest(
            f"the command line {line!r:.100} cannot be split into words ({error}): mind its quotes, or use --shell"
        ) from None
    return line


def _shell(name: str) -> str:
    if name not in ("sh", "bash"):
        raise InvalidRequest(f"--shell cannot be {name!r:.60}: give --shell, --shell=sh or --shell=bash")
    return name


def _sendable(task: dict) -> dict:
    """The task, if it is text: words of a command line may be any bytes."""
    try:
        json.dumps(task, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            "a word of the command or of an option is not UTF-8 text: put such names into a file or a script"
        ) from None
    return task


def _one_each(given: dict, words: list[str]) -> list[dict]:
    """A task for each row of the table, with the row's values in all of its texts."""
    from ..substitution import read_table, substitute

    policies = _policies(given)

    def filled(value, row):
        if isinstance(value, str):
            return substitute(value, row)
        if isinstance(value, list):
            return [filled(item, row) for item in value]
        return {key: filled(item, row) for key, item in value.items()} if isinstance(value, dict) else value

    tasks = []
    for row in read_table(given["each"]):
        task = filled(policies, row) | {"command": command_of(words, given.get("shell"), lambda text: substitute(text, row))}
        tasks.append(_sendable(task | {key: uris_of(task[key]) for key in _URIS if key in task}))
    return tasks


def _show(task) -> int:
    print(json.dumps(task, indent=2, ensure_ascii=False))
    return 0


# --- sending ----------------------------------------------------------------------------------------------------------


def _connection(given: dict) -> Connection:
    return Connection(given.get("server"), find_token(given.get("server"), token_of(given.get("token_file"))), timeout=60.0)


def submit(connection: Connection, body: dict) -> list[int]:
    """Queues a task, or `{"tasks": [...]}`, once; the ids.

    A server that is not there is told at once. One that goes while it has the request, or is just starting, is asked again, with
    the same key, until it says whether the task is recorded.
    """
    headers = {"Idempotency-Key": os.urandom(16).hex()}
    deadline = None
    while True:
        try:
            return raise_for(connection.request("POST", f"{API}/tasks", body, headers=headers)).json()["ids"]
        except (StorageFull, TooManyRequests):
            raise
        except (Unavailable, Unreachable) as error:
            if deadline is None and not isinstance(error, (Unavailable, Unanswered)):
                raise
            deadline = deadline or time.monotonic() + _PATIENCE_SECONDS
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


# --- waiting ----------------------------------------------------------------------------------------------------------


def _server(given: dict):
    from ..lib import Server

    return Server(given.get("server"), token=token_of(given.get("token_file")))


def _follow(given: dict, task_id: int) -> int:
    """Writes what the task writes; its exit code."""
    from ..lib.follow import follow

    if sys.stderr.isatty():  # elsewhere stderr is the task's alone
        print(f"task {task_id} is queued", file=sys.stderr)
    outs = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}

    def write(stream: str, data: bytes) -> None:
        outs[stream].write(data)
        outs[stream].flush()

    with _server(given) as server:
        try:
            task = follow(server.client, task_id, write)
        except KeyboardInterrupt:
            return _left([task_id])
    return _exit_code(task)


def _exit_code(task: dict) -> int:
    if task["state"] == "succeeded":
        return 0
    if task.get("reason") or not task.get("exit_code"):  # which alone says why
        print(f"scitq: task {task['id']} {task['state']}: {task.get('reason') or 'it has no exit code'}", file=sys.stderr)
    return task.get("exit_code") or SOME_FAILED


def _join(given: dict, ids: list[int]) -> int:
    sys.stdout.write("".join(f"{task_id}\n" for task_id in ids))
    sys.stdout.flush()
    with _server(given) as server:
        try:
            server.join(ids, retry=0, check=True)
        except KeyboardInterrupt:
            return _left(ids)
        except TaskFailed as error:
            print(f"scitq: {error}", file=sys.stderr)
            return SOME_FAILED
    return 0


def _left(ids: list[int]) -> int:
    from ..lib.objects import ranges

    what = f"task {ids[0]} goes" if len(ids) == 1 else f"the tasks {ranges(ids)} go"
    print(f"\nscitq: {what} on; to stop: scitq manage task cancel {ranges(ids)}", file=sys.stderr)
    return INTERRUPTED


# --- batch files ------------------------------------------------------------------------------------------------------


def _launch_file(given: dict, words: list[str]) -> int:
    for key in given:
        if key not in _OF_A_FILE:
            raise InvalidRequest(f"--{key.replace('_', '-')} cannot go with -f: write it in the file, under `defaults`")
    if words:
        raise InvalidRequest(f"-f takes its commands from {given['file']}: {words[0]!r:.60} is one word too many")
    from .. import batchfile

    params = dict(pair(text, "--set") for text in given.get("set", ()))
    file = batchfile.load(given["file"], given.get("batch"), params=params)
    if given.get("check"):
        print(f"{given['file']}: {file.summary}, fine")
        return 0
    if given.get("dry_run"):
        for line in batchfile.described(file):
            print(line, file=sys.stderr)  # stdout is the tasks, as JSON
        return _show(file.tasks)
    with _server(given) as server:
        applied = batchfile.apply(server, file)
    for name, why in applied.skipped.items():
        print(f"scitq: {name} stays as it was: {why}", file=sys.stderr)
    ids = list(applied.ids.values())
    if given.get("wait"):
        return _join(given, ids)
    sys.stdout.write("".join(f"{task_id}\n" for task_id in ids))
    return 0
