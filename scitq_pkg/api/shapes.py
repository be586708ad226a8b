"""What answers hold: described for the OpenAPI document. Further fields may come with newer versions."""

from __future__ import annotations

from marshmallow import INCLUDE, fields
from marshmallow import Schema as _Schema

_COUNTS = {"description": "tasks by state"}


class Shape(_Schema):
    """Something that an answer holds."""

    class Meta:
        unknown = INCLUDE


class Moment(fields.DateTime):
    """An ISO 8601 time in UTC, or null if it has not come."""

    def __init__(self):
        super().__init__(allow_none=True)


class ErrorDetail(Shape):
    code = fields.String(required=True)
    message = fields.String(required=True)
    field = fields.String(allow_none=True)


class Error(Shape):
    error = fields.Nested(ErrorDetail, required=True)


class Live(Shape):
    live = fields.Boolean(required=True)


class Ready(Shape):
    ready = fields.Boolean(required=True)
    reasons = fields.List(fields.String(), required=True)


class Ids(Shape):
    ids = fields.List(fields.Integer(), required=True)


class Counts(Shape):
    version = fields.Integer(required=True)
    counts = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)


class Explanation(Shape):
    state = fields.String(required=True)
    sentence = fields.String(required=True)


class Skipped(Shape):
    id = fields.Integer(required=True)
    why = fields.String(required=True)


class Change(Shape):
    id = fields.Integer(required=True)
    before = fields.String(required=True)
    after = fields.String(required=True)


class BulkAnswer(Shape):
    ids = fields.List(fields.Integer(), required=True)
    skipped = fields.List(fields.Nested(Skipped), required=True)
    changes = fields.List(fields.Nested(Change))


class Thing(Shape):
    """A row; further fields may come with newer versions."""

    id = fields.Integer(required=True)


class Task(Thing):
    """Besides every field that a task was given."""

    state = fields.String(required=True)
    command = fields.String(required=True)
    name = fields.String(required=True, allow_none=True)
    batch = fields.String(required=True)
    require = fields.List(fields.Integer(), required=True)
    execution_id = fields.Integer(required=True, allow_none=True, metadata={"description": "the latest"})
    attempts = fields.Integer(required=True)
    worker = fields.String(required=True, allow_none=True)
    suspended = fields.Boolean(required=True)
    exit_code = fields.Integer(required=True, allow_none=True)
    signal = fields.Integer(required=True, allow_none=True)
    reason = fields.String(required=True, allow_none=True)
    created_at = Moment()
    modified_at = Moment()
    state_at = Moment()
    started_at = Moment()
    ended_at = Moment()


class Execution(Thing):
    state = fields.String(required=True)
    task_id = fields.Integer(required=True)
    worker_id = fields.Integer(required=True)
    worker = fields.String(required=True, allow_none=True)
    batch = fields.String(required=True)
    attempt = fields.Integer(required=True)
    exit_code = fields.Integer(required=True, allow_none=True)
    signal = fields.Integer(required=True, allow_none=True)
    reason = fields.String(required=True, allow_none=True)
    stdout_size = fields.Integer(required=True)
    stderr_size = fields.Integer(required=True)
    cpu_seconds = fields.Float(allow_none=True)
    peak_memory_bytes = fields.Integer(allow_none=True)
    transfers = fields.List(fields.Dict(), metadata={"description": "what was moved: what, uri, files, bytes, seconds"})
    reused_id = fields.Integer(
        allow_none=True, metadata={"description": "the execution whose outputs it took instead of running"}
    )  # fmt: skip
    assigned_at = Moment()
    accepted_at = Moment()
    started_at = Moment()
    ended_at = Moment()
    finished_at = Moment()


class Worker(Thing):
    name = fields.String(required=True)
    state = fields.String(required=True)
    batch = fields.String(required=True)
    concurrency = fields.Integer(required=True)
    prefetch = fields.Integer(required=True)
    draining = fields.Boolean(required=True)
    permanent = fields.Boolean(required=True)
    problem = fields.String(allow_none=True)
    flavor = fields.String(allow_none=True)
    provider = fields.String(allow_none=True)
    region = fields.String(allow_none=True)
    home = fields.String(allow_none=True, metadata={"description": "the batch it goes back to, while a recruiter has it"})
    version = fields.String(allow_none=True, metadata={"description": "of scitq, that it runs"})
    outdated = fields.Boolean(required=True, metadata={"description": "whether that is another one than the server's"})
    upgrading = fields.Boolean(required=True, metadata={"description": "whether it is told to run another one"})
    upgrade_problem = fields.String(allow_none=True, metadata={"description": "why it could not"})
    gpus = fields.Integer(allow_none=True, metadata={"description": "how many it has; null: not known yet"})
    gpu = fields.String(allow_none=True, metadata={"description": "the model of the first"})
    held = fields.Integer(required=True, metadata={"description": "executions that it has"})
    running = fields.Integer(required=True, metadata={"description": "executions of which the command runs"})
    machine = fields.Integer(required=True, allow_none=True, metadata={"description": "of one that was deployed"})
    machine_state = fields.String(required=True, allow_none=True)
    job = fields.Integer(required=True, allow_none=True, metadata={"description": "that deploys or destroys it now"})
    price = fields.Float(required=True, allow_none=True, metadata={"description": "of an hour"})
    currency = fields.String(required=True, allow_none=True)
    hours = fields.Float(required=True, allow_none=True)
    cost = fields.Float(required=True, allow_none=True, metadata={"description": "so far"})
    created_at = Moment()
    contact_at = Moment()


class Upgrade(Worker):
    to_version = fields.String(required=True, metadata={"description": "what it is told to run"})
    sha256 = fields.String(required=True)


class RegisteredWorker(Worker):
    token = fields.String(required=True)


class Cached(Shape):
    execution_id = fields.Integer(required=True)
    output = fields.String(required=True)
    outputs = fields.List(fields.Raw(), required=True, metadata={"description": "[path, size, etag or md5] of each file"})


class Batch(Shape):
    name = fields.String(required=True)
    stopped = fields.Boolean(required=True)
    counts = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True, metadata=_COUNTS)
    workers = fields.Integer(required=True)
    cost = fields.Float(required=True, allow_none=True, metadata={"description": "of the machines that served it, so far"})
    currency = fields.String(required=True, allow_none=True)
    hours = fields.Float(required=True, metadata={"description": "in which machines of providers served it"})
    budget = fields.Float(required=True, allow_none=True, metadata={"description": "once it is spent no machine is recruited"})
    created_at = Moment()


class Recruiter(Thing):
    batch = fields.String(required=True)
    rank = fields.Integer(required=True)
    flavor = fields.String(required=True, allow_none=True)
    provider = fields.String(required=True, allow_none=True)
    region = fields.String(required=True, allow_none=True)
    tasks_per_worker = fields.Integer(required=True)
    minimum_tasks = fields.Integer(required=True, allow_none=True)
    maximum_workers = fields.Integer(required=True, allow_none=True)
    concurrency = fields.Integer(required=True, allow_none=True)
    prefetch = fields.Integer(required=True, allow_none=True)
    origin = fields.String(required=True, allow_none=True, metadata={"description": "the batch file that made it"})
    created_at = Moment()


class LastMessage(Shape):
    event = fields.String(required=True, metadata={"description": "done or failures"})
    attempts = fields.Integer(required=True)
    error = fields.String(required=True, allow_none=True, metadata={"description": "why the last attempt failed"})
    created_at = Moment()
    sent_at = Moment()
    given_up_at = Moment()


class Notifier(Thing):
    batch = fields.String(required=True)
    kind = fields.String(required=True, metadata={"description": "webhook or mail"})
    target = fields.String(required=True, metadata={"description": "of a webhook without its path"})
    done = fields.Boolean(required=True)
    failures = fields.Integer(required=True, allow_none=True)
    origin = fields.String(required=True, allow_none=True, metadata={"description": "the batch file that made it"})
    last = fields.Nested(LastMessage, required=True, allow_none=True)
    created_at = Moment()


class MatchingWorker(Thing):
    name = fields.String(required=True)
    batch = fields.String(required=True)
    idle = fields.Boolean(required=True, metadata={"description": "it may work, and holds nothing"})


class Match(Recruiter):
    workers = fields.List(fields.Nested(MatchingWorker), required=True)


class Token(Thing):
    name = fields.String(required=True)
    role = fields.String(required=True)


class MadeToken(Token):
    token = fields.String(required=True, metadata={"description": "shown this once"})


class Event(Thing):
    at = fields.DateTime(required=True)
    who = fields.String(required=True)
    action = fields.String(required=True)
    object = fields.String(required=True)
    ids = fields.List(fields.Raw(), required=True, metadata={"description": "ids, ranges of ids as texts, or names"})
    detail = fields.Raw(allow_none=True)


class Page(Shape):
    next = fields.Raw(required=True, allow_none=True, metadata={"description": "give it as `after`, until it is null"})


class TaskPage(Page):
    items = fields.List(fields.Nested(Task), required=True)


class ExecutionPage(Page):
    items = fields.List(fields.Nested(Execution), required=True)


class WorkerPage(Page):
    items = fields.List(fields.Nested(Worker), required=True)


class RecruiterPage(Page):
    items = fields.List(fields.Nested(Recruiter), required=True)


class NotifierPage(Page):
    items = fields.List(fields.Nested(Notifier), required=True)


class MatchPage(Page):
    items = fields.List(fields.Nested(Match), required=True)


class BatchPage(Page):
    items = fields.List(fields.Nested(Batch), required=True)


class TokenPage(Page):
    items = fields.List(fields.Nested(Token), required=True)


class EventPage(Page):
    items = fields.List(fields.Nested(Event), required=True)


class ServerInfo(Shape):
    version = fields.String(required=True)
    database = fields.String(required=True)
    database_bytes = fields.Integer(metadata={"description": "its size on disk"})
    decides = fields.Boolean(
        required=True, metadata={"description": "of several servers on one database one gives out the tasks"}
    )  # fmt: skip
    id = fields.String(required=True)
    time_at = fields.DateTime(required=True)
    counts = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True, metadata=_COUNTS)
    you = fields.Dict(required=True, metadata={"description": "name and role of the caller"})


class FeedEvent(Shape):
    id = fields.String(required=True)
    event = fields.String(required=True, metadata={"description": "snapshot or changes"})
    data = fields.Dict(
        required=True, metadata={"description": "version, batches, workers, jobs; of changes also batches_gone..."}
    )  # fmt: skip


class Changes(Shape):
    events = fields.List(fields.Nested(FeedEvent), required=True)
    next = fields.String(required=True, allow_none=True, metadata={"description": "give it as `after`; null: nothing came"})


class Backup(Shape):
    path = fields.String(required=True, metadata={"description": "on the machine of the server"})
    size_bytes = fields.Integer(required=True)


class Durations(Shape):
    count = fields.Integer(required=True)
    least = fields.Float(required=True, allow_none=True)
    mean = fields.Float(required=True, allow_none=True)
    most = fields.Float(required=True, allow_none=True)


class Failure(Shape):
    exit_code = fields.Integer(required=True, allow_none=True)
    signal = fields.Integer(required=True, allow_none=True)
    last_line = fields.String(required=True, allow_none=True)
    reason = fields.String(required=True, allow_none=True)
    count = fields.Integer(required=True)
    task_ids = fields.List(fields.Integer(), required=True)
    pattern = fields.String(allow_none=True, metadata={"description": "of lines that differ in numbers, with # for each"})


Bin = Shape.from_dict(  # `from` is a word of Python
    {"from": fields.Float(required=True), "to": fields.Float(required=True), "count": fields.Integer(required=True)}, name="Bin"
)


class Memory(Shape):
    peak_bytes = fields.Integer(required=True, allow_none=True)
    typical_bytes = fields.Integer(required=True, allow_none=True, metadata={"description": "the median"})
    worker_bytes = fields.Integer(required=True, allow_none=True, metadata={"description": "of the worker that has least"})
    concurrency = fields.Integer(required=True, allow_none=True, metadata={"description": "of that worker"})
    concurrency_hint = fields.Integer(required=True, allow_none=True, metadata={"description": "what would fit, if another"})
    sentence = fields.String(required=True)


class Report(Shape):
    batch = fields.String(required=True)
    durations = fields.Nested(Durations, required=True, metadata={"description": "seconds, of what succeeded"})
    histogram = fields.List(fields.Nested(Bin), required=True, metadata={"description": "of these durations"})
    peak_memory_bytes = fields.Integer(required=True, allow_none=True)
    memory = fields.Nested(Memory, required=True)
    failures = fields.List(fields.Nested(Failure), required=True)
    cost = fields.Float(required=True, allow_none=True, metadata={"description": "of the machines that served it, so far"})
    currency = fields.String(required=True, allow_none=True)
    hours = fields.Float(required=True)
    budget = fields.Float(required=True, allow_none=True)


class Ran(Shape):
    """An attempt on the line of its time."""

    execution_id = fields.Integer(required=True)
    task_id = fields.Integer(required=True)
    name = fields.String(required=True, allow_none=True)
    worker = fields.String(required=True, allow_none=True)
    state = fields.String(required=True)
    started_at = Moment()
    ended_at = Moment()


class Timeline(Shape):
    items = fields.List(fields.Nested(Ran), required=True)
    to = fields.DateTime(required=True)


class Step(Shape):
    step = fields.String(required=True, allow_none=True)
    name = fields.String(required=True, allow_none=True, metadata={"description": "the glob that finds its tasks"})
    counts = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True, metadata=_COUNTS)
    needs = fields.List(fields.String(allow_none=True), required=True)


class Steps(Shape):
    items = fields.List(fields.Nested(Step), required=True)


class Measured(Shape):
    at = fields.DateTime(required=True)


class WorkerHistory(Shape):
    items = fields.List(fields.Nested(Measured), required=True)


class ByHand(Shape):
    line = fields.String(required=True)


class TaskOutput(Thing):
    name = fields.String(required=True, allow_none=True)
    state = fields.String(required=True)
    stdout = fields.String(required=True, metadata={"description": "its last 64 KiB"})
    stderr = fields.String(required=True, metadata={"description": "its last 64 KiB"})
    truncated = fields.Boolean(required=True, metadata={"description": "whether there is more of either"})


class TaskOutputPage(Page):
    items = fields.List(fields.Nested(TaskOutput), required=True)


class FailedGroup(Failure):
    batch = fields.String(required=True)
    newest_at = Moment()


class Stuck(Shape):
    name = fields.String(required=True)
    why = fields.String(required=True)


class Silent(Thing):
    name = fields.String(required=True)
    state = fields.String(required=True)
    problem = fields.String(required=True, allow_none=True)
    contact_at = Moment()


class FullDisk(Shape):
    worker = fields.String(required=True)
    mount = fields.String(required=True)
    free_bytes = fields.Integer(required=True)
    total_bytes = fields.Integer(required=True)


class TroubledJob(Thing):
    kind = fields.String(required=True)
    state = fields.String(required=True)
    provider = fields.String(required=True)
    worker = fields.String(required=True, allow_none=True)
    batch = fields.String(required=True, allow_none=True)
    attempt = fields.Integer(required=True)
    message = fields.String(required=True, allow_none=True)
    finished_at = Moment()


class UnknownMachine(Thing):
    name = fields.String(required=True)
    provider = fields.String(required=True)
    region = fields.String(required=True)
    message = fields.String(required=True, allow_none=True)


class Spent(Shape):
    name = fields.String(required=True)
    budget = fields.Float(required=True)
    cost = fields.Float(required=True)
    currency = fields.String(required=True, allow_none=True)


class TroubledProvider(Shape):
    name = fields.String(required=True)
    trouble = fields.String(required=True)
    trouble_at = Moment()


class OtherVersion(Shape):
    version = fields.String(required=True, metadata={"description": "that workers run, and the server does not"})
    workers = fields.Integer(required=True, metadata={"description": "how many"})
    names = fields.List(fields.String(), required=True, metadata={"description": "of the first 20"})


def _several(shape: type[Shape], about: str) -> fields.List:
    return fields.List(fields.Nested(shape), required=True, metadata={"description": about})


class Attention(Shape):
    failures = _several(FailedGroup, "of the newest 2,000")
    batches = _several(Stuck, "whose tasks wait, and nothing will start")
    workers = _several(Silent, "offline, or not able to work")
    disks = _several(FullDisk, "with hardly any room")
    versions = _several(OtherVersion, "of workers, that are not the server's")
    jobs = _several(TroubledJob, "deployments and others that failed, or try again")
    machines = _several(UnknownMachine, "ours by their tag, that nobody asked for")
    budgets = _several(Spent, "of batches, that are spent")
    providers = _several(TroubledProvider, "that cannot be used now")
