"""The tables. Times are seconds since the epoch (UTC, the server's clock); lists and mappings are JSON text.

Ids come from `counter`, never from the database's own sequences: an id that was given once is never given again,
and on both databases they are known before the insert.
"""

from __future__ import annotations

from peewee import (
    BigIntegerField, BlobField, BooleanField, CompositeKey, DoubleField, IntegerField, Model, SmallIntegerField, TextField,
)  # fmt: skip

VERSION = 3


class Counter(Model):
    """The next id of each table."""

    name = TextField(primary_key=True)
    next = IntegerField()


class Setting(Model):
    """What this database is: `schema` (version), `server_id`."""

    name = TextField(primary_key=True)
    value = TextField()


class Batch(Model):
    id = IntegerField(primary_key=True)
    name = TextField(unique=True)
    stopped = BooleanField(default=False)
    created_at = DoubleField()


class Worker(Model):
    """A deleted worker keeps its row, for its executions; its name is free again."""

    id = IntegerField(primary_key=True)
    name = TextField()
    key = TextField()  # random, made by the worker: tells it from another machine of the same name
    hostname = TextField()
    batch_id = IntegerField()
    concurrency = IntegerField()
    prefetch = IntegerField()
    permanent = BooleanField()
    draining = BooleanField(default=False)
    offline = BooleanField(default=False)
    problem = TextField(null=True)
    incarnation = TextField(null=True)
    version = TextField(null=True)
    cpus = IntegerField(null=True)
    memory_bytes = BigIntegerField(null=True)
    flavor = TextField(null=True)
    provider = TextField(null=True)
    region = TextField(null=True)
    home_batch_id = IntegerField(null=True)  # of a permanent one that a recruiter took: where it goes back to
    home_concurrency = IntegerField(null=True)
    home_prefetch = IntegerField(null=True)
    stats = TextField(null=True)
    created_at = DoubleField()
    contact_at = DoubleField(null=True)
    deleted_at = DoubleField(null=True)


class Recruiter(Model):
    """A rule by which a batch that has tasks to do takes idle workers; of several the lowest rank goes first."""

    id = IntegerField(primary_key=True)
    batch_id = IntegerField()
    rank = IntegerField()
    flavor = TextField(null=True)  # a name, or a protofilter
    provider = TextField(null=True)
    region = TextField(null=True)
    tasks_per_worker = IntegerField()
    minimum_tasks = IntegerField(null=True)
    maximum_workers = IntegerField(null=True)
    concurrency = IntegerField(null=True)  # of workers it takes; null: as they are
    prefetch = IntegerField(null=True)
    created_at = DoubleField()


class Task(Model):
    id = IntegerField(primary_key=True)
    batch_id = IntegerField()
    name = TextField(null=True)
    command = TextField()
    shell = TextField(null=True)
    container = TextField(null=True)
    container_options = TextField(null=True)
    input = TextField(null=True)
    resource = TextField(null=True)
    output = TextField(null=True)
    env = TextField(null=True)
    workdir = TextField(null=True)
    uid = IntegerField(null=True)
    gid = IntegerField(null=True)
    priority = IntegerField()
    retry = IntegerField()
    download_timeout = DoubleField(null=True)
    run_timeout = DoubleField(null=True)
    use_cache = BooleanField()
    state = TextField()
    failures = IntegerField()  # since it was queued by a person
    losses = IntegerField()  # since it was queued by a person
    attempts = IntegerField()  # executions ever made
    execution_id = IntegerField(null=True)  # the latest
    created_at = DoubleField()
    modified_at = DoubleField()  # of what the user gave
    state_at = DoubleField()


class Requirement(Model):
    """`task_id` waits for `required_id`."""

    task_id = IntegerField()
    required_id = IntegerField()

    class Meta:
        primary_key = CompositeKey("task_id", "required_id")


class Execution(Model):
    id = IntegerField(primary_key=True)
    task_id = IntegerField()
    worker_id = IntegerField()
    batch_id = IntegerField()  # the task's, when it was claimed
    attempt = IntegerField()
    state = TextField()
    desired = TextField()
    asked_by = TextField(null=True)  # who wanted it suspended or ended
    suspended = BooleanField()
    spec = TextField()  # the ExecutionSpec that the worker got
    pid = IntegerField(null=True)
    exit_code = IntegerField(null=True)
    signal = IntegerField(null=True)
    reason = TextField(null=True)
    assigned_at = DoubleField()
    accepted_at = DoubleField(null=True)
    started_at = DoubleField(null=True)
    ended_at = DoubleField(null=True)  # of the command
    finished_at = DoubleField(null=True)  # of all
    cpu_seconds = DoubleField(null=True)
    peak_memory_bytes = BigIntegerField(null=True)
    read_bytes = BigIntegerField(null=True)
    written_bytes = BigIntegerField(null=True)
    stdout_size = BigIntegerField()  # bytes up to which the stream is known, those passed over included
    stderr_size = BigIntegerField()
    last_output = TextField(null=True)  # the last lines, for searching and grouping failures
    transfers = TextField(null=True)  # JSON: what was moved for it
    reused_id = IntegerField(null=True)  # the execution whose outputs it took instead of running
    cache_key = TextField(null=True)  # of what it ran on what, if its outputs may be taken by others
    outputs = TextField(null=True)  # JSON: the files that it left at its task's output, [path, size, etag or md5]


class Output(Model):
    """A piece of a stream (0 stdout, 1 stderr); between the kept head and tail there may be a gap."""

    execution_id = IntegerField()
    stream = SmallIntegerField()
    start = BigIntegerField()
    data = BlobField()

    class Meta:
        primary_key = CompositeKey("execution_id", "stream", "start")


class Token(Model):
    id = IntegerField(primary_key=True)
    name = TextField()
    role = TextField()
    hash = TextField(unique=True)
    worker_id = IntegerField(null=True)
    created_at = DoubleField()
    revoked_at = DoubleField(null=True)


class Event(Model):
    """Who changed what, when: append-only."""

    id = IntegerField(primary_key=True)
    at = DoubleField()
    who = TextField()
    action = TextField()  # "task.create", "batch.stop"...
    object = TextField()  # "task", "batch", "worker"...
    ids = TextField()  # JSON: ids or names
    detail = TextField(null=True)  # JSON


class Request(Model):
    """Writes that were answered, by the caller's request id."""

    key = TextField(primary_key=True)
    fingerprint = TextField()
    answer = TextField()
    at = DoubleField()


TABLES = (Counter, Setting, Batch, Worker, Recruiter, Task, Requirement, Execution, Output, Token, Event, Request)

CACHE_INDEX = "CREATE INDEX execution_cache ON execution (cache_key) WHERE cache_key IS NOT NULL"
RECRUITER_INDEX = "CREATE UNIQUE INDEX recruiter_rank ON recruiter (batch_id, rank)"
INDEXES = (
    CACHE_INDEX,
    RECRUITER_INDEX,
    "CREATE UNIQUE INDEX worker_name ON worker (name) WHERE deleted_at IS NULL",
    "CREATE INDEX task_batch_state ON task (batch_id, state)",
    "CREATE INDEX task_queue ON task (batch_id, priority DESC, id) WHERE state = 'pending'",
    "CREATE INDEX requirement_required ON requirement (required_id)",
    "CREATE INDEX execution_task ON execution (task_id)",
    "CREATE INDEX execution_live ON execution (worker_id, batch_id, state) WHERE state IN ('assigned', 'accepted', 'running', 'uploading')",
)
