"""One command: started once, signaled with all its tree, and its end written down."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import subprocess
import time

from . import processes, records

MARK = "SCITQ_EXECUTION_DIR"  # the variable by which a command's descendants are known again, wherever they went

# How a command ended: the `kind` of its end.
EXITED = "exited"
SIGNALED = "signaled"  # by a signal that nobody asked us to send
TIMEOUT = "timeout"
STOPPED = "stopped"  # on request; `asked` says by which order
UNSTARTABLE = "unstartable"  # it never ran; `message` says why
INTERRUPTED = "interrupted"  # together with the keeper, because the machine or its service stops

HELP_AGAIN_SECONDS = 0.2  # after a verb failed: the container is not there yet, or the engine is away
HELP_AT_MOST_SECONDS = 5.0  # the longest pause
_VERB_OF = {signal.SIGSTOP: "suspend", signal.SIGCONT: "resume", signal.SIGTERM: "term", signal.SIGKILL: "kill"}
_NOT_NOW = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOBUFS}


class CannotStartNow(Exception):
    """The machine has no room for one more process or file now; the command may be tried again."""


class StartedBefore(Exception):
    """The directory tells that this execution was started once: it never is a second time."""


class Command:
    """A command from its start to its end. All times are of the monotonic clock unless named otherwise."""

    __slots__ = (
        "id", "directory", "order", "pid", "start", "started", "suspended", "asked", "due",
        "helper", "helping", "wanted", "help_at", "_help_pause", "_grace", "_left", "end", "reaped", "settle_until",
        "grace_until", "give_up_at", "cpu_seconds", "peak", "moved", "status", "ended",
    )  # fmt: skip

    def __init__(self, order: dict):
        self.id: int = order["id"]
        self.directory: str = order["dir"]
        self.order = order
        self.pid = self.start = 0
        self.started = processes.boot_seconds()
        self.suspended = self.reaped = False
        self.asked: str | None = None  # why we end it: "timeout", or the order of the worker
        self.due: float | None = None  # when its time is up, or when SIGKILL follows
        self.helper = 0  # pid of the process that carries out a verb
        self.helping = ""  # that verb
        self.wanted: str | None = None  # the verb to carry out next
        self.help_at: float | None = None  # when a verb that failed is tried again
        self._help_pause = HELP_AGAIN_SECONDS
        self._grace = 0.0
        self._left: float | None = None  # seconds of running left while it is suspended
        self.end: dict | None = None
        self.settle_until = self.give_up_at = 0.0
        self.grace_until = 0.0  # what is left of its tree, after its main process heard SIGTERM and ended, has until then
        self.cpu_seconds = 0.0
        self.peak = 0
        self.moved: tuple[int, int] | None = None
        self.status = 0
        self.ended = 0.0

    # --- start ----------------------------------------------------------------------------------------------------

    def spawn(self, environment: dict[str, str], null: int) -> None:
        """Starts the command, or sets its `end` if it can never start. Raises CannotStartNow, StartedBefore."""
        self._claim()
        try:
            self._spawn({**environment, **self.order.get("env", {}), MARK: self.directory}, null)
            if self.pid:
                self.start = getattr(processes.process(self.pid), "start", 0)
                with contextlib.suppress(OSError):  # a full disk: the mark finds its processes too
                    records.write(self.directory, records.STARTED_FILE, self.identity())
        except CannotStartNow:
            self._unclaim()
            raise
        if self.pid and (limit := self.order.get("timeout")):
            self.due = time.monotonic() + limit

    def identity(self) -> dict:
        """Who its main process is: a pid alone would be mistaken for another process after a while."""
        return {"id": self.id, "pid": self.pid, "start": self.start, "boot": processes.boot_id(), "started": self.started}

    def _claim(self) -> None:
        """Writes down that it starts before it does, so that no crash in between permits a second start."""
        if records.was_started(self.directory, self.id):
            raise StartedBefore(f"{self.directory} holds an execution that was started before")
        try:
            records.write(self.directory, records.STARTED_FILE, {"id": self.id})
        except OSError as error:
            self._unclaim()
            raise CannotStartNow(f"{self.directory} cannot be written: {error.strerror}") from None

    def _unclaim(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # it could not even be made
            os.unlink(os.path.join(self.directory, records.STARTED_FILE))

    def _spawn(self, environment: dict[str, str], null: int) -> None:
        argv, cwd = self.order["argv"], self.order["cwd"]
        streams: list[int] = []
        try:
            for name in ("stdout", "stderr"):
                streams.append(self._open(name))
            identity = _identity(self.order.get("uid"), self.order.get("gid"))
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env=environment,
                stdin=null,
                stdout=streams[0],
                stderr=streams[1],
                start_new_session=True,
                **identity,
            )
            process.returncode = 0  # this process waits for its children itself
            self.pid = process.pid
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            if getattr(error, "errno", None) in _NOT_NOW:
                raise CannotStartNow(f"no process can be started: {error.strerror}") from None
            self._never(_why_not(error, argv, cwd))
        finally:
            for fd in streams:
                os.close(fd)

    def _open(self, name: str) -> int:
        fd = os.open(os.path.join(self.directory, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if self.order.get("uid") is not None and os.geteuid() == 0:
            os.fchown(fd, self.order["uid"], -1)  # a command that opens /dev/stderr again needs the right to
        return fd

    def _never(self, message: str) -> None:
        self.ended = self.started
        self.end = self._record(UNSTARTABLE, message=message)

    # --- verbs ----------------------------------------------------------------------------------------------------

    @property
    def verbs(self) -> dict[str, list[str]] | None:
        """What to run in place of a signal: for a command whose real processes are another one's (a container engine's)."""
        return self.order.get("verbs")

    def help(self, environment: dict[str, str], null: int) -> None:
        """Starts what carries out the wanted verb, when nothing does; a kill waits for nothing."""
        if self.wanted is None or self.verbs is None or self.reaped:
            return
        if self.helper:
            if self.wanted == "kill":
                self._end_helper()
            return
        self.help_at, argv, grace = None, self.verbs[self.wanted], str(math.ceil(self._grace))
        try:
            process = subprocess.Popen(
                argv, cwd="/", env={**environment, "GRACE": grace}, stdin=null, stdout=null, stderr=null, start_new_session=True
            )
        except OSError:  # no room for a process now, or the engine's program was removed
            self._help_later()
            return
        process.returncode = 0  # this process waits for its children itself
        self.helper, self.helping, self.wanted = process.pid, self.wanted, None

    def helped(self, status: int) -> None:
        """The process of a verb has ended. What failed is done again, unless another one is wanted by now."""
        self.helper, failed = 0, status != 0
        if failed and not self.reaped and self.wanted is None:
            self.wanted = self.helping
            self._help_later()

    def _help_later(self) -> None:
        self.help_at = time.monotonic() + self._help_pause
        self._help_pause = min(2 * self._help_pause, HELP_AT_MOST_SECONDS)

    def _end_helper(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.killpg(self.helper, signal.SIGKILL)

    # --- signals --------------------------------------------------------------------------------------------------

    def tree(self, strays: set[int], table: dict[int, processes.Process] | None = None) -> set[int]:
        """Its living processes: its session, `strays` that are known to be its own, and all below them."""
        table = processes.processes() if table is None else table
        leader = table.get(self.pid)
        ours = leader is None or leader.start == self.start or not self.start
        session = {one.pid for one in table.values() if one.session == self.pid} if ours else set()
        return processes.descendants(table, session | strays)

    def send(self, number: int, strays: set[int]) -> None:
        """Signals the whole tree, again as long as it grows meanwhile; or has the verb carried out that stands for the signal."""
        if self.verbs and not self.reaped:
            self.wanted, self.help_at, self._help_pause = _VERB_OF[number], None, HELP_AGAIN_SECONDS
            return
        seen: set[int] = set()
        for _ in range(5):
            new = self.tree(strays) - seen
            if not new:
                return
            processes.signal_processes(new, number)
            seen |= new

    def suspend(self, strays: set[int]) -> None:
        """Stops the tree; its time limit waits too."""
        if self.asked or self.suspended:
            return
        self.suspended = True
        if self.due is not None:
            self._left, self.due = self.due - time.monotonic(), None
        self.send(signal.SIGSTOP, strays)

    def resume(self, strays: set[int]) -> None:
        """Lets a suspended tree go on."""
        if not self.suspended:
            return
        self.suspended = False
        if self._left is not None and not self.asked:
            self.due = time.monotonic() + self._left
        self.send(signal.SIGCONT, strays)

    def stop(self, asked: str, grace: float, strays: set[int]) -> None:
        """Asks the tree to end; SIGKILL follows after `grace` seconds, at once if that is 0. The last one who asks is named."""
        due = time.monotonic() + grace
        if self.asked and self.due is not None:
            due = min(due, self.due)
        self.asked, self.suspended, self._grace = asked, False, grace
        if grace <= 0:
            self.due = None
            self.send(signal.SIGKILL, strays)
            return
        self.due = due
        self.send(signal.SIGTERM, strays)
        if not self.verbs:
            self.send(signal.SIGCONT, strays)  # a stopped process does not see SIGTERM

    # --- end ------------------------------------------------------------------------------------------------------

    @property
    def in_grace(self) -> bool:
        """Whether it was asked to end, and SIGKILL is yet to follow."""
        return self.asked is not None and self.due is not None

    def reap(self, status: int, usage, moved: tuple[int, int] | None) -> None:
        """Its main process has ended."""
        self.reaped, self.status, self.moved = True, status, moved
        self.ended = processes.boot_seconds()
        if self.in_grace:
            self.grace_until = self.due
        self.due = None
        self.add_usage(usage)

    def add_usage(self, usage) -> None:
        """Adds what a process of its tree used (a `struct rusage`)."""
        self.cpu_seconds += usage.ru_utime + usage.ru_stime
        self.peak = max(self.peak, usage.ru_maxrss * 1024)

    @property
    def exit(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        return os.waitstatus_to_exitcode(self.status)

    def conclude(self, interrupted: bool, short_of_memory: bool, untidy: bool) -> None:
        """Makes the record of its end; `untidy`: something of its tree could not be ended."""
        if interrupted and self.asked in (None, INTERRUPTED):
            kind = INTERRUPTED
        elif self.asked:
            kind = TIMEOUT if self.asked == "timeout" else STOPPED
        else:
            kind = SIGNALED if self.exit < 0 else EXITED
        self.end = self._record(kind, short_of_memory=short_of_memory or None, untidy=untidy or None)

    def _record(self, kind: str, **more) -> dict:
        ran = kind != UNSTARTABLE
        sizes = {f"{name}_size": _size(os.path.join(self.directory, name)) for name in ("stdout", "stderr")}
        ran_here = ran and not self.verbs  # else what was measured is the engine's client
        read, written = self.moved if self.moved and ran_here else (None, None)
        record = {
            "id": self.id, "kind": kind, "asked": self.asked, "boot": processes.boot_id(),
            "exit_code": self.exit if ran and self.exit >= 0 else None, "signal": -self.exit if ran and self.exit < 0 else None,
            "started": self.started, "ended": self.ended, "ended_at": time.time(), **sizes,
            "cpu_seconds": round(self.cpu_seconds, 6) if ran_here else None,
            "peak_memory_bytes": self.peak or None if ran_here else None,
            "read_bytes": read, "written_bytes": written, "timeout": self.order.get("timeout"), **more,
        }  # fmt: skip
        return {name: value for name, value in record.items() if value is not None}

    def write_end(self) -> bool:
        """Writes the record; False if the disk does not take it now."""
        try:
            records.write(self.directory, records.END_FILE, self.end)
        except FileNotFoundError:
            return True  # the directory was removed: nobody wants to know
        except OSError:
            return False
        return True


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # never made, or removed by the command itself
        return 0


def _identity(uid: int | None, gid: int | None) -> dict:
    """The arguments of Popen that make a process another user's, its groups included. Raises PermissionError in a sentence."""
    if uid is None and gid is None:
        return {}
    me = os.geteuid()
    if me != 0:
        if uid in (None, me) and gid in (None, os.getegid()):
            return {}
        wanted = " and ".join(f"{name} {value}" for name, value in (("uid", uid), ("gid", gid)) if value is not None)
        raise PermissionError(f"this worker runs as uid {me} and cannot run a command as {wanted}: start the worker as root")
    if gid is None:
        gid = primary_group(uid)
    return {"user": uid, "group": gid, "extra_groups": []}


def primary_group(uid: int) -> int:
    """The group of a user in the machine's user database; the number of the user if it is not there."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


def _why_not(error: Exception, argv: list[str], cwd: str) -> str:
    """Why a command never started, in a sentence."""
    number, name = getattr(error, "errno", None), argv[0] if argv else ""
    if number is None:
        return str(error) if isinstance(error, PermissionError) else f"the command cannot be started: {error}"
    if error.filename == cwd and not (os.path.isdir(cwd) and os.access(cwd, os.X_OK)):
        return f"the working directory {cwd} cannot be used: {error.strerror}"
    if number == errno.ENOENT and "/" not in name:
        return f"the command {name!r} was not found in PATH"
    if number == errno.ENOENT and os.path.lexists(os.path.join(cwd, name)):
        return f"the command {name!r} cannot run: the interpreter that its first line names does not exist"
    if number == errno.ENOEXEC:
        return f"the command {name!r} is neither a program of this machine nor a script with a #! line"
    if number == errno.E2BIG:
        return f"the command and its environment are longer than this machine takes: {error.strerror}"
    return f"the command {name!r} cannot be started: {error.strerror}"
