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
    reused_id = fields.Integer(allow_none=True, metadata={"description": "the execution whose outputs it took instead of running"})
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
    held = fields.Integer(required=True, metadata={"description": "executions that it has"})
    running = fields.Integer(required=True, metadata={"description": "executions of which the command runs"})
    created_at = Moment()
    contact_at = Moment()


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
    created_at = Moment()


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
    decides = fields.Boolean(required=True, metadata={"description": "of several servers on one database one gives out the tasks"})
    id = fields.String(required=True)
    time_at = fields.DateTime(required=True)
    counts = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True, metadata=_COUNTS)
    you = fields.Dict(required=True, metadata={"description": "name and role of the caller"})


class FeedEvent(Shape):
    id = fields.String(required=True)
    event = fields.String(required=True, metadata={"description": "snapshot or changes"})
    data = fields.Dict(required=True, metadata={"description": "version, batches, workers; of changes also batches_gone, workers_gone"})


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


class Report(Shape):
    batch = fields.String(required=True)
    durations = fields.Nested(Durations, required=True, metadata={"description": "seconds, of what succeeded"})
    peak_memory_bytes = fields.Integer(required=True, allow_none=True)
    failures = fields.List(fields.Nested(Failure), required=True)
