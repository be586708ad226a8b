"""A worker from its start to its end: its directory, its registration, its keeper, its conversation, its signals."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import signal
import socket
import sys
from dataclasses import dataclass

from .. import machine, program
from ..address import server_url
from ..auth import find_token
from ..errors import NotAllowed, NotFound, ScitqError, Unavailable, Unreachable
from ..protocol import API, BUILD_DIGITS
from ..runner import KeeperGone, Runner
from ..transport import Connection, not_ours, raise_for
from . import eviction
from .errand import Errand
from .exchange import Exchange
from .home import Home, default_scratch
from .upgrade import children, reap
from .workload import Workload

LOOK_SECONDS = 1.0  # between looks at the output of what runs
MEASURE_SECONDS = 10.0
LAST_WORDS_SECONDS = 3.0
KILL_SECONDS = 4.0  # for commands that are killed because the worker ends
# In the worker's file, while it goes on as another one file that has not registered yet: its sum, how often.
BECOMING = "becoming"
BECOMES_TIMES = 2  # somebody may have killed the first


@dataclass(slots=True)
class Options:
    """How a worker is to be."""

    server: str | None = None  # as `address.server_url` takes it
    token: str | None = None
    name: str | None = None  # default: the host's
    scratch: str | None = None  # default: `home.default_scratch()`
    concurrency: int | None = None  # default: one a processor
    prefetch: int = 0
    batch: str | None = None
    permanent: bool | None = None
    flavor: str | None = None  # what kind of machine it is, for recruiters
    provider: str | None = None
    region: str | None = None
    engine: str | None = None  # of containers: docker, podman, apptainer, or the path of one
    stop_with_parent: bool = False  # end, and end all commands, when standard input closes


class Service:
    """One worker process."""

    def __init__(self, options: Options, home: Home):
        self.options, self.home = options, home
        token = find_token(options.server, options.token)
        self.connection = Connection(options.server, token or _own_token(home, server_url(options.server)))
        self.concurrency = machine.cpu_count() if options.concurrency is None else options.concurrency
        self.meter = machine.Meter(home.path, self._note)
        self.stop = asyncio.Event()
        self.kill = False
        self._errand = Errand("registers")
        self.became: str | None = None  # the one file to go on as
        self._became = ("", 0)  # what it went on as without having registered since, and how often
        self._broken: str | None = None  # the same, when that was often enough
        self._upgraded = program.was_upgraded()
        self._inherited = children() if self._upgraded else []
        self.workload: Workload
        self.exchange: Exchange

    async def run(self) -> int:
        """Until a signal, the end of the parent, or a refusal of the server; the exit code. Raises ScitqError."""
        self._heed_signals()
        worker = await self._unless_stopped(self._register())
        if worker is None:
            return 0
        self.id = worker["id"]
        label = hashlib.sha256(self.home.read()["key"].encode()).hexdigest()[:16]  # by which its containers are found again
        self.workload = Workload(
            self.home.executions, self.concurrency, lambda now: self.exchange.changed(now), label, self.options.engine
        )
        self.exchange = Exchange(
            self.connection.url, worker["id"], worker["token"], self.workload, self.meter, self._note, self._broken
        )
        self.workload.cargo.lookup = self.exchange.cached
        self.workload.adopt()
        self.workload.runner = Runner(self.home.path, self.workload.hear)
        try:
            await self._unless_stopped(self._greet_keeper())
            print(self._ready(worker), flush=True)
            if self._upgraded:
                self.workload.runner.renew()
            watch = eviction.watch(self._evicted)
            self.exchange.start()
            await self._work()
            if watch is not None:
                watch.cancel()
            return await self._end()
        finally:
            self.workload.containers.close()
            await self.workload.cargo.close()
            self.workload.runner.close()

    # --- start ----------------------------------------------------------------------------------------------------

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        if self.options.stop_with_parent:
            loop.add_reader(0, self._read_parent)

    def _read_parent(self) -> None:
        """Standard input is the parent's pipe: it says nothing, and ends with the parent."""
        try:
            alive = bool(os.read(0, 4096))
        except OSError:
            alive = False
        if not alive:
            asyncio.get_running_loop().remove_reader(0)
            self.kill = True
            self.stop.set()

    async def _unless_stopped(self, what):
        """The result, or None when the worker is to stop before it is there."""
        task, stop = asyncio.ensure_future(what), asyncio.ensure_future(self.stop.wait())
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            return None
        return task.result()

    async def _register(self) -> dict:
        """The worker as the server knows it, with its own token. Waits for a server that is away, saying so once."""
        noted = self.home.read()
        noted.setdefault("key", os.urandom(24).hex())
        self.home.write(noted)
        self._became = noted.pop(BECOMING, self._became)
        wanted, times = self._became
        self._broken = wanted if times >= BECOMES_TIMES and program.build() != wanted[:BUILD_DIGITS] else None
        pause, said = 0.25, False
        while True:
            try:
                worker = await self._errand.do(self._ask_to_register, noted["key"])
                break
            except (Unreachable, Unavailable) as error:
                if isinstance(error, Unreachable) and " not a scitq server " in error.message:
                    raise
                if not said:
                    self._note(f"{error.message}; waiting for it")
                said = True
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret: it spreads the workers
            pause = min(2 * pause, 10.0)
        self._take_identity(noted, worker)
        if why := program.settle_upgrade():
            self._note(why)
        return worker

    def _ask_to_register(self, key: str) -> dict:
        body = {
            "name": self.home.name, "key": key, "hostname": socket.gethostname(), "concurrency": self.concurrency,
            "prefetch": self.options.prefetch, "batch": self.options.batch, "permanent": self.options.permanent,
            "cpus": machine.cpu_count(), "memory_bytes": machine.memory_bytes(),
            "flavor": self.options.flavor, "provider": self.options.provider, "region": self.options.region,
        }  # fmt: skip
        body = {name: value for name, value in body.items() if value is not None}
        answer = raise_for(self.connection.request("POST", f"{API}/workers", body))
        worker = answer.json()
        if not isinstance(worker, dict) or "id" not in worker or "token" not in worker:
            raise not_ours(answer, "it does not register workers")
        return worker

    def _take_identity(self, noted: dict, worker: dict) -> None:
        """Notes who the worker is; executions of another server's worker are not this one's to report."""
        identity = [worker["id"], worker.get("registered_at") or worker.get("created_at")]
        if noted.get("identity") not in (None, identity):
            self._note("this is another worker than the one that used this directory before: what that one left is thrown away")
            self.home.discard_executions()
        self.home.write(
            {**noted, "identity": identity, "id": worker["id"], "token": worker["token"], "server": self.connection.url}
        )

    async def _greet_keeper(self) -> None:
        while True:
            try:
                await self.workload.runner.open()
                break
            except KeeperGone as error:
                self._note(f"{error.message}; trying again")
                await asyncio.sleep(2.0)
        await self.workload.greeted.wait()

    def _ready(self, worker: dict) -> str:
        slots, batch = worker.get("concurrency", self.concurrency), worker.get("batch")
        name = worker.get("name", self.home.name)
        return f"worker {name} (id {worker['id']}) of {self.connection.url}: {slots} slot{'s' * (slots != 1)}, batch {batch}"

    def _note(self, sentence: str) -> None:
        print(f"scitq worker: {sentence}", file=sys.stderr, flush=True)

    # --- work and end ---------------------------------------------------------------------------------------------

    def _evicted(self, why: str) -> None:
        self._note(f"{why}: nothing more is started")
        self.exchange.evicted = self.workload.evicted = why
        self.exchange.changed(True)

    async def _work(self) -> None:
        looks = 0
        ends = [asyncio.ensure_future(end.wait()) for end in (self.stop, self.exchange.over, self.exchange.upgrade.ready)]
        while not any(end.done() for end in ends):
            await asyncio.wait(ends, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            self.workload.look()
            looks += 1
            if looks % int(MEASURE_SECONDS / LOOK_SECONDS) == 0:
                self.workload.measure()
                self.workload.prune()
                reap(self._inherited)
        for end in ends:
            end.cancel()

    async def _end(self) -> int:
        if self.exchange.upgrade.path and not (self.stop.is_set() or self.exchange.over.is_set()):
            return await self._make_way()
        self.workload.stopping = True
        fatal = await self._why_refused(self.exchange.fatal)
        if self.kill or isinstance(fatal, NotFound):
            self.workload.kill_all()
            await self._until_ended()
        await self.exchange.stop(LAST_WORDS_SECONDS)
        left = len(self.workload.running)
        if left:
            self._note(
                f"{left} command{'s go' if left > 1 else ' goes'} on without the worker; start it again to go on reporting"
            )
        if fatal is not None:
            raise fatal
        return 0

    async def _make_way(self) -> int:
        """For itself, as another one file: like the end, but that nobody is told that it ends."""
        self.became, wanted = self.exchange.upgrade.path, self.exchange.upgrade.wanted
        times = self._became[1] if self._became[0] == wanted else 0
        with contextlib.suppress(NotAllowed):  # the disk is full: one that ends at once would be tried for ever
            self.home.write({**self.home.read(), BECOMING: [wanted, times + 1]})
        await self.exchange.stop(LAST_WORDS_SECONDS)
        self._note(f"goes on as {self.became}")
        return 0

    async def _why_refused(self, fatal: Exception | None) -> Exception | None:
        """A deleted worker's token is not known any more; whether it was deleted, the user's own token finds out."""
        if not isinstance(fatal, NotAllowed):
            return fatal
        with contextlib.suppress(ScitqError):  # then nothing more is known
            try:
                await self._errand.do(self._ask_for_itself)
            except NotFound:
                return NotFound(
                    f"the worker {self.home.name} was deleted from {self.connection.url}: start it again to register it anew"
                )
        return fatal

    def _ask_for_itself(self) -> None:
        raise_for(self.connection.request("GET", f"{API}/workers/{self.id}", timeout=5.0))

    async def _until_ended(self) -> None:
        with contextlib.suppress(asyncio.TimeoutError):  # what not even SIGKILL ends is left to the keeper
            await asyncio.wait_for(self._all_ended(), KILL_SECONDS)

    async def _all_ended(self) -> None:
        while any(one.occupies for one in self.workload.executions.values()):
            await asyncio.sleep(0.02)


def serve(options: Options) -> int:
    """Runs a worker; the exit code. Raises ScitqError."""
    home = Home(
        options.scratch or default_scratch(), socket.gethostname().partition(".")[0] if options.name is None else options.name
    )

    while True:
        service = Service(options, home)
        try:
            code = asyncio.run(service.run())
        finally:
            sys.stdout.flush()
        if service.became is None or service.stop.is_set():
            return code
        try:
            program.upgrade(service.became)
        except OSError as error:
            print(f"scitq worker: {service.became} cannot be started: {error.strerror}", file=sys.stderr)


def _own_token(home: Home, url: str) -> str | None:
    """The token that this very worker was given, by this server or whoever made its machine."""
    noted = home.read()
    return noted.get("token") if noted.get("server") and server_url(noted["server"]) == url else None
