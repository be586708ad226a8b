"""What bodies and queries may hold: one description for the check, its errors that name the field, and the OpenAPI document."""

from __future__ import annotations

from marshmallow import fields, validate

from ..protocol import DEFAULT_BATCH, TASK_STATES, WORKER_STATES
from .inputs import (
    MAX_INT,
    MAX_LINE,
    MAX_WAIT,
    SHELLS,
    Body,
    Command,
    Environment,
    Flag,
    Flavor,
    FlavorName,
    Line,
    Name,
    Number,
    Requirement,
    Seconds,
    Shell,
    Text,
    UriLine,
    Uris,
    Whole,
    Word,
    WorkerName,
    check_absolute,
    check_line,
)  # fmt: skip

MAX_IDS = 1_000_000
MAX_SLOTS = 100_000
MAX_OUTPUT_BYTES = 4 * 2**20  # of a stream in one answer
MAX_PAGE = 5000
MAX_OUTPUTS = 100  # tasks in a page of outputs
MAX_STREAM = 3600.0  # seconds

# --- tasks -------------------------------------------------------------------------------------------------------------


class TaskFields(Body):
    """Everything of a task that a user gives. The names are those of `protocol.TaskSpec`."""

    command = Command()
    name = Name(allow_none=True)
    batch = Name()
    shell = Shell(allow_none=True, metadata={"oneOf": [{"type": "boolean"}, {"type": "string", "enum": list(SHELLS)}]})
    container = Line(allow_none=True)
    container_options = Line(allow_none=True)
    input = Uris(metadata={"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
    resource = Uris(metadata={"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
    output = UriLine(allow_none=True)
    env = Environment()
    workdir = fields.String(allow_none=True, validate=[validate.Length(min=1, max=MAX_LINE), check_line, check_absolute])
    uid = Whole(allow_none=True)
    gid = Whole(allow_none=True)
    priority = Whole(least=-MAX_INT)
    retry = Whole()
    download_timeout = Seconds(allow_none=True)
    run_timeout = Seconds(allow_none=True)
    use_cache = Flag()
    require = fields.List(Requirement(metadata={"oneOf": [{"type": "integer"}, {"type": "string", "pattern": r"^#\d+$"}]}))


class NewTask(TaskFields):
    """A command and its policies."""

    command = Command(required=True)


class TaskChange(TaskFields):
    """Any field of a task that is not running; `relaunch` queues it again."""

    relaunch = Flag()


_TEXT_OR_NUMBER = {"oneOf": [{"type": "string"}, {"type": "integer"}]}


class FilterFields(Body):
    """Which ones: all that are given must hold."""

    batch = Name()
    state = fields.String(metadata={"description": "one or several of " + ", ".join(TASK_STATES) + ", commas between"})
    name = Name(metadata={"description": "a glob"})
    ids = Word(metadata={"description": "`3,5-9`", **_TEXT_OR_NUMBER})
    worker = Word(metadata={"description": "name or id", **_TEXT_OR_NUMBER})
    exit_code = Word(metadata={"description": "one or several, commas between", **_TEXT_OR_NUMBER})
    grep = Line(metadata={"description": "text in the last output lines"})
    since = Name(metadata={"description": "`2h`, `3d` or an ISO time"})


class PageQuery(Body):
    limit = Number(least=1, most=MAX_PAGE, load_default=100)
    after = Number(load_default=None, metadata={"description": "the cursor that the page before gave as `next`"})
    order = fields.String(validate=validate.OneOf(["id", "-id"]), load_default="id")


class BatchesQuery(PageQuery):
    name = Name(load_default="*", metadata={"description": "a glob"})


class LoginQuery(Body):
    token = fields.String(validate=[validate.Length(min=1, max=200), check_line])


class LoginBody(Body):
    token = fields.String(required=True, validate=[validate.Length(min=1, max=200), check_line])


class TasksQuery(FilterFields, PageQuery):
    requires = Number(least=1, metadata={"description": "id of a task that they need"})


class OutputsQuery(FilterFields):
    limit = Number(least=1, most=MAX_OUTPUTS, load_default=MAX_OUTPUTS)
    after = Number(load_default=None, metadata={"description": "the cursor that the page before gave as `next`"})


class TimelineQuery(Body):
    since = Name(load_default="1d", metadata={"description": "`2h`, `3d` or an ISO time"})


class ReportQuery(Body):
    alike = fields.Boolean(load_default=False, metadata={"description": "last lines that differ in numbers alone are the same"})


class CountsQuery(FilterFields):
    version = Number(most=2**62, load_default=None, metadata={"description": "the `version` of an answer before"})
    wait = Seconds(most=MAX_WAIT, load_default=0.0, metadata={"description": "seconds to wait for another version"})


class ExecutionsQuery(FilterFields, PageQuery):
    task = Number(least=1, metadata={"description": "id of a task"})


class OutputQuery(Body):
    offset = Number(most=2**62, load_default=0, metadata={"description": "of the first byte"})
    limit = Number(least=1, most=MAX_OUTPUT_BYTES, load_default=MAX_OUTPUT_BYTES, metadata={"description": "bytes at most"})
    wait = Seconds(most=MAX_WAIT, load_default=0.0, metadata={"description": "seconds to wait for more"})


_AFTER = {"description": "the id of the last event that is known; one that is not remembered means a snapshot"}


class StreamQuery(Body):
    after = Name(load_default=None, metadata={"description": "as the header Last-Event-ID"})
    wait = Seconds(most=MAX_STREAM, load_default=MAX_STREAM, metadata={"description": "seconds after which the stream ends"})


class ChangesQuery(Body):
    after = Name(load_default=None, metadata=_AFTER)
    wait = Seconds(most=MAX_WAIT, load_default=0.0, metadata={"description": "seconds to wait for news"})


class WorkersQuery(PageQuery):
    batch = Name()
    state = fields.String(metadata={"description": "one or several of " + ", ".join(WORKER_STATES) + ", commas between"})
    name = Name(metadata={"description": "a glob"})


class RecruitersQuery(PageQuery):
    batch = Name()
    rank = Number()


class NotifiersQuery(PageQuery):
    batch = Name(load_default=None)


class EventsQuery(PageQuery):
    object = Name(metadata={"description": "task, batch, worker, token..."})
    who = Name()
    since = Name(metadata={"description": "`2h`, `3d` or an ISO time"})


# --- bodies --------------------------------------------------------------------------------------------------------------


class NewTasks(NewTask):
    """A task, or `tasks`."""

    tasks = fields.List(fields.Nested(NewTask))
    newest_known = Whole(metadata={"description": "beside `tasks`: 409 if a task with a higher id has the batch and name of one"})


class FilterBody(FilterFields):
    """Which ones: all that are given must hold."""


class BulkBody(Body):
    """Either a filter or ids."""

    filter = fields.Nested(FilterBody)
    ids = fields.List(Whole(least=1), validate=validate.Length(max=MAX_IDS))
    dry_run = Flag(load_default=False)


class Substitution(Body):
    pattern = Text(required=True, metadata={"description": "a Python regular expression"})
    replacement = Text(required=True)
    count = Whole(load_default=0, metadata={"description": "how many places in each command; 0: all"})


class EditBody(BulkBody):
    set = fields.Nested(TaskFields)
    sub = fields.Nested(Substitution)
    relaunch = Flag(load_default=False)


class SignalBody(BulkBody):
    action = fields.String(required=True, validate=validate.OneOf(["suspend", "resume", "term", "kill"]))


class StopBody(Body):
    running = fields.String(allow_none=True, load_default=None, validate=validate.OneOf(["suspend", "term", "kill"]))


class Nothing(Body):
    """An empty object, or no body."""


class NewWorker(Body):
    name = WorkerName(required=True)
    key = fields.String(required=True, validate=[validate.Length(min=16, max=200), check_line])
    hostname = Name(load_default="")
    concurrency = Whole(required=True, most=MAX_SLOTS)
    prefetch = Whole(most=MAX_SLOTS, load_default=0)
    batch = Name(load_default=DEFAULT_BATCH)
    permanent = Flag(load_default=True)
    cpus = Whole(allow_none=True, load_default=None)
    memory_bytes = Whole(most=2**62, allow_none=True, load_default=None)
    flavor = FlavorName(allow_none=True, load_default=None)
    provider = Name(allow_none=True, load_default=None)
    region = Name(allow_none=True, load_default=None)


class WorkerChange(Body):
    name = WorkerName()
    batch = Name()
    concurrency = Whole(most=MAX_SLOTS)
    prefetch = Whole(most=MAX_SLOTS)
    draining = Flag()
    permanent = Flag()
    flavor = FlavorName(allow_none=True)
    provider = Name(allow_none=True)
    region = Name(allow_none=True)


_ORIGIN = {"description": "the batch file that makes it, and removes it when it no longer names it"}
_SLOTS_TAKEN = {"description": "of a worker that it takes; null: as it is"}


class RecruiterChange(Body):
    """What a recruiter looks for, when, and what it makes of it."""

    rank = Whole(metadata={"description": "of several of a batch the lowest goes first"})
    flavor = Flavor(allow_none=True, metadata={"description": "a name, or a protofilter: `auto:cpu>=8:ram>=30`"})
    provider = Name(allow_none=True)
    region = Name(allow_none=True)
    tasks_per_worker = Whole(least=1, metadata={"description": "pending tasks for which it wants a worker"})
    minimum_tasks = Whole(allow_none=True, metadata={"description": "with fewer pending it takes none"})
    maximum_workers = Whole(allow_none=True, metadata={"description": "with as many in the batch it takes none"})
    concurrency = Whole(least=1, most=MAX_SLOTS, allow_none=True, metadata=_SLOTS_TAKEN)
    prefetch = Whole(most=MAX_SLOTS, allow_none=True, metadata=_SLOTS_TAKEN)


class NewRecruiter(RecruiterChange):
    batch = Name(load_default=DEFAULT_BATCH)
    rank = Whole(load_default=1)
    flavor = Flavor(allow_none=True, load_default=None)
    provider = Name(allow_none=True, load_default=None)
    region = Name(allow_none=True, load_default=None)
    tasks_per_worker = Whole(
        least=1, allow_none=True, load_default=None, metadata={"description": "default: its concurrency, or 1"}
    )  # fmt: skip
    minimum_tasks = Whole(allow_none=True, load_default=None)
    maximum_workers = Whole(allow_none=True, load_default=None)
    concurrency = Whole(least=1, most=MAX_SLOTS, allow_none=True, load_default=None, metadata=_SLOTS_TAKEN)
    prefetch = Whole(most=MAX_SLOTS, allow_none=True, load_default=0, metadata=_SLOTS_TAKEN)
    origin = Name(allow_none=True, load_default=None, metadata=_ORIGIN)


class NewNotifier(Body):
    """Who is told what of a batch: either a webhook or a mail address."""

    batch = Name(load_default=DEFAULT_BATCH)
    webhook = Line(allow_none=True, load_default=None, metadata={"description": "a URL that gets JSON; shown without its path"})
    mail = Line(allow_none=True, load_default=None, metadata={"description": "an address"})
    done = Flag(load_default=True, metadata={"description": "tell when the batch is done"})
    failures = Whole(allow_none=True, load_default=None, metadata={"description": "tell when more tasks than this failed"})
    origin = Name(allow_none=True, load_default=None, metadata=_ORIGIN)


class NewToken(Body):
    name = Name(required=True)
    role = fields.String(load_default="user", validate=validate.OneOf(["admin", "user"]))
