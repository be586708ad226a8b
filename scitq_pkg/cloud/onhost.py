"""What is done on hosts for the ssh and Slurm providers. It is brought there as text and run by the host's own Python, by itself.

ssh: `serve()`. Sent: a line of JSON {op, mark, ...}, then `size` bytes of a file. Answered: a line `MARK{...}`, whatever else is
printed. A machine is a folder `~/.local/share/scitq/<name>/` (the one file, the token, the log, `machine.json`) and a folder
`<scratch>/<name>/`, in which its worker has its own. `machine.json` says which host it is of, for homes may be shared by hosts.

Slurm: `hold(folder)` is the job: a worker, ended in order when Slurm says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

RECORD = "machine.json"
ORDER = "start.json"
FILE = "scitq.pyz"
LOG = "worker.log"
TOKEN = "token"
AUTHORITY = "ca.pem"
TASK_MARK = "SCITQ_EXECUTION_DIR"  # in the environment of all that a worker's tasks start
GRACE_SECONDS = 13.0  # the keeper gives its commands 10 between SIGTERM and SIGKILL
KILL_SECONDS = 10.0
LOOK_SECONDS = 0.1
CONNECT_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Failure(Exception):
    """What the asker is told: a code (`refused`, `room`, `trouble`) and a sentence without the host's name."""


def serve() -> None:
    """Answers the one question that standard input holds."""
    asked = json.loads(sys.stdin.buffer.readline())
    try:
        answer = {"probe": probe, "start": start, "list": listed, "stop": stop}[asked["op"]](asked)
    except Failure as failure:
        answer = {"error": failure.args}
    except OSError as error:
        full = error.errno in _FULL
        where = f" ({error.filename})" if error.filename else ""
        answer = {"error": ("room", f"its disk is full{where}") if full else ("trouble", f"{error.strerror or error}{where}")}
    with contextlib.suppress(BrokenPipeError):  # the asker is gone
        sys.stdout.buffer.write(b"\n" + asked["mark"].encode() + json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


# --- what the host is -----------------------------------------------------------------------------------------------------


def probe(asked: dict) -> dict:
    """Its size (bytes), its GPUs, and how many machines it holds."""
    at = _existing(scratch_base(asked))
    disk = os.statvfs(at)
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "disk": disk.f_blocks * disk.f_frsize,
        "nvme": _is_nvme(at),
        "gpus": _gpus(),
        "taken": len(_taken(asked)),
    }


def _gpus() -> list:
    """(model, MiB) of each."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    words = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):  # a driver without a device, or a hanging one
        return []
    rows = [line.rpartition(",") for line in said.strip().splitlines()]
    return [(name.strip(), int(memory) if memory.strip().isdigit() else None) for name, _, memory in rows]


def _is_nvme(path: str) -> bool:
    device = os.stat(path).st_dev
    return "/nvme" in os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")


def scratch_base(asked: dict) -> str:
    """The folder that was asked for, else what a worker takes by itself."""
    if asked.get("scratch"):
        return os.path.abspath(os.path.expanduser(asked["scratch"]))
    if os.path.isdir("/scratch") and os.access("/scratch", os.W_OK | os.X_OK):
        return "/scratch"
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join(_home(), ".cache"), "scitq", "scratch")


def _home() -> str:
    return os.path.expanduser("~")


def _base() -> str:
    return os.path.join(_home(), ".local", "share", "scitq")


def _existing(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


# --- what it holds --------------------------------------------------------------------------------------------------------


def listed(asked: dict) -> dict:
    """The machines of this tag on this host."""
    known = [told(record) for record in _records(asked["host"]) if record["tag"] == asked["tag"]]
    return {"machines": known + [_half_made(name) for name in _names() if _is_bare(name, asked["tag"])]}


def _is_bare(name: str, tag: str) -> bool:
    """Whether it is a folder of this tag without a record: the host went down between the two.

    Its name tells (`provider.is_of`).
    """
    return name.startswith(f"{tag[:14]}-") and os.path.isdir(os.path.join(_base(), name)) and _read(name) is None


def _half_made(name: str) -> dict:
    return {"name": name, "state": "broken", "message": "the host went down while it was made or removed"}


def told(record: dict) -> dict:
    """A machine as the provider knows it."""
    state = _state(record)
    return {"name": record["name"], "state": state, "message": _last_words(record) if state == "stopped" else ""}


def _state(record: dict) -> str:
    if record.get("deleting"):
        return "deleting"
    if "pid" not in record:
        return "creating"
    return "up" if _runs(record) else "stopped"


def _last_words(record: dict) -> str:
    said = ""
    with contextlib.suppress(OSError), open(os.path.join(_base(), record["name"], LOG), "rb") as file:  # it said nothing yet
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if record["boot"] != _boot_id():
        return "the host was started again, and the worker was not"
    return f"the worker ended: {said[:500] or 'it said nothing'}"


def _records(host: str) -> list[dict]:
    return [record for name in _names() if (record := _read(name)) and record["host"] == host]


def _names() -> list[str]:
    try:
        return sorted(os.listdir(_base()))
    except FileNotFoundError:  # there was never a machine
        return []


def _taken(asked: dict) -> list[dict]:
    """The machines that use up the host's room: all of this tag, of others those that run."""
    return [record for record in _records(asked["host"]) if record["tag"] == asked["tag"] or _runs(record)]


def _read(name: str) -> dict | None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # no machine
        with open(os.path.join(_base(), name, RECORD), "rb") as file:
            try:
                return json.load(file)
            except ValueError:
                raise Failure("trouble", f"{file.name} cannot be read: remove its folder") from None
    return None


def _note(record: dict) -> dict:
    _write(os.path.join(_base(), record["name"], RECORD), json.dumps(record).encode())
    return record


def _write(path: str, data: bytes) -> None:
    """A 0600 file, replaced in one step."""
    beside = f"{path}.{os.getpid()}"
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):  # it could not even be made
            os.unlink(beside)
        raise


@contextlib.contextmanager
def _locked():
    """One at a time on this host; what one that was killed left is seen by the next."""
    os.makedirs(_base(), mode=0o700, exist_ok=True)
    descriptor = os.open(os.path.join(_base(), "machines.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


# --- start ----------------------------------------------------------------------------------------------------------------


def start(asked: dict) -> dict:
    """Starts a machine's worker unless it runs; {"need": path in the home} when the one file has to be brought first."""
    if not _runs(_read(asked["name"]) or {}):
        _refuse_unreachable(asked["server"])
    with _locked():
        _reserve(asked)
    if asked.get("size"):
        _receive(os.path.join(_base(), asked["name"], asked["part"]), asked["size"])
    with _locked():
        record = _reserve(asked)
        if _runs(record):
            return told(record)
        if not _has_file(asked):
            return {"need": os.path.join(".local", "share", "scitq", asked["name"], asked["part"])}
        return told(_start(record, asked))


def _refuse_unreachable(server: list) -> None:
    """`server`: host and port. A worker would wait for it for ever."""
    try:
        socket.create_connection(tuple(server), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise Failure("unreachable", error.strerror or str(error)) from None


def _reserve(asked: dict) -> dict:
    """The machine's record, which is there before anything is started."""
    record = _read(asked["name"])
    if record is not None:
        _refuse_another(record, asked)
        if record["host"] != asked["host"]:
            raise Failure("trouble", f"{asked['name']} is on {record['host']}, which has the same home")
        if record.get("deleting"):
            raise Failure("trouble", f"{asked['name']} is being removed")
        return record
    taken = _taken(asked)
    if len(taken) >= asked["maximum"]:
        names = ", ".join(record["name"] for record in taken)
        raise Failure("room", f"it holds {len(taken)} of at most {asked['maximum']} workers ({names})")
    os.makedirs(os.path.join(_base(), asked["name"]), mode=0o700, exist_ok=True)
    scratch = os.path.join(scratch_base(asked), asked["name"])
    slot = min(set(range(asked["maximum"])) - {record.get("slot") for record in taken})
    return _note({"name": asked["name"], "tag": asked["tag"], "host": asked["host"], "scratch": scratch, "slot": slot})


def _refuse_another(record: dict, asked: dict) -> None:
    if record["tag"] != asked["tag"]:
        raise Failure("refused", f"{record['name']} is another server's")


def _receive(path: str, size: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        while size:
            piece = sys.stdin.buffer.read(min(size, 1 << 20))
            if not piece:
                raise Failure("trouble", "the one file came in part only")
            file.write(piece)
            size -= len(piece)


def _has_file(asked: dict) -> bool:
    """Whether the one file is there: as it was, as it was brought, or as another worker left it in this user's cache."""
    folder = os.path.join(_base(), asked["name"])
    there = os.path.join(folder, FILE)
    if _sum_of(there) == asked["sha256"]:
        return True
    brought = os.path.join(folder, asked["part"])
    cached = os.path.join(_home(), ".cache", "scitq", "copies", asked["sha256"][:32], FILE)
    if _sum_of(brought) != asked["sha256"]:
        with contextlib.suppress(FileNotFoundError):  # none was brought
            os.unlink(brought)
        if _sum_of(cached) != asked["sha256"]:
            return False
        shutil.copyfile(cached, brought)
    with open(brought, "rb") as file:
        os.fsync(file.fileno())
    os.replace(brought, there)
    return True


def _sum_of(path: str) -> str | None:
    sums = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                sums.update(piece)
    except OSError:  # not there, or not readable: it is to be brought
        return None
    return sums.hexdigest()


def _start(record: dict, asked: dict) -> dict:
    folder = os.path.join(_base(), record["name"])
    for name in os.listdir(folder):
        if name.startswith(FILE + "."):  # a part that somebody who was killed brought
            os.unlink(os.path.join(folder, name))
    _write(os.path.join(folder, TOKEN), asked["token"].encode())
    _introduce(record, asked)
    words = [sys.executable, os.path.join(folder, FILE), *asked["words"]]
    words += ["--scratch", record["scratch"], "--token-file", os.path.join(folder, TOKEN)]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("SSH_")}
    variables.update(_gpus_of(record["slot"], asked["maximum"]))
    if asked.get("ca"):
        variables["SCITQ_CA"] = os.path.join(folder, AUTHORITY)
        _write(variables["SCITQ_CA"], asked["ca"].encode())
    return _launch({**record, "worker": asked["worker"]}, words, variables)


def _gpus_of(slot: int, slots: int) -> dict:
    """The variable that gives one of several workers its own GPUs."""
    gpus = range(len(_gpus()) if slots > 1 else 0)
    own = gpus[slot::slots] or [slot % len(gpus)] if gpus else []
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, own))} if own else {}


def _introduce(record: dict, asked: dict) -> None:
    """The worker's own file says who it is, before it starts for the first time."""
    home = os.path.join(record["scratch"], asked["worker"])
    os.makedirs(os.path.dirname(record["scratch"]), mode=0o755, exist_ok=True)
    os.makedirs(home, mode=0o711, exist_ok=True)
    path, noted = os.path.join(home, "worker.json"), {}
    with contextlib.suppress(FileNotFoundError, ValueError), open(path, "rb") as file:  # it has not run yet
        noted = json.load(file)
    _write(path, json.dumps({**noted, "key": asked["key"], "token": asked["token"]}).encode())


def _launch(record: dict, words: list, variables: dict) -> dict:
    """A process of a session of its own, which becomes the worker as soon as it is written down: killed here, none is left."""
    log = os.open(os.path.join(_base(), record["name"], LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    gate, key = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(words, variables, gate, key, log)
    os.close(gate)
    started = _note({**record, "pid": pid, "start": _process(pid)[1], "boot": _boot_id()})
    if select.select([0], [], [], 0)[0]:  # standard input stays open as long as the asker waits
        raise Failure("trouble", "nobody waits any more")
    os.write(key, b"g")
    return started


def _become(words: list, variables: dict, gate: int, key: int, log: int) -> None:
    """Never returns."""
    try:
        os.close(key)
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, target)
        if os.read(gate, 1):
            os.execve(words[0], words, variables)
    finally:
        os._exit(1)


# --- stop -----------------------------------------------------------------------------------------------------------------


def stop(asked: dict) -> dict:
    """Ends a machine's worker and all that its tasks started, and removes its folders; {"left": a path that could not be}."""
    name, folder = asked["name"], os.path.join(_base(), asked["name"])
    with _locked():
        record = _read(name)
        if record is not None:
            _refuse_another(record, asked)
            if record["host"] != asked["host"]:
                return {}
            with contextlib.suppress(OSError):  # a full disk: it must be removed all the more
                _note({**record, "deleting": True})
    left = None
    if record is not None:
        _end_all(record)
        left = _removed(record["scratch"])
    with _locked(), contextlib.suppress(FileNotFoundError):  # last of all: without it nobody would come back for the rest
        shutil.rmtree(folder)
    return {"left": left} if left else {}


def _end_all(record: dict) -> None:
    began, asked = time.monotonic(), set()
    while pids := _members(record):
        waited = time.monotonic() - began
        if waited > GRACE_SECONDS + KILL_SECONDS:
            raise Failure("trouble", f"the processes {', '.join(map(str, sorted(pids)))} cannot be ended")
        for pid, leads in pids.items():
            number = signal.SIGKILL if waited > GRACE_SECONDS else signal.SIGTERM
            if waited > GRACE_SECONDS or (leads and pid not in asked):
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, number)
                    os.kill(pid, signal.SIGCONT)
                asked.add(pid)
        time.sleep(LOOK_SECONDS)


def _members(record: dict) -> dict[int, bool]:
    """The pids of a machine's processes; True: the worker or its keeper, who end the others."""
    mark = f"{TASK_MARK}={record['scratch']}/".encode()
    keeper = [b"keeper", os.path.join(record["scratch"], record.get("worker", "")).encode()]
    table = _table()
    leading = {pid for pid in table if _words(pid, "cmdline")[-3:-1] == keeper}
    if _runs(record):
        leading.add(record["pid"])
    found = leading | {pid for pid in table if any(word.startswith(mark) for word in _words(pid, "environ"))}
    while more := {pid for pid, (parent, _, _) in table.items() if parent in found and pid not in found}:
        found |= more
    return {pid: pid in leading for pid in found if table[pid][2] != "Z"}


def _removed(path: str) -> str | None:
    """Removes a folder; its path if something in it is another user's and stays."""
    shutil.rmtree(path, ignore_errors=True)
    return path if os.path.exists(path) else None


# --- as a job -------------------------------------------------------------------------------------------------------------


def hold(folder: str) -> int:
    """The worker of a folder as a job of Slurm, from its start to its end; the exit code.

    On SIGTERM, which comes before Slurm kills, the worker ends its tasks, tells the server, and ends.
    """
    ended: list = []
    worker = None

    def end(*_) -> None:
        ended.append(True)
        if worker is not None:
            worker.stdin.close()

    signal.signal(signal.SIGTERM, end)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    order = json.loads(_content(os.path.join(folder, ORDER)))
    scratch = os.path.join(_node_scratch(order["scratch"]), order["name"])
    try:
        _refuse_unreachable(order["server"])
        _introduce({"scratch": scratch}, {**order, "token": _content(os.path.join(folder, TOKEN)).decode()})
        words = [sys.executable, order["file"], *order["words"], "--stop-with-parent", "--scratch", scratch]
        variables = {**os.environ, "SCITQ_CA": os.path.join(folder, AUTHORITY)} if order["ca"] else None
        worker = subprocess.Popen([*words, "--token-file", os.path.join(folder, TOKEN)], stdin=subprocess.PIPE, env=variables)
        if ended:  # between the signal's handler and the worker
            worker.stdin.close()
        return worker.wait()
    except Failure as failure:
        print(
            f"{socket.gethostname()} does not reach the server at {':'.join(map(str, order['server']))}: {failure.args[1]}",
            flush=True,
        )
        return 1
    finally:
        _kill_descendants()
        shutil.rmtree(scratch, ignore_errors=True)


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _node_scratch(given: str | None) -> str:
    """`$VARIABLE`s are the job's own."""
    return os.path.abspath(os.path.expandvars(given or os.environ.get("SLURM_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"))


def _kill_descendants() -> None:
    """Where Slurm follows parents, what has lost its own would stay."""
    while pids := _below(os.getpid()):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # none of them is a child yet
            os.waitpid(-1, os.WNOHANG)
        time.sleep(LOOK_SECONDS / 10)


def _below(root: int) -> set:
    table = _table()
    found, more = set(), {root}
    while more:
        more = {pid for pid, (parent, _, _) in table.items() if parent in more | found and pid not in found}
        found |= more
    return {pid for pid in found if table[pid][2] != "Z"}


# --- processes ------------------------------------------------------------------------------------------------------------


def _runs(record: dict) -> bool:
    if record.get("boot") != _boot_id():
        return False
    found = _process(record["pid"])
    return found is not None and found[1] == record["start"] and found[2] != "Z"


def _table() -> dict:
    return {int(name): found for name in os.listdir("/proc") if name.isdigit() and (found := _process(int(name)))}


def _process(pid: int) -> tuple | None:
    """(parent, start in ticks, state), None without such a process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return int(fields[1]), int(fields[19]), fields[0].decode()


def _words(pid: int, what: str) -> list:
    """`cmdline` or `environ`; nothing of another user's process."""
    try:
        with open(f"/proc/{pid}/{what}", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
