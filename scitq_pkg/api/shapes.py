"""What answers hold: described for the OpenAPI document. Further fields may come with newer versions."""

from __future__ import annotations

from marshmallow import Schema, fields



class ErrorDetail(Schema):
    code = fields.String(required=True)
    message = fields.String(required=True)
    field = fields.String(allow_none=True)


class Error(Schema):
    error = fields.Nested(ErrorDetail, required=True)


class Live(Schema):
    live = fields.Boolean(required=True)


class Ready(Schema):
    ready = fields.Boolean(required=True)
    reasons = fields.List(fields.String(), required=True)


class Ids(Schema):
    ids = fields.List(fields.Integer(), required=True)


class Counts(Schema):
    version = fields.Integer(required=True)
    counts = fields.Dict(keys=fields.String(), values=fields.Integer(), required=True)


class Explanation(Schema):
    state = fields.String(required=True)
    sentence = fields.String(required=True)


class Skipped(Schema):
    id = fields.Integer(required=True)
    why = fields.String(required=True)


class Change(Schema):
    id = fields.Integer(required=True)
    before = fields.String(required=True)
    after = fields.String(required=True)


class BulkAnswer(Schema):
    ids = fields.List(fields.Integer(), required=True)
    skipped = fields.List(fields.Nested(Skipped), required=True)
    changes = fields.List(fields.Nested(Change))


class Thing(Schema):
    """A row; further fields may come with newer versions."""

    id = fields.Integer(required=True)


class Task(Thing):
    state = fields.String(required=True)
    command = fields.String(required=True)
    batch = fields.String(required=True)
    created_at = fields.DateTime(required=True)


class Execution(Thing):
    state = fields.String(required=True)
    task_id = fields.Integer(required=True)
    worker_id = fields.Integer(required=True)


class Worker(Thing):
    name = fields.String(required=True)
    state = fields.String(required=True)
    batch = fields.String(required=True)
    concurrency = fields.Integer(required=True)
    prefetch = fields.Integer(required=True)


class RegisteredWorker(Worker):
    token = fields.String(required=True)


class Batch(Schema):
    name = fields.String(required=True)
    stopped = fields.Boolean(required=True)


class Token(Thing):
    name = fields.String(required=True)
    role = fields.String(required=True)


class MadeToken(Token):
    token = fields.String(required=True, metadata={"description": "shown this once"})


class Event(Thing):
    at = fields.DateTime(required=True)
    who = fields.String(required=True)
    action = fields.String(required=True)


class Page(Schema):
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


class ServerInfo(Schema):
    version = fields.String(required=True)
    database = fields.String(required=True)
    time_at = fields.DateTime(required=True)


class Backup(Schema):
    path = fields.String(required=True)


class Report(Schema):
    durations = fields.Dict()
