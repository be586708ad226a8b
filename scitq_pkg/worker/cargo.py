"""The data of executions: inputs and resources come before the command starts, outputs go after it ended.

The courier process does the moving (`scitq_pkg/courier.py`); here is who waits for what, how often it is tried, what it means.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import subprocess
from collections.abc import Awaitable, Callable

from .. import program
from ..container import EngineAway
from ..errors import TransferFailed
from ..execution import Execution
from ..resources import Resources
from ..runner import inherited_environment
from .containers import Containers
from .errand import Errand

LOG_FILE = "courier.log"
ROUNDS = 6  # of a transfer that may succeed later; each of them tries for a while itself
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 300.0
IDLE_SECONDS = 60.0  # without work the courier ends
_LINE_BYTES = 2**30  # of an answer, which may name every file of a folder
_MAKES_THE_RESULT = ("command", "shell", "container", "container_options", "env", "workdir")
ENOUGH_SHARE = 0.1  # of the scratch disk: with less, resources that nobody uses go


class Cargo:
    """Moves the data of one worker's executions. `done(execution)` is called when one is ready to run, or has ended.

    `lookup(key)` asks the server for the outputs of an equal task that succeeded (see `queue.cached`), None if there is none.
    """

    def __init__(self, home: str, containers: Containers, done: Callable[[Execution], None]):
        self._done, self._containers = done, containers
        self.lookup: Callable[[str], Awaitable[dict | None]] | None = None
        self._errand = Errand("links resources")
        self._resources = Resources(os.path.join(home, "resources"))
        self._courier = _Courier(os.path.join(home, LOG_FILE))
        self._tasks: dict[int, asyncio.Task] = {}
        self._coming: dict[str, asyncio.Task] = {}  # resources, by URI
        self._using: dict[int, set[str]] = {}

    def bring(self, one: Execution) -> None:
        """Begins to fetch what an execution needs, if there is anything."""
        if not one.fetched and one.id not in self._tasks:
            self._using[one.id] = set(one.task.get("resource") or ())
            self._begin(one, self._bring(one))

    def send(self, one: Execution) -> None:
        """Begins to send what an execution has left in its output folder."""
        self._begin(one, self._send(one))

    def drop(self, one: Execution) -> None:
        """Whatever is moved for it is not wanted any more."""
        self._using.pop(one.id, None)
        if task := self._tasks.pop(one.id, None):
            task.cancel()

    def prune(self) -> None:
        """Removes resources that nobody uses when the disk fills."""
        used = set(self._coming).union(*self._using.values())
        self._errand.post(self._resources.prune, used, ENOUGH_SHARE)

    async def close(self) -> None:
        """Ends the courier; what it has not finished begins again with the next worker."""
        for task in [*self._tasks.values(), *self._coming.values()]:
            task.cancel()
        await self._courier.close()

    def _begin(self, one: Execution, work) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[one.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(one.id, None) if self._tasks.get(one.id) is task else None)

    # --- before the command -------------------------------------------------------------------------------------------

    async def _bring(self, one: Execution) -> None:
        seconds = one.task.get("download_timeout")
        try:
            if one.may_reuse and await asyncio.wait_for(self._reuse(one), seconds):
                self._done(one)
                return
            await asyncio.wait_for(self._fetch(one), seconds)
            if one.cache_key and one.cache_key != await self._key_if_told(one):
                one.cache_key = None  # something changed while it was fetched: what comes of it is no known thing's
        except EngineAway as error:
            one.give_back(str(error))
        except (TransferFailed, ValueError) as error:
            one.fetch_failed(str(error))
        except (asyncio.TimeoutError, OSError) as error:
            by_us = isinstance(error, asyncio.TimeoutError) and getattr(error, "errno", None) is None  # a disk may, too
            if by_us and seconds is not None:
                one.fetch_failed(f"its inputs and resources took longer than {seconds:g} s (download_timeout)")
            else:
                one.give_back(f"its worker could not put its inputs in place: {error.strerror}: {error.filename}")
        else:
            one.fetched = True
        self._done(one)

    async def _fetch(self, one: Execution) -> None:
        """All of it at once; the first that fails ends the others."""
        inputs = [self._insist(one, "input", get=uri, to=one.folder("input")) for uri in one.task.get("input") or ()]
        if image := one.task.get("container"):
            inputs.append(_persist("container", lambda: self._containers.have(image)))
        uris = list(dict.fromkeys(one.task.get("resource") or ()))
        await _all([*inputs, *(self._have(one, uri) for uri in uris)])
        for uri in uris:
            await self._errand.do(self._resources.show, uri, one.folder("resource"))

    async def _have(self, one: Execution, uri: str) -> None:
        """Waits until a resource is here; the first who asks fetches it for all."""
        if uri not in self._coming:
            task = self._coming[uri] = asyncio.get_running_loop().create_task(self._get_resource(one, uri))
            task.add_done_callback(lambda task: self._came(uri, task))
        await asyncio.shield(self._coming[uri])

    def _came(self, uri: str, task: asyncio.Task) -> None:
        self._coming.pop(uri, None)
        if not task.cancelled():
            task.exception()  # whoever still waits is told; nobody may

    async def _get_resource(self, one: Execution, uri: str) -> None:
        if await self._errand.do(self._resources.has, uri):
            return
        before = await self._identity_if_told(uri)
        await self._insist(one, "resource", get=uri, to=await self._errand.do(self._resources.coming, uri))
        same = before is not None and before == await self._identity_if_told(uri)
        await self._errand.do(self._resources.keep, uri, before if same else None)

    # --- instead of the command ---------------------------------------------------------------------------------------

    async def _reuse(self, one: Execution) -> bool:
        """Takes the outputs of an equal task, if there is one and they are as it left them; whether it did."""
        try:
            one.cache_key = await self._key(one)
            found = one.cache_key and self.lookup and await self.lookup(one.cache_key)
            if not found:
                return False
            job = {"reuse": found["outputs"], "at": found["output"], "to": one.task["output"]}
            one.transfers.append(_line("reuse", await self._courier.do(job)))
        except TransferFailed:
            return False  # then it runs, and what is wrong is told there
        one.has_reused(found["execution_id"])
        return True

    async def _key(self, one: Execution) -> str | None:
        """A sum of what the command is and of what it runs on; None where the content of a URI cannot be known."""
        uris = [*(one.task.get("input") or ()), *(one.task.get("resource") or ())]
        identities = [await self._identity(uri) for uri in one.task.get("input") or ()]
        for uri in one.task.get("resource") or ():
            is_here, identity = await self._errand.do(self._resources.identity, uri)
            identities.append(identity if is_here else await self._identity(uri))
        if any(files is None or any(sum is None for _, _, sum in files) for files in identities):
            return None
        words = [one.task.get(name) for name in _MAKES_THE_RESULT] + [uris, identities]
        return hashlib.blake2s(json.dumps(words, sort_keys=True).encode()).hexdigest()

    async def _key_if_told(self, one: Execution) -> str | None:
        with contextlib.suppress(TransferFailed):  # a source that does not answer any more tells nothing
            return await self._key(one)
        return None

    async def _identity(self, uri: str) -> list:
        """Path, size and sum of each file that a URI means. Raises TransferFailed."""
        return (await self._courier.do({"identify": [uri]}))["identities"][0]

    async def _identity_if_told(self, uri: str) -> list | None:
        with contextlib.suppress(TransferFailed):  # whatever is wrong is told by the fetch
            return await self._identity(uri)
        return None

    # --- after the command --------------------------------------------------------------------------------------------

    async def _send(self, one: Execution) -> None:
        within = None if one.is_ordinary else one.directory
        to = one.task["output"].rstrip("/") + "/"
        try:
            told = await self._insist(
                one, "output", put=one.folder("output"), to=to, within=within, identify_after=bool(one.cache_key) or None
            )
            one.outputs = told.get("outputs")
        except TransferFailed as error:
            one.has_sent(str(error))
        else:
            one.has_sent(None)
        self._done(one)

    async def _insist(self, one: Execution, noun: str, **job) -> dict:
        """Has it moved, and remembers that it was. Raises TransferFailed."""
        told = await _persist(noun, lambda: self._courier.do(job))
        one.transfers.append(_line(noun, told))
        return told


async def _persist(noun: str, work: Callable[[], Awaitable]):
    """What the work gives; done again after a failure that may pass, with longer and longer pauses. Raises TransferFailed."""
    pause = FIRST_PAUSE_SECONDS
    for left in reversed(range(ROUNDS)):
        try:
            return await work()
        except TransferFailed as error:
            if not (error.again and left):
                raise TransferFailed(f"{noun} {error}") from None
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret: it spreads the workers
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _line(what: str, told: dict) -> dict:
    """One line of an execution's transfers."""
    return {"what": what, **{name: told[name] for name in ("uri", "files", "bytes", "seconds")}}


async def _all(works: list) -> None:
    """Does all at once; the first error cancels the others and is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


class _Courier:
    """The courier process: started when there is work, ended when there is none for a while."""

    def __init__(self, log: str):
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._open: dict[int, asyncio.Future] = {}
        self._count = 0
        self._reader: asyncio.Task | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def do(self, job: dict) -> dict:
        """Has one thing moved: what it was, in files, bytes and seconds. Raises TransferFailed."""
        async with self._starting:
            if self._process is None:
                await self._start()
        self._count += 1
        number, answer = self._count, asyncio.get_running_loop().create_future()
        self._open[number] = answer
        self._say({"job": number, **{key: value for key, value in job.items() if value is not None}})
        try:
            told = await answer
        except asyncio.CancelledError:
            self._say({"stop": number})
            raise
        finally:
            self._open.pop(number, None)
            self._watch_idle()
        if "fault" in told:
            raise TransferFailed(told["fault"], again=told["again"])
        return told

    async def _start(self) -> None:
        with open(self._log, "ab") as log:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *program.command("courier"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd="/",
                    env=inherited_environment(), start_new_session=True, limit=_LINE_BYTES,
                )  # fmt: skip
            except OSError as error:
                raise TransferFailed(f"no process can be started that moves data: {error.strerror}", again=True) from None
        self._reader = asyncio.get_running_loop().create_task(self._listen(self._process))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            told = json.loads(line)
            if (answer := self._open.get(told["job"])) and not answer.done():
                answer.set_result(told)
        await process.wait()
        if self._process is process:
            self._process = None
            lost = {"fault": "the process that moves data ended", "again": True}
            for answer in self._open.values():
                if not answer.done():
                    answer.set_result(lost)

    def _say(self, message: dict) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, RuntimeError):  # it has ended: `_listen` tells all who wait
                self._process.stdin.write(json.dumps(message).encode() + b"\n")

    def _watch_idle(self) -> None:
        if self._idle:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if not self._open and self._process is not None and self._process.stdin is not None:
            process, self._process = self._process, None
            process.stdin.close()

    async def close(self) -> None:
        if self._idle:
            self._idle.cancel()
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), 5.0)
            if process.returncode is None:
                process.kill()
        if self._reader:
            self._reader.cancel()
