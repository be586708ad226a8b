"""Every state and message that server, worker and client share. No logic: read this page first.

A *task* is a command and its policies. An *execution* is one attempt to run it on one worker: its row is the claim
and its id the fencing token. A task's state is that of its latest execution, plus its place in the queue.

    waiting ──► pending ──► assigned ──► accepted ──► running ──► uploading ──► succeeded
                   ▲            │            │            │            │
                   │            └────────────┴────────────┴────────────┴──────► failed     (retries used up)
                   └── retried, or its execution was lost                  └──► canceled   (a user said so)
"""

from __future__ import annotations

from dataclasses import dataclass, field

DEFAULT_BATCH = "Default"
DEFAULT_PORT = 5000
API = "/api/v1"
WORKER_NAME = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"  # it names a directory too

# --- states -----------------------------------------------------------------------------------------------------

WAITING = "waiting"  # a required task has not succeeded
PENDING = "pending"  # ready, no worker chosen
ASSIGNED = "assigned"  # the server chose a worker
ACCEPTED = "accepted"  # the worker has it, and is fetching or waits for a slot
RUNNING = "running"  # the command runs (or is suspended)
UPLOADING = "uploading"  # the command ended, its slot is free, its outputs are on their way
SUCCEEDED = "succeeded"
FAILED = "failed"
CANCELED = "canceled"
LOST = "lost"  # executions only: ended for a reason outside the task

TASK_STATES = (WAITING, PENDING, ASSIGNED, ACCEPTED, RUNNING, UPLOADING, SUCCEEDED, FAILED, CANCELED)
EXECUTION_STATES = (ASSIGNED, ACCEPTED, RUNNING, UPLOADING, SUCCEEDED, FAILED, CANCELED, LOST)
LIVE = (ASSIGNED, ACCEPTED, RUNNING, UPLOADING)  # an execution that some worker holds
FINAL = (SUCCEEDED, FAILED, CANCELED)  # a task that nothing but a person will change
ENDED = (SUCCEEDED, FAILED, CANCELED, LOST)  # an execution that nothing will change

# What the server wants of an execution (`Order.desired`).
RUN = "run"  # run it, or resume it if it is suspended
SUSPEND = "suspend"  # stop its processes (SIGSTOP); the slot stays taken
RETURN = "return"  # give it back, unless its command has started
TERM = "term"  # ask its process tree to end (SIGTERM), then SIGKILL after the grace
KILL = "kill"  # end its process tree now (SIGKILL)
CANCEL = "cancel"  # end it now, and end the task with it
DESIRED = (RUN, SUSPEND, RETURN, TERM, KILL, CANCEL)

WORKER_STATES = ("online", "offline", "draining", "unfit", "deploying", "destroying")

# What a provider runs for us. `evicted`: the provider takes it away, and it is still there.
MACHINE_STATES = ("planned", "creating", "booting", "up", "evicted", "deleting", "gone")
COMING = ("planned", "creating", "booting")  # a machine whose worker has not called yet
JOB_KINDS = ("deploy", "destroy", "flavors")
JOB_STATES = ("pending", "running", "succeeded", "failed", "canceled")

ROLES = ("admin", "user", "worker")

STREAMS = ("stdout", "stderr")

# --- times and sizes that both sides must agree on ----------------------------------------------------------------

OFFLINE_SECONDS = 60.0  # a worker silent for so long is shown offline, what it has not started is given to others
START_LEASE_SECONDS = 40.0  # a worker that heard nothing for so long starts nothing new: less than OFFLINE_SECONDS
POLL_SECONDS = 20.0  # the longest a sync is held open
OUTPUT_CAP_BYTES = 64 * 2**20  # per execution and stream: the first half and the last half are kept
SYNC_OUTPUT_BYTES = 512 * 1024  # output carried by one sync: larger ones are no faster and cost the server several times that
KILL_GRACE_SECONDS = 10.0  # between SIGTERM and SIGKILL
BUILD_DIGITS = 32  # of a sha256 in hex, by which a worker tells what it runs

# --- what a user submits ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class TaskSpec:
    """A command and its policies, as a user submits it. Every field is an option of `launch` and a key of a batch file."""

    command: str  # split as a shell would and run directly, unless `shell` is set
    name: str | None = None  # a label; free, not unique
    batch: str = DEFAULT_BATCH
    shell: str | None = None  # None, or the shell that runs the command with `-c`: "sh" or "bash"
    container: str | None = None  # image
    container_options: str | None = None
    input: list[str] = field(default_factory=list)  # URIs fetched for this task
    resource: list[str] = field(default_factory=list)  # URIs fetched once per worker
    output: str | None = None  # URI of the directory that receives $OUTPUT
    env: dict[str, str] = field(default_factory=dict)
    workdir: str | None = None  # absolute directory on the worker; None: the execution's own
    uid: int | None = None
    gid: int | None = None
    priority: int = 0  # higher first
    retry: int = 0  # failures that are tried again
    download_timeout: float | None = None  # seconds
    run_timeout: float | None = None  # seconds
    use_cache: bool = False
    require: list[int] = field(default_factory=list)  # ids of tasks that must have succeeded


# --- worker and server: POST /api/v1/workers/{id}/sync ------------------------------------------------------------
#
# Both sides state all they have, every time (level-triggered): normal running, restart, partition, a day's outage and
# an upgrade are the same code. The request is a line of JSON followed by the output bytes it announces, in order.


@dataclass(slots=True)
class Report:
    """What a worker says of one execution it holds. Sent until the server acknowledged its end; twice counts once.

    Durations are seconds before the request was sent, by the worker's monotonic clock: clocks of machines differ.
    """

    id: int
    state: str  # one of EXECUTION_STATES; LOST: given back, or its end is not known
    suspended: bool = False
    pid: int | None = None
    exit_code: int | None = None  # None if it was ended by a signal, or never ran
    signal: int | None = None  # the signal that ended it
    reason: str | None = None  # a sentence, when it did not simply exit
    started_ago: float | None = None
    ended_ago: float | None = None  # of the command, not of the upload
    stdout_size: int | None = None  # final sizes in bytes, with an end
    stderr_size: int | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    transfers: list | None = None  # with an end: what was moved, each {what, uri, files, bytes, seconds}
    reused: int | None = None  # the execution whose outputs were taken instead of running the command
    cache: dict | None = None  # with a success: {key, outputs}, by which a later equal task finds its outputs


@dataclass(slots=True)
class Chunk:
    """Output bytes of one execution; they follow the JSON line, in the order of the chunks."""

    id: int
    stream: str  # "stdout" or "stderr"
    offset: int  # of the first byte, in all the stream
    length: int


@dataclass(slots=True)
class SyncRequest:
    """All that a worker has."""

    incarnation: str  # random, new with every worker process: an older process of the same worker is refused
    sequence: int  # grows by one with every request of an incarnation; answers may overtake each other
    version: str  # of scitq
    wait: float = 0.0  # seconds this request may be held open, while the worker's orders are those it has seen
    seen: str | None = None  # the digest of the newest answer it took
    problem: str | None = None  # why it can take no work (disk full...): it gets none
    executions: list[Report] = field(default_factory=list)  # every execution it holds
    output: list[Chunk] = field(default_factory=list)
    stats: dict | None = None  # load, memory, disks, network, gpus
    evicted: str | None = None  # that its provider is about to take its machine away, in a sentence
    build: str | None = None  # sha256 of the one file that it runs, BUILD_DIGITS of it; None: a checkout or an install
    not_upgraded: str | None = None  # `upgrade` of an answer that it could not follow, and
    upgrade_problem: str | None = None  # why not: it goes on as it is


@dataclass(slots=True)
class Order:
    """What the server wants of one execution of this worker."""

    id: int
    desired: str  # one of DESIRED
    spec: dict | None = None  # the ExecutionSpec, when the request did not list this execution


@dataclass(slots=True)
class ExecutionSpec:
    """All that a worker needs to run one attempt: the task as it was when it was claimed."""

    id: int
    task_id: int
    attempt: int
    task: dict  # the TaskSpec without `require`, defaults left out


@dataclass(slots=True)
class SyncAnswer:
    """All that the server wants of a worker."""

    sequence: int  # of the request: an answer older than one already seen is thrown away
    concurrency: int
    prefetch: int
    batch: str
    draining: bool
    digest: str = ""  # of the configuration and the orders: said back as `seen`
    orders: list[Order] = field(default_factory=list)  # every live execution of this worker
    acknowledged: list[int] = field(default_factory=list)  # ends that are recorded for good: forget them
    fenced: list[int] = field(default_factory=list)  # no longer this worker's: kill, and throw the result away
    offsets: dict[str, dict[str, int]] = field(default_factory=dict)  # id -> stream -> send again from this byte
    delay: float = 0.0  # seconds to keep before the next idle request: the server is crowded
    grace: float = KILL_GRACE_SECONDS  # seconds between SIGTERM and SIGKILL
    lease: float = START_LEASE_SECONDS  # start nothing when the last answered request was sent longer ago
    upgrade: str | None = None  # go on as the one file of this sha256, which is at /install/scitq.pyz
