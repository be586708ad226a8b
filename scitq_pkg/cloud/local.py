"""Workers on the server's own machine, as processes that outlive the server. A folder each; nothing else is made for them.

    <scratch>/<machine>/machine.json    whose it is, and which process: boot id, pid, start time
                        start.json      how its worker is started      token, ca.pem    0600
                        lock            held by its process as long as it lives
                        worker.log      work/<worker>/                 the worker's own directory

A process writes down itself that it is the machine's, before it becomes the worker: there is none that nobody knows. A folder
without its record, of a question that was killed, is known by its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from .. import program
from ..durable import write_whole
from ..errors import nearest
from ..keeper import ending, processes
from ..settings import Settings, default_data
from .keys import checked
from .provider import (
    BROKEN,
    CREATING,
    STOPPED,
    UP,
    CloudRefused,
    CloudTrouble,
    Flavor,
    Machine,
    NoRoom,
    Order,
    Start,
    Tell,
    is_of,
)

NAME = "local"  # of its one flavor and its one region
_KEYS = {"kind": str, "scratch": str, "maximum": (int, 1), "cpu": (int, 1), "price": (float, 0), "currency": str}
_START_SECONDS = 60.0
_LAST_WORDS_SECONDS = 5.0  # for a worker that is asked to end
_POLL_SECONDS = 0.02
_GB = 1e9
_OF_THE_SERVER = {  # no business of tasks, some of it secret
    "SCITQ_SERVER", "SCITQ_TOKEN", "SCITQ_SMTP_PASSWORD",
    "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PASSWORD", "AZURE_PASSWORD",
    *(f"SCITQ_{field.name.upper()}" for field in fields(Settings)),
}  # fmt: skip
_FAMILIES_OF_THE_SERVER = ("OS_", "OVH_", "PG")  # variables that begin so


@dataclass(slots=True)
class Record:
    """What `machine.json` says."""

    name: str
    tag: str
    provider: str
    worker: str
    boot: str | None = None
    pid: int | None = None
    start: int | None = None

    @property
    def process(self) -> processes.Process | None:
        """Its process, if it lives."""
        if self.pid is None or self.boot != processes.boot_id():
            return None
        one = processes.process(self.pid)
        return one if one is not None and one.start == self.start and one.state != "Z" else None

    @property
    def lives(self) -> bool:
        return self.process is not None


class Local:
    """The machine that the server runs on, as a provider."""

    def __init__(self, name: str, config: Mapping, tag: str, tell: Tell):
        self.name, self._tag, self._tell = name, tag, tell
        self._config = checked(f"providers.{name}", config, _KEYS)
        self._folder = Path(config.get("scratch") or default_data() / "machines").absolute()
        self._cpus = config.get("cpu") or len(os.sched_getaffinity(0))
        self._most = config.get("maximum") or self._cpus

    # --- what it is asked ---------------------------------------------------------------------------------------------

    def check(self, flavor: str, region: str, number: int) -> None:
        for what, word in (("flavor", flavor), ("region", region)):
            if word != NAME:
                raise CloudRefused(f"provider {self.name} has no {what} {word!r:.80}{nearest(word, [NAME])}: there is {NAME}")
        if number > self._room():
            raise NoRoom(
                f"provider {self.name} has room for {self._room()} more workers on this machine, not for {number}: `maximum` of "
                f"providers.{self.name} is {self._most}"
            )

    def create(self, order: Order) -> Machine:
        folder = self._folder / order.name
        with self._turn():
            known = self._read(folder)
            if known is None or not known.lives:
                self.check(order.flavor, order.region, 1 if known is None else 0)
                self._prepare(folder, order)
        record = self._started(folder, order.start.worker)
        return self._machine(folder, record)

    def list(self) -> Iterator[Machine]:
        for folder in self._folders():
            record = self._read(folder)
            if record is None and is_of(self._tag, folder.name) and folder.is_dir():  # of whichever local provider it is
                why = "whoever made or removed it was killed"
                yield Machine(folder.name, NAME, BROKEN, id=folder.name, flavor=NAME, message=why)
            elif record is not None and (record.provider, record.tag) == (self.name, self._tag):
                yield self._machine(folder, record)

    def delete(self, machine: Machine) -> None:
        folder = self._folder / machine.name
        record = self._read(folder)
        if record is None and is_of(self._tag, machine.name):
            self._clear_unfinished(folder)
            return
        if record is None:
            return
        if record.tag != self._tag:
            raise CloudRefused(f"{machine.name} of provider {self.name} is another server's")
        self._tell(f"ending what runs in {folder}")
        try:
            with self._seized(folder):
                ending.end(str(_home(folder, record.worker)))
                _remove(folder)
        except OSError as error:
            raise CloudTrouble(f"{folder} cannot be cleared: {error.strerror or error}") from None

    def flavors(self) -> Iterator[Flavor]:
        ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GB
        disk = shutil.disk_usage(_nearest_existing(self._folder)).total / _GB
        yield Flavor(
            NAME, NAME, cpu=self._cpus, ram=round(ram, 1), disk=round(disk, 1), price=float(self._config.get("price") or 0),
            currency=self._config.get("currency"), eviction=0.0, available=self._room(),
        )  # fmt: skip

    # --- folders ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """One at a time counts the machines and adds one."""
        try:
            self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise CloudRefused(
                f"{self._folder} cannot be used: {error.strerror}: give another `scratch` to providers.{self.name}"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _folders(self) -> list[Path]:
        try:
            return [self._folder / name for name in sorted(os.listdir(self._folder))]
        except FileNotFoundError:  # none was ever made
            return []

    def _taken(self) -> int:
        """The machines of this provider, of any server."""
        records = map(self._read, self._folders())
        return sum(record is not None and record.provider == self.name for record in records)

    def _clear_unfinished(self, folder: Path) -> None:
        """No process is in there: that begins after the record, and ends before it."""
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return  # it was never made, or is gone
        except OSError as error:
            raise CloudTrouble(f"{folder} cannot be cleared: {error.strerror or error}") from None

    def _read(self, folder: Path) -> Record | None:
        try:
            return Record(**json.loads((folder / "machine.json").read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError) as error:
            raise CloudTrouble(f"{folder}/machine.json cannot be read: {error}") from None

    def _room(self) -> int:
        return max(0, self._most - self._taken())

    def _machine(self, folder: Path, record: Record) -> Machine:
        state, message = UP, ""
        if not record.lives:
            state, message = _why_dead(folder, record)
        return Machine(record.name, NAME, state, id=record.name, flavor=NAME, address="127.0.0.1", message=message)

    # --- start --------------------------------------------------------------------------------------------------------

    def _prepare(self, folder: Path, order: Order) -> None:
        """Everything but the process. The record is first: from now on it is known that there is something to remove."""
        try:
            folder.mkdir(mode=0o711, exist_ok=True)
            write_whole(folder / "machine.json", _json(Record(order.name, order.tag, self.name, order.start.worker)), 0o600)
            os.close(os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            _write_identity(folder, order.start)
            write_whole(folder / "start.json", json.dumps(_worker(folder, order.start)).encode(), 0o600)
        except OSError as error:
            raise CloudTrouble(f"{folder} cannot be written: {error.strerror}") from None

    def _started(self, folder: Path, worker: str) -> Record:
        """The record of a machine whose process is there. Raises CloudTrouble when it does not start."""
        deadline = time.monotonic() + _START_SECONDS
        while True:
            record = self._read(folder)
            if record is not None and record.lives:
                return record
            if time.monotonic() > deadline:
                raise CloudTrouble(f"worker {worker} does not start on this machine: {_last_line(folder / 'worker.log')}")
            self._tell(f"starting worker {worker}")
            _launch(folder)
            time.sleep(_POLL_SECONDS)

    @contextlib.contextmanager
    def _seized(self, folder: Path) -> Iterator[None]:
        """The process of a machine has ended, and none becomes it meanwhile."""
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            kill_at = time.monotonic() + _LAST_WORDS_SECONDS
            while not _locked(descriptor):
                record = self._read(folder)
                if record is not None and (one := record.process) is not None:
                    processes.signal_exactly(one, signal.SIGTERM if time.monotonic() < kill_at else signal.SIGKILL)
                if time.monotonic() > kill_at + _START_SECONDS:
                    raise TimeoutError("its process does not end")
                time.sleep(_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)


def become(path: str) -> int:
    """`scitq cloud --become FOLDER`: this process is the folder's machine, and becomes its worker; an exit code if not."""
    folder = Path(path)
    try:
        lock = os.open(folder / "lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        start = json.loads((folder / "start.json").read_text())
    except (BlockingIOError, FileNotFoundError):
        return 1  # another process is the machine, or it was removed meanwhile
    os.set_inheritable(lock, True)
    me = processes.process(os.getpid())
    known = json.loads((folder / "machine.json").read_text())
    write_whole(
        folder / "machine.json",
        json.dumps({**known, "boot": processes.boot_id(), "pid": me.pid, "start": me.start}).encode(),
        0o600,
    )
    log = os.open(folder / "worker.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _OF_THE_SERVER and not name.startswith(_FAMILIES_OF_THE_SERVER)
    }  # fmt: skip
    os.execve(start["argv"][0], start["argv"], {**environment, **start["environment"]})


def _launch(folder: Path) -> None:
    """Returns when the process has become the machine's, or has ended."""
    with subprocess.Popen(
        program.command("cloud", "--become", str(folder)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        start_new_session=True, cwd="/",
    ) as process:  # fmt: skip
        process.stdout.read()
        process.returncode = process.poll() or 0  # it outlives this one on purpose


def _worker(folder: Path, start: Start) -> dict:
    """How the worker is started; no secret is in it."""
    environment = {"SCITQ_CA": str(folder / "ca.pem")} if start.ca else {}
    words = [
        start.server, str(start.concurrency), "--name", start.worker, "--scratch", str(folder / "work"),
        f"--batch={start.batch}", "--prefetch", str(start.prefetch), "--token-file", str(folder / "token"),
    ]  # fmt: skip
    return {"argv": program.command("worker", *words), "environment": environment}


def _write_identity(folder: Path, start: Start) -> None:
    home = _home(folder, start.worker)
    home.mkdir(mode=0o711, parents=True, exist_ok=True)
    if not (home / "worker.json").exists():  # else it has been started before, and noted more there
        write_whole(home / "worker.json", json.dumps({"key": start.key, "token": start.token}).encode(), 0o600)
    write_whole(folder / "token", start.token.encode(), 0o600)
    if start.ca:
        write_whole(folder / "ca.pem", start.ca.encode(), 0o600)


def _home(folder: Path, worker: str) -> Path:
    return folder / "work" / worker


def _json(record: Record) -> bytes:
    return json.dumps(asdict(record)).encode()


def _why_dead(folder: Path, record: Record) -> tuple[str, str]:
    if record.pid is not None:
        rebooted = record.boot != processes.boot_id()
        return (
            STOPPED,
            "this machine was started anew" if rebooted else f"the worker ended: {_last_line(folder / 'worker.log')}",
        )
    return (BROKEN, "its worker was never started") if _is_free(folder / "lock") else (CREATING, "")


def _is_free(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        return _locked(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _remove(folder: Path) -> None:
    """The record goes last: killed before, the rest is still known to be removed."""
    for entry in list(folder.iterdir()):
        if entry.name == "machine.json":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    (folder / "machine.json").unlink()
    folder.rmdir()


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").split("\n")
    except OSError:
        return "it said nothing"
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _nearest_existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
