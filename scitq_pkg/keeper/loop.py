"""The keeper's loop: one socket, the ends of children, and timers."""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
import traceback

from ..protocol import KILL_GRACE_SECONDS
from . import BEFORE, LATE, LOCK_FILE, NOT_NOW, SOCKET_FILE, processes
from .command import INTERRUPTED, MARK, CannotStartNow, Command, StartedBefore

ALONE_SECONDS = 30.0  # a keeper that nobody needs ends after so long
GIVE_UP_SECONDS = 5.0  # for processes that not even SIGKILL ends, e.g. in a dead network file system
SETTLE_SECONDS = 0.2  # a command ended by SIGTERM waits so long for the keeper's own: then the machine stops
MEMORY_SECONDS = 10.0  # how old the count of the kernel's kills may be
RETRY_SECONDS = 1.0  # for an end that the disk did not take
ENGINE_PROCESSES = {  # of podman, that outlive its client; docker's are not below us
    "conmon", "podman", "catatonit", "slirp4netns", "pasta", "rootlessport", "aardvark-dns", "fuse-overlayfs", "exe",
}  # fmt: skip
_LINE_BYTES = 16 * 2**20
_PR_SET_CHILD_SUBREAPER = 36


class Keeper:
    """Owns the commands of one worker."""

    def __init__(self, directory: str):
        self.directory = os.path.abspath(directory)
        self.environment: dict[str, str] = {}
        self.commands: dict[int, Command] = {}  # by execution: running, or its tree not yet gone
        self.by_pid: dict[int, Command] = {}
        self.helpers: dict[int, Command] = {}  # processes that carry out a verb
        self.bystanders: set[int] = set()  # orphans that are a container engine's own
        self.strays: dict[int, set[int]] = {}  # orphans that came to us: pid -> the executions whose they may be
        self.ended: dict[int, dict] = {}  # ends that the worker has not forgotten
        self.unwritten: dict[int, Command] = {}
        self.stopping = self.leaving = False
        self._selector = selectors.DefaultSelector()
        self._worker: socket.socket | None = None
        self._received, self._to_send = bytearray(), bytearray()
        self._timers: list[tuple[float, int, Command]] = []
        self._tie = itertools.count()
        self._alone_since = time.monotonic()
        self._has_engines = False  # a command that is the client of a container engine was started
        self._memory_kills = [processes.out_of_memory_kills()] * 2  # the last two readings
        self._memory_read_at = time.monotonic()

    # --- life -----------------------------------------------------------------------------------------------------

    def serve(self) -> int:
        """The loop; 0 at its end, also when another keeper holds this directory."""
        self._base = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        lock = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600, dir_fd=self._base)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        os.chdir("/")
        _adopt_orphans()
        self._null = os.open(os.devnull, os.O_RDWR)
        self._listen()
        self._heed_signals()
        while not self._done():
            try:
                self._turn()
            except Exception:  # whatever is wrong with one command or message, the others must go on being looked after
                traceback.print_exc()
                time.sleep(0.1)
        with contextlib.suppress(FileNotFoundError):  # the directory was removed
            os.unlink(SOCKET_FILE, dir_fd=self._base)
        return 0

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            key.data()
        self._reap()
        self._tick()
        self._flush()

    def _done(self) -> bool:
        if self.commands or (self.unwritten and not self.stopping):
            self._alone_since = time.monotonic()
            return False
        if self.stopping or self.leaving:
            return True
        return self._worker is None and time.monotonic() >= self._alone_since + ALONE_SECONDS

    def _patience(self) -> float | None:
        """Seconds until something is due, None for ever."""
        due = [self._timers[0][0]] if self._timers else []
        if self.commands:
            due.append(self._memory_read_at + MEMORY_SECONDS)
        elif self._worker is None:
            due.append(self._alone_since + ALONE_SECONDS)
        if self.unwritten:
            due.append(time.monotonic() + RETRY_SECONDS)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _heed_signals(self) -> None:
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopping", True))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._selector.register(self._wake, selectors.EVENT_READ, self._woken)

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):  # read empty
            os.read(self._wake, 4096)
        if self.stopping:
            for command in list(self.commands.values()):
                if not command.reaped and not command.asked:
                    self._stop(command, INTERRUPTED, KILL_GRACE_SECONDS)

    # --- the worker -----------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        path = f"/proc/self/fd/{self._base}/{SOCKET_FILE}"  # a socket's own path may have 107 bytes only
        with contextlib.suppress(FileNotFoundError):  # none was left behind
            os.unlink(path)
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        before = os.umask(0o177)
        self._door.bind(path)
        os.umask(before)
        self._door.listen(8)
        self._selector.register(self._door, selectors.EVENT_READ, self._welcome)

    def _welcome(self) -> None:
        connection, _ = self._door.accept()
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            connection.close()
            return
        if self._worker is not None:
            self._tell(event="replaced")
            self._flush()
            self._part()
        connection.setblocking(False)
        self._worker, self.leaving = connection, False
        self._selector.register(connection, selectors.EVENT_READ, self._hear)

    def _part(self) -> None:
        if self._worker is None:
            return
        self._selector.unregister(self._worker)
        self._worker.close()
        self._worker, self._alone_since = None, time.monotonic()
        self._received.clear()
        self._to_send.clear()

    def _hear(self) -> None:
        if self._worker is None:
            return  # it parted in this same turn
        try:
            received = self._worker.recv(1 << 18)
        except BlockingIOError:  # it was for writing
            return
        except OSError:
            received = b""
        self._received += received
        if not received or len(self._received) > _LINE_BYTES:
            self._part()
            return
        *lines, rest = self._received.split(b"\n")
        self._received = rest
        for line in lines:
            try:
                self._obey(json.loads(line))
            except (ValueError, KeyError, TypeError):  # the lines that follow may be good ones
                traceback.print_exc()

    def _tell(self, **message) -> None:
        if self._worker is not None:
            self._to_send += json.dumps(message, separators=(",", ":")).encode() + b"\n"

    def _flush(self) -> None:
        if self._worker is None:
            return
        try:
            with contextlib.suppress(BlockingIOError):  # the worker does not read now: what is left waits for it
                while self._to_send:
                    del self._to_send[: self._worker.send(self._to_send)]
        except OSError:
            self._to_send.clear()  # it is gone; its last orders are still to be read
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._to_send else 0)
        if self._selector.get_key(self._worker).events != wanted:
            self._selector.modify(self._worker, wanted, self._hear)

    def _obey(self, message: dict) -> None:
        handler = {"run": self._run, "signal": self._signal, "forget": self._forget, "hello": self._hello, "leave": self._leave}
        handler[message["op"]](message)

    def _hello(self, message: dict) -> None:
        self.environment = message["env"]
        live = [{"suspended": c.suspended, **c.identity()} for c in self.commands.values()]
        self._tell(event="hello", pid=os.getpid(), boot=processes.boot_id(), running=live, ended=list(self.ended.values()))

    def _run(self, message: dict) -> None:
        number = message["id"]
        if number in self.commands or number in self.ended:
            return  # said twice; what became of it is told anyway
        if processes.boot_seconds() > message["deadline"] or self.stopping:
            self._tell(event="refused", id=number, kind=LATE, why="the server has not been heard of for too long")
            return
        command = Command(message)
        self._has_engines |= command.verbs is not None
        try:
            command.spawn(self.environment, self._null)
        except CannotStartNow as error:
            self._tell(event="refused", id=number, kind=NOT_NOW, why=str(error))
        except StartedBefore as error:
            self._tell(event="refused", id=number, kind=BEFORE, why=str(error))
        else:
            self._keep(command)

    def _keep(self, command: Command) -> None:
        if command.end:
            self._publish(command)
            return
        self.commands[command.id] = self.by_pid[command.pid] = command
        self._at(command.due, command)
        self._tell(event="started", **command.identity())

    def _signal(self, message: dict) -> None:
        command = self.commands.get(message["id"])
        order = message["order"]
        if command is None or command.reaped and not (command.grace_until and order == "kill"):
            return  # it has ended: that is on its way to the worker
        command.grace_until = 0.0
        self._find_strays()
        if order == "suspend":
            command.suspend(self._strays_of(command))
            self._help(command)
        elif order == "resume":
            command.resume(self._strays_of(command))
            self._at(command.due, command)
            self._help(command)
        else:
            self._stop(command, message.get("asked", order), message["grace"] if order == "term" else 0.0)

    def _stop(self, command: Command, asked: str, grace: float) -> None:
        self._find_strays()
        command.stop(asked, grace, self._strays_of(command))
        self._at(command.due, command)
        self._help(command)

    def _help(self, command: Command) -> None:
        command.help(self.environment, self._null)
        if command.helper:
            self.helpers[command.helper] = command
        self._at(command.help_at, command)

    def _forget(self, message: dict) -> None:
        self.ended.pop(message["id"], None)
        self.unwritten.pop(message["id"], None)

    def _leave(self, _message: dict) -> None:
        self.leaving = True

    # --- ends -----------------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        some = False
        with contextlib.suppress(ChildProcessError):  # no child at all
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                some = True
                self._reap_one(ended.si_pid)
        if some:
            self._conclude()

    def _reap_one(self, pid: int) -> None:
        if helped := self.helpers.pop(pid, None):
            helped.helped(os.waitpid(pid, 0)[1])
            if helped.help_at is None:
                self._help(helped)
            self._at(helped.help_at, helped)
            return
        command = self.by_pid.pop(pid, None)
        if command is None:
            self.bystanders.discard(pid)
            _, _, usage = os.wait4(pid, 0)
            owners = [self.commands[i] for i in self.strays.pop(pid, ()) if i in self.commands]
            if len(owners) == 1:
                owners[0].add_usage(usage)
            return
        if not command.in_grace:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # what is left of its group belongs to nobody of ours
                os.killpg(pid, signal.SIGKILL)  # safe: the pid is not free before it is waited for
        moved = processes.bytes_moved(pid)
        _, status, usage = os.wait4(pid, 0)
        command.reap(status, usage, moved)
        now = time.monotonic()
        command.give_up_at = max(now, command.grace_until) + GIVE_UP_SECONDS
        if command.exit == -signal.SIGTERM and not command.asked:
            command.settle_until = now + SETTLE_SECONDS

    def _conclude(self) -> None:
        """Ends every command whose main process has ended and whose tree is gone."""
        self._find_strays()
        now = time.monotonic()
        for command in [c for c in self.commands.values() if c.reaped]:
            left = self._strays_of(command)
            if left and now < command.grace_until:
                self._at(command.grace_until, command)
            elif left and now < command.give_up_at:
                command.send(signal.SIGKILL, left)
                self._at(now + 0.1, command)
            elif now < command.settle_until and not self.stopping:
                self._at(command.settle_until, command)
            else:
                del self.commands[command.id]
                command.conclude(self.stopping, self._short_of_memory(command), bool(left))
                self._publish(command)
        nobodys = [pid for pid, owners in self.strays.items() if not owners & self.commands.keys()]
        if nobodys:
            processes.signal_processes(processes.descendants(processes.processes(), nobodys), signal.SIGKILL)

    def _publish(self, command: Command) -> None:
        self.ended[command.id] = command.end
        if not command.write_end():
            self.unwritten[command.id] = command
        self._tell(event="ended", **command.end)

    def _short_of_memory(self, command: Command) -> bool:
        """Whether the kernel ended processes for want of memory about when this one was killed."""
        if command.asked or command.exit not in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return False
        return processes.out_of_memory_kills() > self._memory_kills[0]

    def _find_strays(self) -> None:
        """Orphans of our commands become our children: says whose they are, as far as that can be told."""
        known = self.by_pid.keys() | self.helpers.keys() | self.strays.keys() | self.bystanders
        for pid in processes.children_of_this_process() - known:
            if self._is_engines(pid):
                self.bystanders.add(pid)
            else:
                self.strays[pid] = self._owners(pid)

    def _is_engines(self, pid: int) -> bool:
        """Whether an orphan is a process with which a container engine looks after its containers, not a command's own."""
        if not self._has_engines:
            return False
        return processes.name(pid) in ENGINE_PROCESSES and processes.environment_value(pid, MARK) is None

    def _owners(self, pid: int) -> set[int]:
        one = processes.process(pid)
        by_session = next((c.id for c in self.commands.values() if one and c.pid == one.session), None)
        if by_session is not None:
            return {by_session}
        mark = processes.environment_value(pid, MARK)
        if mark is None or os.path.dirname(mark) != os.path.join(self.directory, "executions"):
            return self._owners_by_files(pid) or set(self.commands)
        return {c.id for c in self.commands.values() if c.directory == mark}

    def _owners_by_files(self, pid: int) -> set[int]:
        """An orphan without its environment still writes into the directory of its execution, or stands in it."""
        traces = processes.links(pid, "fd/1", "fd/2", "cwd")
        return {c.id for c in self.commands.values() if any(trace.startswith(c.directory + os.sep) for trace in traces)}

    def _strays_of(self, command: Command) -> set[int]:
        """The orphans that are this command's, or that no running command can claim."""
        if not self.strays:
            return set()
        others = {c.id for c in self.commands.values() if c is not command and not c.reaped}
        if command.reaped:
            return {pid for pid, owners in self.strays.items() if not owners & others}
        return {pid for pid, owners in self.strays.items() if owners == {command.id}}

    # --- time -----------------------------------------------------------------------------------------------------

    def _at(self, due: float | None, command: Command) -> None:
        if due is not None:
            heapq.heappush(self._timers, (due, next(self._tie), command))

    def _tick(self) -> None:
        now, again = time.monotonic(), False
        while self._timers and self._timers[0][0] <= now:
            _, _, command = heapq.heappop(self._timers)
            if self.commands.get(command.id) is not command:
                continue
            again = again or command.reaped
            if command.due is not None and command.due <= now:
                self._time_is_up(command)
            if command.help_at is not None and command.help_at <= now:
                self._help(command)
        if again:
            self._conclude()
        if self.unwritten:
            self.unwritten = {i: c for i, c in self.unwritten.items() if not c.write_end()}
        if self.commands and now >= self._memory_read_at + MEMORY_SECONDS:
            self._memory_kills = [self._memory_kills[1], processes.out_of_memory_kills()]
            self._memory_read_at = now

    def _time_is_up(self, command: Command) -> None:
        command.due = None
        if command.asked:
            self._stop(command, command.asked, 0.0)
        else:
            self._stop(command, "timeout", command.order.get("grace", KILL_GRACE_SECONDS))


def _adopt_orphans() -> None:
    """Makes this process the parent of its descendants' orphans, so that none escapes."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        print("prctl(PR_SET_CHILD_SUBREAPER) failed: processes that leave their session may outlive their task", file=sys.stderr)
