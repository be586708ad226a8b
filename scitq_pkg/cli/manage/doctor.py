"""`scitq manage doctor`: says what is wrong here and on the server, and what to do; or that nothing is."""

from __future__ import annotations

import os
import platform
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

from ... import __version__, auth, layers, settings
from ...cache import cache_folders
from ...errors import ScitqError
from ...lib.server import Server
from ...machine import disk_problem
from ...protocol import PENDING
from ...transport import Connection, raise_for
from ...worker.home import default_scratch
from ..parser import Parser
from . import tables
from .tables import Column
from .verbs import Verb

OK, WARN, FAIL = "ok", "warn", "FAIL"
LITTLE_BYTES = 10**9  # free, where a database grows
NO_BYTES = 2**20
CLOCK_SECONDS = 5.0  # that two clocks may be apart before it confuses people
COLUMNS = (Column("check", "CHECK"), Column("level", "LEVEL"), Column("says", "SAYS"), Column("do", "DO"))
_NEEDED_FOR = {"psutil": "what a worker tells of its machine", "psycopg2": "a server on PostgreSQL"}
_SHOWN = 5  # of things that have the same fault


@dataclass(frozen=True)
class Finding:
    """What one check found, and what to do about it."""

    check: str
    level: str
    says: str
    do: str = ""


def _options(parser: Parser) -> None:
    tables.add_details_option(parser)
    parser.set_defaults(long=False, no_header=False)


def _run(arguments) -> int:
    found = list(_findings(arguments))
    if arguments.format == "table":
        for finding in found:
            print(
                tables.safe(f"{finding.level:<4}  {finding.check:<8}  {finding.says}" + (f": {finding.do}" if finding.do else ""))
            )
    else:
        tables.write(map(asdict, found), COLUMNS, arguments)
    return 1 if any(finding.level == FAIL for finding in found) else 0


def _findings(arguments) -> Iterator[Finding]:
    for check, look in (("program", _program), ("cache", _cache), ("config", _config), ("parts", _parts), ("disk", _disks)):
        yield from _guarded(check, look)
    yield from _guarded("server", lambda: _server(arguments))


def _guarded(check: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a check finds; that it cannot look is a finding too."""
    try:
        yield from look()
    except ScitqError as error:
        yield Finding(check, FAIL, str(error))
    except OSError as error:
        yield Finding(check, FAIL, f"{error.filename or 'something'} cannot be used ({error.strerror or error})")


# --- here -------------------------------------------------------------------------------------------------------------------


def _program() -> Iterator[Finding]:
    yield Finding("program", OK, f"scitq {__version__} on Python {platform.python_version()}, {layers.machine()}")


def _cache() -> Iterator[Finding]:
    """Parts of the one file are unpacked there, and run."""
    folder = next(cache_folders(), None)
    if folder is None:
        yield Finding("cache", FAIL, "there is no folder for what is unpacked", "set SCITQ_CACHE to a folder of yours")
        return
    with tempfile.NamedTemporaryFile(dir=folder):
        if os.statvfs(folder).f_flag & os.ST_NOEXEC:
            yield Finding(
                "cache", WARN, f"from {folder} nothing can be run (noexec)", "set SCITQ_CACHE to another folder of yours"
            )
        else:
            yield Finding("cache", OK, f"{folder} can be written")


def _config() -> Iterator[Finding]:
    """Where the tokens are: nobody else may write there, or read them."""
    directory = auth.config_directory()
    try:
        mode = stat.S_IMODE(os.stat(directory).st_mode)
    except FileNotFoundError:
        yield Finding("config", OK, f"{directory} is not there yet: the first server of this user makes it")
        return
    if mode & 0o022:
        yield Finding("config", FAIL, f"others can write to {directory} (mode {mode:o})", f"chmod 700 {directory}")
    tokens = auth.load_tokens()
    yield Finding("config", OK, f"{directory} (mode {mode:o}) holds {len(tokens)} token{'' if len(tokens) == 1 else 's'}")


def _parts() -> Iterator[Finding]:
    """The native ones of the heart: pure ones are always there."""
    for name in _NEEDED_FOR:
        try:
            yield Finding("parts", OK, f"{name} {import_module(name).__version__.split()[0]}")
        except ImportError as error:
            yield Finding(
                "parts", WARN, f"without {name} there is not {_NEEDED_FOR[name]} ({error})", f"pip install {name}, if needed"
            )


def _disks() -> Iterator[Finding]:
    """Where a server or a worker of this user keeps things by default; only what is there."""
    data = settings.load({}).data
    if (data / "scitq.db").exists():
        free = _free_bytes(data)
        level = FAIL if free < NO_BYTES else WARN if free < LITTLE_BYTES else OK
        yield Finding(
            "disk", level, f"{tables.byte_size(free)} free for the database in {data}", "make room there" if level != OK else ""
        )
    scratch = Path(default_scratch())
    if scratch.exists():
        problem = disk_problem(str(scratch))
        room = f"{tables.byte_size(_free_bytes(scratch))} free for workers in {scratch}"
        yield Finding("disk", WARN, problem) if problem else Finding("disk", OK, room)


def _free_bytes(path: Path) -> int:
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


# --- the server -------------------------------------------------------------------------------------------------------------


def _server(arguments) -> Iterator[Finding]:
    once = {"timeout": arguments.timeout, "connect_timeout": 0.0, "get_timeout": 0.0, "put_timeout": 0.0}
    with Connection(arguments.server, timeout=arguments.timeout) as connection:
        answer = connection.request("GET", "/health/ready")
        reasons = (
            raise_for(answer).json()["reasons"] if answer.status != 503 else answer.json().get("reasons", ["it is not ready"])
        )
        yield Finding("server", OK, f"{connection.url} answers")
    for reason in reasons:
        yield Finding("server", FAIL, f"it takes no work now: {reason}")
    with Server(arguments.server, token=arguments.token, **once) as server:
        yield from _guarded("token", lambda: _told_by(server))


def _told_by(server: Server) -> Iterator[Finding]:
    before = time.time()
    info = server.info()
    ahead = (before + time.time()) / 2 - info["time_at"].timestamp()
    yield _version("the server", info["version"], info["database"])
    yield Finding("token", OK, f"you are {info['you']['name']}, {info['you']['role']}")
    if abs(ahead) > CLOCK_SECONDS:
        where = "ahead of" if ahead > 0 else "behind"
        yield Finding(
            "clock", WARN, f"this clock is {tables.short_duration(abs(ahead))} {where} the server's", "the server's counts"
        )
    else:
        yield Finding("clock", OK, f"{abs(ahead):.1f} s from the server's")
    workers = server.workers()
    yield from _workers(workers, server.url)
    yield from _batches(server.batches(), workers)
    yield from _clouds(server.client.get("/attention"))


def _version(whose: str, version: str, more: str) -> Finding:
    if version == __version__:
        return Finding("version", OK, f"{whose} is scitq {version}, {more}")
    return Finding("version", WARN, f"{whose} is scitq {version}, this is {__version__}", "use the same on both")


def _workers(workers: list[dict], url: str) -> Iterator[Finding]:
    if not workers:
        yield Finding("workers", WARN, "there is none", f"scitq worker {url}")
        return
    here = [worker for worker in workers if worker["state"] in ("online", "draining")]
    slots = sum(worker["concurrency"] for worker in here)
    yield Finding(
        "workers", OK if here else WARN, f"{len(here)} of {len(workers)} online, {slots} slot{'' if slots == 1 else 's'}"
    )
    for worker in workers:
        if worker["state"] == "unfit":
            yield Finding("workers", FAIL, f"{worker['name']} takes no work", worker["problem"])
    if offline := [worker["name"] for worker in workers if worker["state"] == "offline"]:
        yield Finding(
            "workers", WARN, f"offline: {_some(offline)}", "start them again, or forget them with scitq manage worker delete"
        )
    if older := [worker["name"] for worker in here if worker["version"] not in (None, __version__)]:
        yield Finding(
            "workers", WARN, f"of another version than this, {__version__}: {_some(older)}", "start them from the same file"
        )


def _batches(batches: list[dict], workers: list[dict]) -> Iterator[Finding]:
    """Those whose tasks nobody takes."""
    slots: dict[str, int] = {}
    for worker in workers:
        if worker["state"] == "online":
            slots[worker["batch"]] = slots.get(worker["batch"], 0) + worker["concurrency"]
    stuck = 0
    for batch in batches:
        name, pending = batch["name"], batch["counts"].get(PENDING, 0)
        wait = f"{pending} task{'' if pending == 1 else 's'} of {name} wait{'s' if pending == 1 else ''}"
        if pending and batch["stopped"]:
            yield Finding("batches", WARN, f"{wait}, and it is stopped", f"scitq manage batch go {name}")
        elif pending and not slots.get(name):
            what = "its workers have no slots" if name in slots else "no worker is there for them"
            todo = (
                f"scitq manage worker update WORKER -C N, or -b {name}"
                if name in slots
                else f"scitq manage worker update WORKER -b {name}"
            )
            yield Finding("batches", WARN, f"{wait}, and {what}", todo)
        else:
            continue
        stuck += 1
    if not stuck:
        yield Finding("batches", OK, "no task waits for a worker that is not there")


def _clouds(told: dict) -> Iterator[Finding]:
    """What is wrong with providers and their machines; nothing where there is nothing to say."""
    for provider in told["providers"]:
        yield Finding("providers", WARN, f"{provider['name']} is in trouble", tables.safe(provider["trouble"]))
    if strange := [machine["name"] for machine in told["machines"]]:
        todo = "look at scitq manage machine list --unknown, and delete them there"
        yield Finding("machines", WARN, f"nobody asked for {_some(strange)}, which cost", todo)
    if failed := [f"{job['id']} ({job['kind']})" for job in told["jobs"]]:
        yield Finding("jobs", WARN, f"failed or tried again: {_some(failed)}", "scitq manage job log ID tells more")
    if spent := [batch["name"] for batch in told["budgets"]]:
        told = f"spent, so that nothing is deployed: {_some(spent)}"
        yield Finding("budgets", WARN, told, "scitq manage batch update --budget")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


VERBS = (Verb("doctor", "", "says what is wrong here and on the server, and what to do", _options, _run, local=True),)
