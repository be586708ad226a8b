"""`scitq manage task`: looks at tasks. What changes them is in `changes`."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from signal import Signals

from ...errors import InvalidRequest, NotFound
from ...lib.follow import follow
from ...lib.objects import to_datetime
from ...lib.output import pieces
from ...lib.server import Server
from ...protocol import FINAL, STREAMS
from ..parser import Parser
from . import changes, selection, tables
from .tables import Column
from .verbs import Verb


def state(row: dict) -> str:
    """The state of a task or an execution, or `suspended`."""
    return "suspended" if row.get("suspended") else row["state"]


def end(row: dict) -> str:
    """How a task or an execution ended: `exit 1`, `SIGKILL`, or the reason."""
    if row.get("reason"):
        return row["reason"]
    if row.get("signal"):
        return Signals(row["signal"]).name if row["signal"] in list(Signals) else f"signal {row['signal']}"
    return "" if row.get("exit_code") is None else f"exit {row['exit_code']}"


def took(row: dict) -> str:
    """How long its command ran, or has run until now."""
    if not row.get("started_at"):
        return ""
    over = to_datetime(row["ended_at"]) if row.get("ended_at") else datetime.now(timezone.utc)
    return tables.short_duration((over - to_datetime(row["started_at"])).total_seconds())


def _of_execution(key: str, title: str, text=tables.plain) -> Column:
    """A property of the latest execution."""

    def shown(task: dict) -> str:
        value = (task.get("execution") or {}).get(key)
        return "" if value is None else text(value)

    return Column("", title, text=shown, whole=True)


COLUMNS = (
    Column("id", "ID"),
    Column("state", "STATE", text=state, whole=True),
    Column("name", "NAME"),
    Column("batch", "BATCH"),
    Column("worker", "WORKER"),
    Column("attempts", "TRIES", right=True),
    Column("", "AGE", text=lambda row: tables.ago(row["created_at"]), whole=True, right=True),
    Column("", "TIME", text=took, whole=True, right=True),
    Column("exit_code", "END", text=end, whole=True),
    Column("priority", "PRIORITY", long=True, right=True),
    Column("retry", "RETRY", long=True, right=True),
    Column("require", "REQUIRE", long=True),
    Column("container", "CONTAINER", long=True),
    Column("input", "INPUT", long=True),
    Column("resource", "RESOURCE", long=True),
    Column("output", "OUTPUT", long=True),
    Column("created_at", "CREATED", long=True, text=tables.moment),
    Column("started_at", "STARTED", long=True, text=tables.moment),
    Column("ended_at", "ENDED", long=True, text=tables.moment),
    Column("state_at", "SINCE", long=True, text=tables.moment),
    Column("command", "COMMAND"),
)
DETAILS = (
    *(column for column in COLUMNS if not column.key.endswith("_at")),
    Column("shell", "SHELL"),
    Column("container_options", "OPTIONS"),
    Column("env", "ENV"),
    Column("workdir", "WORKDIR"),
    Column("uid", "UID"),
    Column("gid", "GID"),
    Column("download_timeout", "DOWNLOAD-TIMEOUT", text=tables.short_duration),
    Column("run_timeout", "RUN-TIMEOUT", text=tables.short_duration),
    Column("use_cache", "USE-CACHE"),
    Column("execution_id", "EXECUTION"),
    Column("created_at", "CREATED", text=tables.moment),
    Column("modified_at", "MODIFIED", text=tables.moment),
    Column("state_at", "SINCE", text=tables.moment),
    Column("started_at", "STARTED", text=tables.moment),
    Column("ended_at", "ENDED", text=tables.moment),
    _of_execution("cpu_seconds", "CPU", tables.short_duration),
    _of_execution("peak_memory_bytes", "MEMORY", tables.byte_size),
    _of_execution("read_bytes", "READ", tables.byte_size),
    _of_execution("written_bytes", "WRITTEN", tables.byte_size),
    _of_execution("stdout_size", "STDOUT", tables.byte_size),
    _of_execution("stderr_size", "STDERR", tables.byte_size),
    _of_execution("last_output", "LAST-OUTPUT"),
    Column("explain", "WHY"),
)


# --- list, get, explain ------------------------------------------------------------------------------------------------


def _list_options(parser: Parser) -> None:
    selection.add_filters(parser)
    tables.add_options(parser)


def _list(server: Server, arguments) -> int:
    return tables.show(server, lambda: selection.listed(server, "tasks", arguments), COLUMNS, arguments)


def _get_options(parser: Parser) -> None:
    selection.add_filters(parser)
    tables.add_details_option(parser)


def _get(server: Server, arguments) -> int:
    tasks = list(selection.chosen(server, arguments, "get")[0])
    for task in tasks:
        if task["execution_id"]:
            task["execution"] = server.client.get(f"/executions/{task['execution_id']}")
        if task["state"] not in FINAL:
            task["explain"] = server.task_explain(task["id"])
    tables.details(tasks, DETAILS, arguments.format)
    return 0


def _explain(server: Server, arguments) -> int:
    tasks, several = selection.chosen(server, arguments, "explain")
    for task in tasks:
        sentence = tables.safe(server.task_explain(task["id"]))
        print(f"{task['id']}  {sentence}" if several else sentence)
    return 0


# --- output ---------------------------------------------------------------------------------------------------------------


def output_options(parser: Parser) -> None:
    """-o and -e of a verb that writes output."""
    one = parser.add_mutually_exclusive_group()
    one.add_argument("-o", "--output", action="store_true", help="what it wrote to stdout alone")
    one.add_argument("-e", "--error", action="store_true", help="what it wrote to stderr alone (goes to stdout)")


def _output_options(parser: Parser) -> None:
    selection.add_filters(parser)
    output_options(parser)
    parser.add_argument("--attempt", type=int, metavar="N", help="of its Nth execution; -1 is the latest (default)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the task is over")


def _output(server: Server, arguments) -> int:
    tasks, several = selection.chosen(server, arguments, "output of")
    if arguments.follow and (several or arguments.attempt):
        raise InvalidRequest("--follow wants one task, and no --attempt")
    outlet = Outlet(arguments)
    for task in tasks:
        if arguments.follow:
            before = (task["execution_id"] or 1) - 1  # earlier attempts were told when they were the latest
            follow(server.client, task["id"], outlet.write, after=before)
            return 0
        if several:
            outlet.begin(f"task {task['id']}{' ' + tables.safe(task['name']) if task['name'] else ''}")
        latest = arguments.attempt in (None, -1)
        execution_id = task["execution_id"] if latest else _attempt(server, task["id"], arguments.attempt)
        if execution_id is None:
            print(f"scitq: task {task['id']} has no output yet: it is {task['state']}", file=sys.stderr)
        else:
            outlet.write_all(server, execution_id)
    return 0


def _attempt(server: Server, task_id: int, attempt: int) -> int:
    """The execution that is the Nth attempt, or the Nth from the end. Raises NotFound."""
    executions = list(server.client.pages("/executions", task=task_id))
    by_number = {execution["attempt"]: execution["id"] for execution in executions}
    if attempt < 0 and -attempt <= len(executions):
        return executions[attempt]["id"]
    if attempt not in by_number:
        raise NotFound(f"task {task_id} has no attempt {attempt}: there are {len(executions)}", field="--attempt")
    return by_number[attempt]


class Outlet:
    """Our own stdout and stderr, as -o and -e want them: bytes as they are; stderr goes to stderr, unless it was asked for alone.
    """

    def __init__(self, arguments):
        self.streams = ("stdout",) if arguments.output else ("stderr",) if arguments.error else STREAMS
        error = sys.stdout if arguments.error else sys.stderr
        self._outs = {"stdout": sys.stdout.buffer, "stderr": error.buffer}
        self._ends_a_line = True  # what went to stdout last

    def write(self, stream: str, data: bytes) -> None:
        """Writes a piece of a stream, if it is wanted."""
        if stream in self.streams and data:
            out = self._outs[stream]
            out.write(data)
            out.flush()
            if out is sys.stdout.buffer:
                self._ends_a_line = data.endswith(b"\n")

    def write_all(self, server: Server, execution_id: int) -> None:
        """Writes what an execution wrote, piece by piece."""
        for stream in self.streams:
            for piece in pieces(server.client, execution_id, stream):
                self.write(stream, piece)

    def begin(self, what: str) -> None:
        """A line that says whose output follows."""
        print(f"{'' if self._ends_a_line else chr(10)}==> {what} <==", flush=True)
        self._ends_a_line = True


_PIPE = "Ids come first in each line: scitq manage task list -S succeeded -H | cut -d' ' -f1"
VERBS = (
    Verb("task", "list", "the tasks that pass the filters", _list_options, _list, epilog=_PIPE),
    Verb("task", "get", "everything about tasks", _get_options, _get),
    Verb("task", "explain", "why tasks are where they are, and what would move them on", selection.add_filters, _explain),
    Verb("task", "output", "what tasks wrote, byte for byte", _output_options, _output),
    *changes.VERBS,
)
