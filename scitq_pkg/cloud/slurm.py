"""Workers as jobs of a Slurm cluster. The server runs where sbatch works, and shares a directory with the nodes.

    <directory>/<machine>/machine.json   whose it is, its flavor, its job       job.log
                          start.json, token, ca.pem    0600: how its worker is started
                          job.py                       what runs as the job (`onhost.hold`)
    <directory>/files/<sum>/scitq.pyz    the one file

A job is known by its name, the machine's, and its comment, the tag. Of jobs of one name Slurm runs one at a time (`singleton`),
so a kill between a question to Slurm and its answer never makes two workers. A machine is there as long as its folder or job is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from ..address import is_loopback, split_url
from ..durable import write_whole
from ..errors import InvalidRequest, nearest
from . import keys
from .onhost import AUTHORITY, ORDER, RECORD, TOKEN
from .provider import (
    BROKEN,
    CREATING,
    DELETING,
    QUEUED,
    UP,
    CloudRefused,
    CloudTrouble,
    Flavor,
    Machine,
    NoRoom,
    Order,
    Tell,
    is_of,
)
from .ssh import PYTHONS, TEST_PYTHON, one_file, own_url, worker_words

CALL_SECONDS = 60.0
GONE_SECONDS = 600.0
POLL_SECONDS = 0.2
NOTICE_SECONDS = 60  # before the time limit the worker is told to end
FILES = "files"
_KEYS = {
    "kind": str, "directory": str, "flavors": dict, "options": list, "scratch": str, "python": str, "maximum": (int, 1),
    "url": str,
    "currency": str,
}  # fmt: skip
_FLAVOR_KEYS = {
    "cpu": (int, 1), "ram": (float, 0), "disk": (float, 0), "gpus": (int, 0), "gpu": str, "gpumem": (float, 0),
    "partition": str, "time": str, "options": list, "price": (float, 0),
}  # fmt: skip
_OURS = (
    "job-name",
    "comment",
    "output",
    "error",
    "dependency",
    "requeue",
    "no-requeue",
    "export",
    "array",
    "nodes",
    "ntasks",
    "wrap",
)
_WAITS = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
_RUNS = ("RUNNING", "RESIZING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED")
_ENDS = ("COMPLETING",)
_SCRIPT = """#!/bin/sh
for p in {pythons}; do
  {test} && exec "$p" -I {job} {folder}
done
echo "$(hostname) has no Python 3.10 or newer: say where it is (python of providers.{name})"
exit 1
"""
_ROOM = re.compile("QOS|policy|MaxSubmit|submit limit|temporarily unable to accept|Limit reached", re.IGNORECASE)
_TROUBLE = re.compile(
    "contact slurm|controller|timed out|authentication|Connection refused|Zero Bytes|Communication", re.IGNORECASE
)
_GB, _MIB = 1e9, 2**20


@dataclass(frozen=True, slots=True)
class Job:
    """A line of squeue."""

    id: str
    state: str
    reason: str
    node: str
    name: str
    tag: str

    @property
    def lives(self) -> bool:
        """Whether something of it may run, or will."""
        return self.state in _WAITS or self.state in _RUNS or self.state in _ENDS


@dataclass(frozen=True, slots=True)
class Kind:
    """A flavor and the options of sbatch that ask for it."""

    flavor: Flavor
    options: list[str] = field(default_factory=list)


class Slurm:
    """A cluster as a provider."""

    def __init__(self, name: str, config: Mapping, tag: str, tell: Tell):
        keys.checked(f"providers.{name}", config, _KEYS)
        self.name, self._tag, self._tell = name, tag, tell
        self._config = config
        self._address = own_url(config, name)
        self._folder = Path(config.get("directory") or "~/.scitq/slurm").expanduser().absolute()
        self._options = _options(config.get("options"), f"providers.{name}.options")
        self._configured = {str(key): self._kind(str(key), values) for key, values in (config.get("flavors") or {}).items()}
        if not re.fullmatch(r"[A-Za-z0-9_./+-]+", config.get("python") or "python3"):
            raise InvalidRequest("the path of a Python is needed, of letters, digits and ./_+-", field=f"providers.{name}.python")

    # --- what it is asked ---------------------------------------------------------------------------------------------

    def check(self, flavor: str, region: str, number: int) -> None:
        kind = self._find(flavor, region)
        one_file()
        room = self._room()
        if room is not None and number > room:
            raise NoRoom(
                f"provider {self.name} has room for {room} more workers, not for {number}: `maximum` is {self._config['maximum']}"
            )
        self._ask(["sbatch", "--test-only", *self._asking(kind)], "#!/bin/sh\n")

    def create(self, order: Order) -> Machine:
        url = self._url(order)
        kind = self._find(order.flavor, order.region)
        folder = self._folder / order.name
        with self._locked():
            job = self._jobs().get(order.name)
            if job is None or not job.lives:
                record = self._reserve(folder, order)
                self._fill(folder, order, url)
                job = Job(self._submit(kind, folder), "PENDING", "", "", order.name, self._tag)
                _write(folder / RECORD, json.dumps({**record, "job": job.id, "file": _json(folder / ORDER)["file"]}))
                self._tell(f"job {job.id} is submitted")
        return self._machine(order.name, _read(folder), job)

    def list(self) -> Iterable[Machine]:
        jobs, records = self._jobs(), {record["name"]: record for record in self._records()}
        names = {name for name, record in records.items() if record["tag"] == self._tag}
        names |= {name for name, job in jobs.items() if job.lives and name not in records}
        names |= {name for name in self._folders() if is_of(self._tag, name) and name not in records}  # killed before the record
        return [self._machine(name, records.get(name), jobs.get(name)) for name in sorted(names)]

    def delete(self, machine: Machine) -> None:
        folder = self._folder / machine.name
        record = _read(folder)
        if record is not None and record["tag"] != self._tag:
            raise CloudRefused(f"{machine.name} of provider {self.name} is another server's")
        deadline = time.monotonic() + GONE_SECONDS
        told: set[str] = set()
        while there := [job for job in self._all_jobs() if job.name == machine.name and job.lives]:
            new = {job.id for job in there if job.state not in _ENDS} - told
            if new:
                self._tell(f"cancelling job {', '.join(sorted(new))}")
                self._ask(["scancel", *sorted(new)])
                told |= new
            if time.monotonic() > deadline:
                raise CloudTrouble(f"job {there[0].id} of {machine.name} does not end: it is {there[0].state}")
            time.sleep(POLL_SECONDS)
        if folder.exists():
            with self._locked():
                shutil.rmtree(folder, ignore_errors=True)
                self._prune()
            if folder.exists():
                raise CloudTrouble(f"{folder} cannot be removed")

    def flavors(self) -> Iterator[Flavor]:
        for kind in self._kinds().values():
            yield kind.flavor

    # --- flavors ------------------------------------------------------------------------------------------------------

    def _find(self, flavor: str, region: str) -> Kind:
        if region != self.name:
            raise CloudRefused(
                f"provider {self.name} has no region {region!r:.80}{nearest(region, [self.name])}: there is {self.name}"
            )
        kinds = self._configured if flavor in self._configured else self._kinds()
        if flavor not in kinds:
            raise CloudRefused(
                f"provider {self.name} has no flavor {flavor!r:.80}{nearest(flavor, kinds)}: "
                f"its partitions and its `flavors` are {', '.join(kinds)}"
            )
        return kinds[flavor]

    def _kinds(self) -> dict[str, Kind]:
        """Those of the configuration, and for each partition one that is a whole node."""
        found, room = {}, self._room()
        for line in self._ask(["sinfo", "-h", "-o", "%R|%c|%m|%d|%G|%a"]).splitlines():
            partition, cpus, memory, disk, gres, state = line.split("|")
            gpus = re.search(r"gpu(?::([A-Za-z][\w.-]*))?:(\d+)", gres)
            flavor = Flavor(
                partition, self.name, cpu=_least(cpus), ram=round(_least(memory) * _MIB / _GB, 1),
                disk=round(_least(disk) * _MIB / _GB, 1) or None, gpus=int(gpus[2]) if gpus else 0, gpu=gpus[1] if gpus else None,
                tags="G" if gpus else "", eviction=0.0, available=room if state == "up" else 0,
            )  # fmt: skip
            options = [f"--partition={partition}", f"--cpus-per-task={flavor.cpu}", f"--mem={_least(memory)}M"]
            found[partition] = Kind(flavor, options + ([f"--gres=gpu:{flavor.gpus}"] if gpus else []))
        for name, kind in self._configured.items():
            values = {key: getattr(kind.flavor, key) for key in Flavor.__slots__}
            found[name] = Kind(Flavor(**{**values, "available": room}), kind.options)
        return found

    def _kind(self, name: str, values: Mapping) -> Kind:
        at = f"providers.{self.name}.flavors.{name}"
        if not isinstance(values, Mapping) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", name):
            raise InvalidRequest("wants a name of letters and digits, and {cpu: 4, ram: 16} behind it", field=at)
        keys.checked(at, values, _FLAVOR_KEYS)
        asked = {
            "partition": values.get("partition"), "time": values.get("time"), "cpus-per-task": values.get("cpu"),
            "mem": f"{int(values['ram'] * _GB / _MIB)}M" if values.get("ram") else None,
            "gres": ":".join(filter(None, ("gpu", values.get("gpu"), str(values["gpus"])))) if values.get("gpus") else None,
        }  # fmt: skip
        sizes = {key: values.get(key) for key in ("cpu", "ram", "disk", "gpu", "gpumem", "price")}
        flavor = Flavor(
            name, self.name, **sizes, gpus=values.get("gpus") or 0, tags="G" if values.get("gpus") else "",
            currency=self._config.get("currency"), eviction=0.0,
        )  # fmt: skip
        words = [f"--{option}={value}" for option, value in asked.items() if value is not None]
        return Kind(flavor, words + _options(values.get("options"), f"{at}.options"))

    def _room(self) -> int | None:
        if self._config.get("maximum") is None:
            return None
        return max(0, self._config["maximum"] - sum(record["tag"] == self._tag for record in self._records()))

    # --- machines -----------------------------------------------------------------------------------------------------

    def _machine(self, name: str, record: Mapping | None, job: Job | None) -> Machine:
        told = {"id": None, "flavor": record and record["flavor"]}
        if job is None or not job.lives:
            if job is None and "job" not in (record or {}):
                return Machine(name, self.name, CREATING, **told)
            how = job.state if job is not None else "unknown to Slurm by now"
            said = _last_line(self._folder / name / "job.log")
            return Machine(name, self.name, BROKEN, **told, message=f"its job has ended ({how}){': ' * bool(said)}{said}")
        if job.state in _WAITS:
            return Machine(
                name,
                self.name,
                CREATING,
                **told,
                message=f"its job waits{': ' * bool(job.reason)}{job.reason}",
                extra={QUEUED: job.reason},
            )
        return Machine(name, self.name, DELETING if job.state in _ENDS else UP, **told, address=job.node or None)

    def _folders(self) -> list[str]:
        try:
            return sorted(os.listdir(self._folder))
        except FileNotFoundError:  # nothing was ever made
            return []
        except OSError as error:
            raise self._unusable(error) from None

    def _records(self) -> Iterator[dict]:
        for name in self._folders():
            if (record := _read(self._folder / name)) is not None:
                yield record

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time counts the machines and submits."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise self._unusable(error) from None
        finally:
            os.close(descriptor)

    def _unusable(self, error: OSError) -> CloudTrouble:
        where = error.filename or self._folder
        return CloudTrouble(
            f"{where} cannot be used: {error.strerror}: "
            f"providers.{self.name}.directory has to be yours, and shared with the nodes"
        )

    def _reserve(self, folder: Path, order: Order) -> dict:
        """The machine's record, which is there before Slurm is asked."""
        record = _read(folder)
        if record is None:
            room = self._room()
            if room == 0:
                raise NoRoom(f"provider {self.name} holds {self._config['maximum']} workers, its `maximum`")
            folder.mkdir(mode=0o700, exist_ok=True)
            record = {"name": order.name, "tag": order.tag, "flavor": order.flavor, "region": order.region}
            _write(folder / RECORD, json.dumps(record))
        elif record["tag"] != self._tag:
            raise CloudRefused(f"{order.name} of provider {self.name} is another server's")
        return record

    def _url(self, order: Order) -> str:
        url = self._address or order.start.server
        if self._address is None and is_loopback(split_url(url)[1]):
            raise CloudRefused(
                f"nodes of {self.name} cannot reach this server at {url}: start it at an address of their network (--host), "
                f"or give `url` to providers.{self.name}"
            )
        return url

    def _fill(self, folder: Path, order: Order, url: str) -> None:
        """All that the job needs."""
        start, file = order.start, one_file()
        copy = self._folder / FILES / file.sha256[:32] / "scitq.pyz"
        if not copy.exists() or copy.stat().st_size != file.size:
            copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(copy, Path(file.path).read_bytes(), 0o644)
        words = {
            "name": order.name,
            "worker": start.worker,
            "key": start.key,
            "words": worker_words(start, url),
            "file": str(copy),
        }
        words |= {"server": split_url(url)[1:3], "scratch": self._config.get("scratch") or start.scratch, "ca": bool(start.ca)}
        _write(folder / ORDER, json.dumps(words))
        _write(folder / TOKEN, start.token)
        if start.ca:
            _write(folder / AUTHORITY, start.ca)
        text = resources.files(__package__).joinpath("onhost.py").read_text()
        _write(folder / "job.py", f"{text}\n\nsys.exit(hold(sys.argv[1]))\n")

    def _prune(self) -> None:
        """One files that no machine uses, and what was half written of them by somebody who was killed."""
        used = {record.get("file") for record in self._records()}
        for folder in self._folder.glob(f"{FILES}/*"):
            if str(folder / "scitq.pyz") not in used:
                shutil.rmtree(folder)

    # --- Slurm --------------------------------------------------------------------------------------------------------

    def _submit(self, kind: Kind, folder: Path) -> str:
        """The id of the job."""
        pythons = self._config.get("python") or PYTHONS
        job, where = shlex.quote(str(folder / "job.py")), shlex.quote(str(folder))
        script = _SCRIPT.format(pythons=pythons, test=TEST_PYTHON, job=job, folder=where, name=self.name)
        own = [
            f"--job-name={folder.name}", f"--comment={self._tag}", f"--output={str(folder / 'job.log').replace('%', '%%')}",
            "--chdir=/", "--dependency=singleton", "--no-requeue", "--export=NONE", "--open-mode=append",
        ]  # fmt: skip
        return self._ask(["sbatch", "--parsable", *self._asking(kind), *own], script).strip().partition(";")[0]

    def _asking(self, kind: Kind) -> list[str]:
        """What is given later wins."""
        return [f"--signal=B:TERM@{NOTICE_SECONDS}", *kind.options, *self._options, "--nodes=1", "--ntasks=1"]

    def _jobs(self) -> dict[str, Job]:
        """Those that carry the tag, by name; of several of one name one that lives, and the oldest."""
        found: dict[str, Job] = {}
        for job in self._all_jobs():
            known = found.get(job.name)
            if known is None or (job.lives and not known.lives):
                found[job.name] = job
        return found

    def _all_jobs(self) -> list[Job]:
        user = pwd.getpwuid(os.geteuid()).pw_name
        jobs = []
        for line in self._ask(["squeue", "-h", "-t", "all", "-u", user, "-S", "i", "-o", "%i|%T|%r|%N|%j|%k"]).splitlines():
            *first, rest = line.split("|", 4)
            name, _, tag = rest.partition("|")
            if tag.strip() == self._tag:
                jobs.append(Job(*first, name, tag.strip()))
        return jobs

    def _ask(self, words: list[str], script: str = "") -> str:
        """What a command of Slurm says. Raises CloudTrouble, NoRoom, CloudRefused."""
        try:
            done = subprocess.run(words, input=script, capture_output=True, text=True, errors="replace", timeout=CALL_SECONDS)
        except FileNotFoundError:
            raise CloudRefused(
                f"{words[0]} is not there where the server runs: "
                "install the commands of Slurm, or start the server on a login node"
            ) from None
        except subprocess.TimeoutExpired as error:
            said = _told((error.stderr or b"").decode(errors="replace"))
            raise (NoRoom if _ROOM.search(said) else CloudTrouble)(
                f"{words[0]} does not answer: {said or 'it says nothing'}"
            ) from None
        if done.returncode == 0:
            return done.stdout
        said = _told(done.stderr) or f"exit code {done.returncode}"
        kind = NoRoom if _ROOM.search(said) else CloudTrouble if _TROUBLE.search(said) else CloudRefused
        raise kind(f"{words[0]} of provider {self.name}: {said}")


def _options(given, at: str) -> list[str]:
    options = keys.texts(given)
    for option in options:
        if not option.startswith("-"):
            raise InvalidRequest(
                f'{option!r:.80} is no option of sbatch: write each as one word, as in ["--time=8:00:00"]', field=at
            )
        if option.lstrip("-").partition("=")[0] in _OURS:
            raise InvalidRequest(f"{option.partition('=')[0]} is chosen by scitq: leave it out", field=at)
    return options


def _least(text: str) -> int:
    """`64+`: at least 64."""
    return int(text.strip().rstrip("+") or 0)


def _told(text: str) -> str:
    """The lines of an error in one, without the names of programs before them."""
    lines = [re.sub(r"^(sbatch|squeue|sinfo|scancel|slurm_\w+): (error|fatal): ", "", line.strip()) for line in text.splitlines()]
    return "; ".join(dict.fromkeys(filter(None, lines)))[:400]


def _write(path: Path, text: str) -> None:
    write_whole(path, text.encode(), 0o600)


def _json(path: Path) -> dict:
    return json.loads(path.read_text())


def _read(folder: Path) -> dict | None:
    try:
        return _json(folder / RECORD)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise CloudTrouble(f"{folder / RECORD} cannot be read: {error}") from None


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace")[-4096:].split("\n")
    except OSError:  # the job has said nothing
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
