"""The tables. Times are seconds since the epoch (UTC, the server's clock); lists and mappings are JSON text.

Ids come from `counter`, never from the database's own sequences: an id that was given once is never given again,
and on both databases they are known before the insert.
"""

from __future__ import annotations

from peewee import (
    BigIntegerField, BlobField, BooleanField, CompositeKey, DoubleField, IntegerField, Model, SmallIntegerField, TextField,
)  # fmt: skip

VERSION = 4


class Counter(Model):
    """The next id of each table."""

    name = TextField(primary_key=True)
    next = IntegerField()


class Setting(Model):
    """What this database is: `schema` (version), `server_id`; `providers`: those configured last, name -> a sum, as JSON."""

    name = TextField(primary_key=True)
    value = TextField()


class Batch(Model):
    id = IntegerField(primary_key=True)
    name = TextField(unique=True)
    stopped = BooleanField(default=False)
    created_at = DoubleField()
    budget = DoubleField(null=True)  # money, as the providers count it: with so much spent no machine is deployed for it


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
    unfit = TextField(null=True)  # JSON, when it last said a problem by the id of the batch in which it did
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
    machine_id = IntegerField(null=True)  # of one that was deployed
    upgrade = TextField(null=True)  # sha256 of the one file that it is told to go on as
    upgrade_problem = TextField(null=True)  # why it could not


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
    origin = TextField(null=True)  # the batch file that made it


class Machine(Model):
    """What a provider runs for us; written down before it is asked for, and kept when it is gone."""

    id = IntegerField(primary_key=True)
    name = TextField()  # as the provider knows it, chosen by us
    provider = TextField()
    region = TextField()
    flavor = TextField(null=True)
    wish = TextField(null=True)  # JSON: the provider, region and flavor that were asked for, and the places `tried` in vain
    state = TextField()
    provider_id = TextField(null=True)
    address = TextField(null=True)
    worker_id = IntegerField(null=True)
    price = DoubleField(null=True)  # of an hour
    currency = TextField(null=True)
    message = TextField(null=True)
    asked_by = TextField()
    created_at = DoubleField()
    asked_at = DoubleField(null=True)  # when the provider was asked for it first
    up_at = DoubleField(null=True)  # its worker called
    gone_at = DoubleField(null=True)
    seen_at = DoubleField(null=True)  # when the provider told of it last
    unknown = BooleanField(default=False)  # it carries our tag, and nobody here asked for it


class Stint(Model):
    """The time for which a machine served a batch."""

    id = IntegerField(primary_key=True)
    machine_id = IntegerField()
    batch_id = IntegerField()
    started_at = DoubleField()
    ended_at = DoubleField(null=True)


class Job(Model):
    """What this server does with a provider: deploys a machine, destroys one, asks for flavors."""

    id = IntegerField(primary_key=True)
    kind = TextField()
    state = TextField()
    provider = TextField()
    machine_id = IntegerField(null=True)
    worker_id = IntegerField(null=True)
    attempt = IntegerField()
    retry = IntegerField()
    progress = IntegerField()  # percent
    step = TextField(null=True)  # what it does now
    message = TextField(null=True)  # why it failed, or why it waits for another attempt
    owner = TextField(null=True)  # the server process that runs it
    not_before = DoubleField(null=True)
    canceled_by = TextField(null=True)  # who wants it to end, while it runs
    asked_by = TextField()
    created_at = DoubleField()
    started_at = DoubleField(null=True)
    finished_at = DoubleField(null=True)


class JobLog(Model):
    job_id = IntegerField()
    seq = IntegerField()
    at = DoubleField()
    line = TextField()

    class Meta:
        primary_key = CompositeKey("job_id", "seq")


class Flavor(Model):
    """A size of machine that a provider has in a region, as `cloud.provider.Flavor` says."""

    provider = TextField()
    region = TextField()
    name = TextField()
    cpu = IntegerField(null=True)
    ram = DoubleField(null=True)
    disk = DoubleField(null=True)
    gpus = IntegerField()
    gpu = TextField(null=True)
    gpumem = DoubleField(null=True)
    tags = TextField()
    price = DoubleField(null=True)
    currency = TextField(null=True)
    eviction = DoubleField(null=True)
    available = IntegerField(null=True)
    updated_at = DoubleField()

    class Meta:
        primary_key = CompositeKey("provider", "region", "name")


class Provider(Model):
    """How it stands with a provider."""

    name = TextField(primary_key=True)
    trouble = TextField(null=True)  # why it cannot be used now
    trouble_at = DoubleField(null=True)  # since when
    listed_at = DoubleField(null=True)  # when it told its machines last


class Notifier(Model):
    """Who is told what of a batch."""

    id = IntegerField(primary_key=True)
    batch_id = IntegerField()
    kind = TextField()  # webhook or mail
    target = TextField()  # a URL, whose path is a secret; or an address
    done = BooleanField()  # tells when the batch is done
    failures = IntegerField(null=True)  # tells when more tasks than this failed
    told = IntegerField(null=True)  # the newest execution of the batch when it told last that it is done
    failures_told = BooleanField()
    origin = TextField(null=True)  # the batch file that made it
    created_at = DoubleField()


class Message(Model):
    """What a notifier has to say, until somebody took it; it outlives the batch and stands for itself."""

    id = IntegerField(primary_key=True)
    key = TextField()  # random: sent twice it is the same one
    notifier_id = IntegerField()
    batch = TextField()
    kind = TextField()
    target = TextField()
    event = TextField()
    counts = TextField()  # JSON: the tasks of the batch by state
    failures = IntegerField(null=True)
    created_at = DoubleField()
    attempts = IntegerField()
    next_at = DoubleField()
    sent_at = DoubleField(null=True)
    given_up_at = DoubleField(null=True)
    error = TextField(null=True)  # of the last attempt


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


CLOUD = (Machine, Stint, Job, JobLog, Flavor, Provider)
TABLES = (
    Counter, Setting, Batch, Worker, Recruiter, *CLOUD, Notifier, Message, Task, Requirement, Execution, Output, Token, Event,
    Request,
)  # fmt: skip

CACHE_INDEX = "CREATE INDEX execution_cache ON execution (cache_key) WHERE cache_key IS NOT NULL"
RECRUITER_INDEX = "CREATE UNIQUE INDEX recruiter_rank ON recruiter (batch_id, rank)"
CLOUD_INDEXES = (
    "CREATE UNIQUE INDEX machine_name ON machine (name)",
    "CREATE INDEX machine_state ON machine (state)",
    "CREATE INDEX worker_present ON worker (id) WHERE deleted_at IS NULL",  # where machines come and go most are not
    "CREATE INDEX stint_machine ON stint (machine_id)",
    "CREATE INDEX job_state ON job (state)",
    "CREATE INDEX job_machine ON job (machine_id)",
)
NOTIFIER_INDEXES = (
    "CREATE UNIQUE INDEX notifier_target ON notifier (batch_id, kind, target)",
    "CREATE INDEX message_open ON message (next_at) WHERE sent_at IS NULL AND given_up_at IS NULL",
    "CREATE INDEX message_notifier ON message (notifier_id)",
)
# States in which a worker holds an execution: written so, the index of them serves.
LIVE_SQL = "('assigned', 'accepted', 'running', 'uploading')"
INDEXES = (
    CACHE_INDEX,
    RECRUITER_INDEX,
    *CLOUD_INDEXES,
    *NOTIFIER_INDEXES,
    "CREATE UNIQUE INDEX worker_name ON worker (name) WHERE deleted_at IS NULL",
    "CREATE INDEX task_batch_state ON task (batch_id, state)",
    "CREATE INDEX task_queue ON task (batch_id, priority DESC, id) WHERE state = 'pending'",
    "CREATE INDEX requirement_required ON requirement (required_id)",
    "CREATE INDEX execution_task ON execution (task_id)",
    f"CREATE INDEX execution_live ON execution (worker_id, batch_id, state) WHERE state IN {LIVE_SQL}",
)
