"""One execution's life on the worker: its directory, its command line and environment, its output, its end.

executions/<id>/  spec.json   what to run; `kept.json` once a failed one is told and only its files remain
                  started.json, end.json, stdout, stderr   written by the keeper
                  input/ output/ resource/ temp/           what the command sees
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import signal
import stat
import time

from . import container
from .container import Engine
from .keeper import command as ends
from .keeper import records
from .keeper.processes import boot_id, boot_seconds, descendants, environment_value, links, processes, signal_exactly
from .output import Output
from .protocol import (
    ACCEPTED, CANCEL, CANCELED, ENDED, FAILED, LOST, RUN, RUNNING, STREAMS, SUCCEEDED, UPLOADING, Report,
)  # fmt: skip

KEPT_FILE = "kept.json"
FOLDERS = ("input", "output", "resource", "temp")
WORKER_STOPS = "worker"  # `asked` of a command that is ended because its worker is
_NAMES = {*records.RECORDS, *STREAMS, *FOLDERS}  # all that is in the directory of an execution that has ended
_LEAVES_OUTPUT = (ends.EXITED, ends.SIGNALED, ends.TIMEOUT, ends.STOPPED)
_USAGE = ("cpu_seconds", "peak_memory_bytes", "read_bytes", "written_bytes")


class Execution:
    """An execution that this worker holds, until the server has acknowledged its end."""

    def __init__(self, spec: dict, directory: str):
        self.id: int = spec["id"]
        self.spec, self.task = spec, spec["task"]
        self.directory = directory
        self.state = ACCEPTED
        self.desired = RUN
        needs = any(self.task.get(name) for name in ("input", "resource", "container"))
        self.fetched = not (needs or self.may_reuse)  # what it needs is there
        self.transfers: list[dict] = []
        self.cache_key: str | None = None
        self.outputs: list | None = None  # the files at its output, if others may take them
        self.reused: int | None = None
        self.starting = False  # the keeper was told to run it
        self.suspended = False
        self.obeyed: str | None = None  # the newest order that the keeper was told
        self.slot: int | None = None
        self.pid: int | None = None
        self.started: float | None = None  # all times of boot_seconds()
        self.ended: float | None = None
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.reason: str | None = None
        self.verdict: tuple[str, str | None] | None = None  # state and reason it will end with when its outputs were sent
        self.container_pid: int | None = None  # of its container's main process, on this machine
        self.untidy = False  # something of its tree may still run
        self.usage: dict[str, float] = {}
        self.output = {name: Output(os.path.join(directory, name)) for name in STREAMS}

    # --- its directory --------------------------------------------------------------------------------------------

    @classmethod
    def accept(cls, spec: dict, base: str, spares: Spares | None = None) -> Execution:
        """A new execution with its directory in `base`. Raises OSError; then nothing of it remains."""
        one = cls(spec, os.path.join(base, str(int(spec["id"]))))
        reused = one.is_ordinary and spares is not None and spares.give(one.directory)
        if not reused:
            os.mkdir(one.directory, 0o700 if one.in_container else 0o711)
        try:
            if not reused:
                for name in FOLDERS:
                    one._make_folder(name)
            records.write(one.directory, records.SPEC_FILE, spec)  # the last: what has it is whole
        except OSError:
            shutil.rmtree(one.directory, ignore_errors=True)
            raise
        return one

    @classmethod
    def load(cls, directory: str) -> Execution:
        """The execution that a directory holds. Raises OSError or ValueError if it holds none."""
        spec = records.read(directory, records.SPEC_FILE, int(os.path.basename(directory)))
        if spec is None:
            raise ValueError(f"{directory} holds no execution")
        return cls(spec, directory)

    @property
    def may_reuse(self) -> bool:
        """Whether the outputs of an equal task will do."""
        return bool(self.task.get("use_cache") and self.task.get("output"))

    @property
    def is_ordinary(self) -> bool:
        """Whether its directories are the worker's own user's, and only that user's."""
        return self.task.get("uid") is None and self.task.get("gid") is None and not self.in_container

    @property
    def in_container(self) -> bool:
        """Whether its command runs in a container."""
        return bool(self.task.get("container"))

    @property
    def engine(self) -> Engine | None:
        """The container engine that it was started with."""
        return Engine(**self.spec["engine"]) if "engine" in self.spec else None

    def _make_folder(self, name: str) -> None:
        path = os.path.join(self.directory, name)
        os.mkdir(path, 0o700)
        if self.in_container:  # whose users are others than the machine's; these cannot come near, through the directory above
            os.chmod(path, 0o1777)
            return
        uid, gid = self.task.get("uid"), self.task.get("gid")
        if not self.is_ordinary and os.geteuid() == 0:
            group = gid if gid is not None else ends.primary_group(uid)
            os.chown(path, -1 if uid is None else uid, group)
            if uid is None:
                os.chmod(path, 0o770)  # the group is the one that was asked for

    def remove(self, spares: Spares | None = None) -> bool:
        """Removes its directory if the command left nothing in it; False if that needs the long way (`shutil.rmtree`)."""
        try:
            if (
                spares is not None
                and self.state == SUCCEEDED
                and self.is_ordinary
                and not self.untidy
                and spares.take(self.directory)
            ):
                return True
            for name in (*records.RECORDS, *STREAMS, container.ENV_FILE):  # the spec first: without it the rest is rubbish
                with contextlib.suppress(FileNotFoundError):  # a stage it never reached
                    os.unlink(os.path.join(self.directory, name))
            for name in FOLDERS:
                os.rmdir(os.path.join(self.directory, name))
            os.rmdir(self.directory)
        except OSError:
            return False
        return True

    def keep(self) -> None:
        """Its end is told; its files stay to be looked at until room is needed."""
        with contextlib.suppress(OSError):  # removed meanwhile by hand: nothing to keep
            os.rename(os.path.join(self.directory, records.SPEC_FILE), os.path.join(self.directory, KEPT_FILE))

    # --- its command ----------------------------------------------------------------------------------------------

    def folder(self, name: str) -> str:
        """One of the FOLDERS that its command sees."""
        return os.path.join(self.directory, name)

    def order(self, deadline: float, grace: float, cpus: int, devices: str | None, engine: Engine | None = None) -> dict:
        """What the keeper is to run. `devices` are its GPUs, `engine` is that of its container.

        Raises ValueError if the command, the image or its options cannot be used, OSError if a file of it cannot be written.
        """
        task = self.task
        if engine is not None:
            limits = {"timeout": task.get("run_timeout"), "grace": grace, "deadline": deadline}
            return self._container_order(engine, cpus) | limits
        return {
            "id": self.id, "dir": self.directory, "argv": self._words(), "env": self.environment(cpus, devices),
            "cwd": task.get("workdir") or os.path.join(self.directory, "temp"), "uid": task.get("uid"), "gid": task.get("gid"),
            "timeout": task.get("run_timeout"), "grace": grace, "deadline": deadline,
        }  # fmt: skip

    def _container_order(self, engine: Engine, cpus: int) -> dict:
        """The client runs as the worker's user; it is the engine that knows the task's."""
        variables = self.environment(cpus, None)
        argv = engine.run(self.id, self.task, self._words(), self.directory, variables)
        self.spec["engine"] = dataclasses.asdict(engine)
        records.write(self.directory, records.SPEC_FILE, self.spec)  # so that whoever finds it knows whom to ask
        fd = os.open(os.path.join(self.directory, container.ENV_FILE), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "wb") as file:
            file.write(container.variables_file(variables))
        return {
            "id": self.id, "dir": self.directory, "argv": argv, "env": engine.environment(variables), "cwd": self.folder("temp"),
            "uid": None, "gid": None, "verbs": engine.verbs(self.id),
        }  # fmt: skip

    def _words(self) -> list[str]:
        command, shell = self.task["command"], self.task.get("shell")
        if shell:
            return [shell, "-c", command]
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise ValueError(f"the command cannot be split into words ({error}): check its quotes, or ask for a shell") from None
        if not words:
            raise ValueError("the command is empty")
        return words

    def environment(self, cpus: int, devices: str | None) -> dict[str, str]:
        """What the command's environment has beside the worker's; the task's variables come before ours, save its identity."""
        own = {name.upper(): container.MOUNTS[name] if self.in_container else self.folder(name) for name in FOLDERS}
        own["CPU"] = str(cpus)
        if devices is not None:
            own["CUDA_VISIBLE_DEVICES"] = devices
        if self.task.get("uid") is not None and self.task["uid"] != os.geteuid() and not self.in_container:
            own |= _home_of(self.task["uid"], own["TEMP"])
        own |= self.task.get("env") or {}
        own |= {
            "SCITQ_TASK_ID": str(self.spec["task_id"]), "SCITQ_TASK_NAME": self.task.get("name") or "",
            "SCITQ_BATCH": self.task.get("batch") or "", "SCITQ_EXECUTION_ID": str(self.id),
        }  # fmt: skip
        return own

    # --- what becomes of it ---------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        return self.state not in ENDED

    @property
    def ready(self) -> bool:
        """Whether its command may start."""
        return self.state == ACCEPTED and self.desired == RUN and self.fetched and not self.starting

    @property
    def occupies(self) -> bool:
        """Whether it holds a run slot."""
        return self.starting or self.state == RUNNING

    def has_started(self, who: dict) -> None:
        """The keeper says that its command runs: `who` is its identity."""
        self.starting = True
        if self.live:
            self.state, self.pid, self.started = RUNNING, who["pid"], who["started"]
            self.suspended = bool(who.get("suspended"))

    def has_ended(self, end: dict) -> None:
        """The keeper says how its command ended."""
        if not self.live:
            return
        self.starting = self.suspended = False
        same_boot = end["boot"] == boot_id()
        self.ended = end["ended"] if same_boot else boot_seconds() - max(0.0, time.time() - end["ended_at"])
        if end["kind"] != ends.UNSTARTABLE:
            self.started = self.ended - (end["ended"] - end["started"])
        self.untidy = bool(end.get("untidy"))
        self.exit_code, self.signal = end.get("exit_code"), end.get("signal")
        self.usage |= {name: max(end[name], self.usage.get(name, 0)) for name in _USAGE if name in end}
        self.state, self.reason = _outcome(end)
        if self.task.get("output") and end["kind"] in _LEAVES_OUTPUT and self.state in (SUCCEEDED, FAILED):
            self.verdict, self.state, self.reason = (self.state, self.reason), UPLOADING, None
        self.look()

    def fetch_failed(self, why: str) -> None:
        """What it needs cannot be had."""
        if self.live:
            self.end_as(FAILED, why)

    def has_reused(self, execution_id: int) -> None:
        """The outputs of an equal execution are where its own would be."""
        if self.live:
            self.reused, self.exit_code = execution_id, 0
            self.end_as(SUCCEEDED, f"took the outputs of execution {execution_id} instead of running (use_cache)")

    def has_sent(self, fault: str | None) -> None:
        """Its outputs are where they should be, or never will be."""
        if self.state != UPLOADING or self.verdict is None:
            return
        self.state, self.reason = self.verdict
        if fault:
            self.reason = f"{self.reason}; {fault}" if self.reason else fault
            self.state = FAILED

    def end_as(self, state: str, reason: str) -> None:
        """It ends without (or before) a word of the keeper."""
        self.starting = self.suspended = False
        self.state, self.reason = state, reason
        if self.started is not None and self.ended is None:
            self.ended = boot_seconds()
        self.look()

    def give_back(self, why: str) -> None:
        """It has not started; the server may give it to another worker."""
        self.end_as(LOST, why)

    def stop_sending(self) -> None:
        """It is to end, and its outputs are still on their way."""
        self.end_as(CANCELED if self.desired == CANCEL else FAILED, "ended on request before all its outputs were sent")

    def stop_unstarted(self) -> None:
        """It is to end and its command has not started."""
        self.end_as(CANCELED if self.desired == CANCEL else FAILED, "ended on request before its command started")

    # --- what is said of it ---------------------------------------------------------------------------------------

    @property
    def behind(self) -> bool:
        """Whether the server lacks output of it, as far as was looked."""
        return any(stream.behind for stream in self.output.values())

    def look(self) -> bool:
        """Looks for new output; whether there is some to send."""
        found = [stream.look() for stream in self.output.values()]
        return any(found)

    def report(self, now: float, whole: bool) -> Report:
        """What to say of it. An end is said `whole`, with the last bytes of its output; before that it is uploading."""
        said = Report(self.id, self.state, suspended=self.suspended, pid=self.pid, **self.usage)
        if self.started is not None:
            said.started_ago = round(max(0.0, now - self.started), 6)
        if self.ended is not None:
            said.ended_ago = round(max(0.0, now - self.ended), 6)
        if self.live:
            return said
        if not whole:
            said.state = UPLOADING
            return said
        said.exit_code, said.signal, said.reason = self.exit_code, self.signal, self.reason
        said.transfers, said.reused = self.transfers or None, self.reused
        if self.state == SUCCEEDED and self.cache_key and self.outputs:
            said.cache = {"key": self.cache_key, "outputs": self.outputs}
        said.stdout_size, said.stderr_size = (self.output[name].size for name in STREAMS)
        return said


def _outcome(end: dict) -> tuple[str, str | None]:
    """The state that an end of a command means, and the sentence that explains it."""
    kind, asked = end["kind"], end.get("asked")
    if kind == ends.EXITED:
        if end["exit_code"] == 0:
            return SUCCEEDED, None
        return FAILED, _exit_reason(end)
    if kind == ends.UNSTARTABLE:
        return FAILED, end["message"]
    if kind == ends.INTERRUPTED:
        return LOST, end.get("message") or "the machine or its service was stopped"
    if kind == ends.TIMEOUT:
        return FAILED, f"ran longer than its time limit of {end.get('timeout', 0):g} s and was ended"
    if kind == ends.STOPPED:
        if asked == WORKER_STOPS:
            return LOST, "its worker was stopped"
        return (CANCELED if asked == CANCEL else FAILED), f"ended on request ({asked})"
    return FAILED, f"killed by signal {end['signal']} ({_signal_name(end['signal'])})" + _memory(end)


def _exit_reason(end: dict) -> str | None:
    if message := end.get("message"):
        return message
    if end["exit_code"] == 128 + signal.SIGKILL and end.get("short_of_memory"):
        return "a process of it was killed by signal 9 (SIGKILL)" + _memory(end)
    return None


def _memory(end: dict) -> str:
    return ", most likely because the machine ran out of memory" if end.get("short_of_memory") else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def _home_of(uid: int, without: str) -> dict[str, str]:
    """HOME and the names of a user; `without` is the home of one that this machine does not know."""
    import pwd

    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return {"HOME": without, "USER": str(uid), "LOGNAME": str(uid)}
    return {"HOME": user.pw_dir, "USER": user.pw_name, "LOGNAME": user.pw_name}


class Spares:
    """Empty directories of executions that succeeded, used again: making five is the dearest part of a short task."""

    def __init__(self, path: str, at_most: int = 64):
        self._path, self._at_most = path, at_most
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path, mode=0o700)
        self._names: list[str] = []
        self._made = 0

    def give(self, directory: str) -> bool:
        """Puts a spare one in the place of `directory`, if there is one."""
        while self._names:
            with contextlib.suppress(OSError):  # removed by hand: the next one may be there
                os.rename(self._names.pop(), directory)
                return True
        return False

    def take(self, directory: str) -> bool:
        """Keeps a directory for later, if it is as a new one would be and there is room. Raises OSError."""
        if len(self._names) >= self._at_most or set(os.listdir(directory)) != _NAMES or not _all_empty(directory):
            return False
        for name in STREAMS:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                return False
            if status.st_size:
                os.truncate(path, 0)
        self._made += 1
        spare = os.path.join(self._path, str(self._made))
        os.rename(directory, spare)
        self._names.append(spare)
        return True


def _all_empty(directory: str) -> bool:
    """Whether the folders of an execution are empty and as they were made."""
    wanted = (0o40700, os.geteuid(), os.getegid())
    for path in (os.path.join(directory, name) for name in FOLDERS):
        status = os.lstat(path)
        if (status.st_mode, status.st_uid, status.st_gid) != wanted or os.listdir(path):
            return False
    return True


# --- what a worker that starts finds -------------------------------------------------------------------------------


def find_leftovers(base: str) -> tuple[list[Execution], list[str], list[str]]:
    """What is there: executions to go on with, directories kept after a failure (oldest first), and rubbish."""
    held, kept, rubbish = [], [], []
    for name in os.listdir(base):
        directory = os.path.join(base, name)
        try:
            held.append(Execution.load(directory))
        except (OSError, ValueError, KeyError):
            (kept if os.path.exists(os.path.join(directory, KEPT_FILE)) else rubbish).append(directory)
    held.sort(key=lambda one: one.id)
    kept.sort(key=os.path.getmtime)
    return held, kept, rubbish


def end_leftovers(executions: list[Execution], patience_seconds: float = 5.0) -> None:
    """Ends whatever still runs of executions whose keeper is gone: known by its main process, its mark and its output."""
    known = [records.read(one.directory, records.STARTED_FILE, one.id) or {} for one in executions]
    mains = {record.get("pid"): record.get("start") for record in known if record.get("boot") == boot_id()}
    directories = {one.directory for one in executions}
    streams = {os.path.join(directory, name) for directory in directories for name in STREAMS}
    deadline = time.monotonic() + patience_seconds
    while time.monotonic() < deadline:
        table = processes()
        ours = {pid for pid, start in mains.items() if pid in table and table[pid].start == start}
        sessions = {one.pid for one in table.values() if one.session in ours}
        marked = {pid for pid in table if environment_value(pid, ends.MARK) in directories}
        marked |= {pid for pid in table if any(path in streams for path in links(pid, "fd/1", "fd/2"))}
        left = descendants(table, sessions | marked)
        if not left:
            return
        for pid in left:
            signal_exactly(table[pid], signal.SIGKILL)
        time.sleep(0.02)
