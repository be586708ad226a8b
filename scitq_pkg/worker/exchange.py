"""The conversation with the server: one long poll that is held, and reports that go at once.

Never more than one report is in flight; what happens meanwhile goes with the next. Every request states all that is held, and
answers that were overtaken are thrown away, so neither loss nor repetition nor reordering of requests matters.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable

from .. import __version__, program
from ..errors import Conflict, NotAllowed, NotFound, ScitqError, TooLarge
from ..keeper.processes import boot_seconds
from ..machine import Meter
from ..protocol import API, POLL_SECONDS, SYNC_OUTPUT_BYTES, SyncAnswer, SyncRequest
from ..transport import Connection, raise_for
from ..wire import SYNC_CONTENT_TYPE, decode_answer, encode_request
from .errand import Errand
from .upgrade import Upgrade
from .workload import Workload

SOON_SECONDS = 0.02  # what is not urgent waits so long for company
QUIET_SECONDS = 0.02  # the poll waits for so long without a report
REPORT_SECONDS = 30.0  # a report that takes longer has failed, apart from
SLOWEST_BYTES_PER_SECOND = 2**15  # the time that its output takes on a slow line
SLACK_SECONDS = 15.0  # beyond the time that a poll is held
LONGEST_PAUSE_SECONDS = 30.0  # between tries to reach a server that is away
STATS_SECONDS = 10.0
MEASURE_SECONDS = 1.0  # that a request waits for them; later ones take what comes late
_LEAST_OUTPUT_BYTES = 64 * 1024


class Exchange:
    """Syncs with the server until `stop`; `fatal` is the answer that ends it."""

    def __init__(
        self, url: str, worker_id: int, token: str, workload: Workload, meter: Meter, note: Callable[[str], None],
        broken: str | None = None,
    ):  # fmt: skip
        """`broken`: an upgrade after which the worker ended before it had registered."""
        self.workload = workload
        self.evicted: str | None = None  # why its machine is taken away
        self.fatal: Exception | None = None
        self.over = asyncio.Event()
        self._url, self._token, self._own_path = url, token, f"{API}/workers/{worker_id}"
        self._path = f"{self._own_path}/sync"
        self._polls, self._reports = (Connection(url, token), Errand("polls")), (Connection(url, token), Errand("reports"))
        self._measures, self._lookups = Errand("measures"), Errand("lookups")
        self._measuring: asyncio.Future | None = None
        self._meter, self._note = meter, note
        self._incarnation, self._build = os.urandom(12).hex(), program.build()
        self._sequence = self._newest = 0
        self._seen: str | None = None
        self._due = asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None
        self._reporting = False
        self._reported_at = 0.0
        self._failures, self._try_at, self._pause = 0, 0.0, 0.0
        self._output_bytes = SYNC_OUTPUT_BYTES
        self._stats: dict | None = None
        self._stats_at = 0.0
        self._stopping = False
        self._tasks: list[asyncio.Task] = []
        self.upgrade = Upgrade(lambda: Connection(url, token), lambda: self.changed(True), broken)

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins; the first request is a report."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._guard(self._report_loop())), loop.create_task(self._guard(self._poll_loop()))]
        self.changed(True)

    async def stop(self, last_words_seconds: float) -> None:
        """Ends both loops; says what is left to say, if the server listens within that time."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        for connection, _ in (self._polls, self._reports):
            connection.interrupt()
        if self.fatal is None and not self._failures:
            try:
                await asyncio.wait_for(self._last_words(), last_words_seconds)
            except (ScitqError, asyncio.TimeoutError):
                self._note("the server did not take the last report; it is kept for the next start")

    async def _last_words(self) -> None:
        """Reports until there is nothing more to report."""
        while True:
            self._due.clear()
            await self._sync(self._reports, 0.0)
            if not self._due.is_set():
                return

    async def _guard(self, loop) -> None:
        try:
            await loop
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a fault of our own ends the worker too, and is told
            self.fatal = error
        finally:
            self.over.set()

    def changed(self, now: bool) -> None:
        """There is something to report: now, or soon."""
        if now:
            self._due.set()
        elif self._soon is None and not self._due.is_set():
            self._soon = asyncio.get_running_loop().call_later(SOON_SECONDS, self._soon_is_now)

    def _soon_is_now(self) -> None:
        self._soon = None
        self._due.set()

    async def cached(self, key: str) -> dict | None:
        """The outputs of an equal task that succeeded; None if there is none, or the server cannot be asked now."""
        connection = Connection(self._url, self._token)
        try:
            answer = await self._lookups.do(connection.request, "GET", f"{self._own_path}/cache/{key}", timeout=REPORT_SECONDS)
            return raise_for(answer).json()
        except ScitqError:
            return None
        finally:
            connection.close()

    # --- the two loops --------------------------------------------------------------------------------------------

    async def _report_loop(self) -> None:
        while True:
            await self._due.wait()
            await self._wait_for_server()
            self._due.clear()
            self._reporting = True
            try:
                await self._try(self._reports, 0.0)
            finally:
                self._reporting, self._reported_at = False, time.monotonic()

    async def _poll_loop(self) -> None:
        while True:
            await self._wait_for_quiet()
            if time.monotonic() < self._try_at:
                await self._wait_for_server()
                continue  # the report goes first: one request is enough to find out
            await self._try(self._polls, POLL_SECONDS)
            if self._pause:
                await asyncio.sleep(self._pause)

    async def _wait_for_quiet(self) -> None:
        while self._reporting or self._due.is_set() or time.monotonic() < self._reported_at + QUIET_SECONDS:
            await asyncio.sleep(QUIET_SECONDS)

    async def _wait_for_server(self) -> None:
        while (left := self._try_at - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def _try(self, line: tuple[Connection, Errand], wait: float) -> None:
        """One sync; a failure is answered with a pause that grows, a refusal ends all."""
        try:
            await self._sync(line, wait)
        except (NotAllowed, NotFound, Conflict):
            raise
        except ScitqError as error:
            self._failed(error)

    def _failed(self, error: ScitqError) -> None:
        if isinstance(error, TooLarge):
            self._output_bytes = max(_LEAST_OUTPUT_BYTES, self._output_bytes // 2)
        self._failures += 1
        if self._failures == 2:  # one is a connection that was closed while it was idle
            self._note(f"{error.message}; going on with what runs, trying again")
        longest = min(LONGEST_PAUSE_SECONDS, 0.1 * 2 ** min(self._failures, 10))
        self._try_at = time.monotonic() + longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret: it spreads the workers
        self.changed(True)

    def _answered(self, sent: float, lease: float) -> None:
        if self._failures >= 2:
            self._note("the server is back")
        self._failures, self._try_at = 0, 0.0
        self.workload.start_until = max(self.workload.start_until, sent + lease)

    # --- one request ----------------------------------------------------------------------------------------------

    async def _sync(self, line: tuple[Connection, Errand], wait: float) -> None:
        connection, errand = line
        stats = await self._fresh_stats()
        said = self.workload.say(self._output_bytes, carry=wait == 0)
        self._sequence += 1
        request = SyncRequest(
            self._incarnation, self._sequence, __version__, wait=wait, seen=self._seen, problem=self.workload.trouble(),
            executions=said.reports, output=said.chunks, stats=stats, evicted=self.evicted,
            build=self._build, not_upgraded=self.upgrade.failed, upgrade_problem=self.upgrade.why,
        )  # fmt: skip
        body = encode_request(request, said.data)
        said.data.clear()
        timeout = wait + SLACK_SECONDS if wait else REPORT_SECONDS + len(body) / SLOWEST_BYTES_PER_SECOND
        sent = boot_seconds()
        answer = await errand.do(_post, connection, self._path, body, timeout)
        self._answered(sent, answer.lease)
        if answer.sequence <= self._newest:
            return  # overtaken: a newer answer was taken already
        self._newest, self._seen = answer.sequence, answer.digest
        self.upgrade.hear(answer.upgrade)
        news = self.workload.obey(answer, said)
        if wait:
            self._rest(answer, news, boot_seconds() - sent)

    def _rest(self, answer: SyncAnswer, news: bool, held: float) -> None:
        """Sets the pause before the next poll: what a crowded server asks for, and never a run of empty answers."""
        hasty = not news and held < 0.5
        self._pause = max(answer.delay, min(1.0, 2 * self._pause + 0.01) if hasty else 0.0)

    async def _fresh_stats(self) -> dict | None:
        """What the machine does, every ten seconds; measured in a thread, for a dead network disk holds whoever looks at it."""
        now = time.monotonic()
        if now < self._stats_at + STATS_SECONDS and self._stats_at:
            return None
        self._stats_at = now
        if self._measuring is None:
            self._measuring = asyncio.ensure_future(self._measures.do(self._meter.measure))
            await asyncio.wait((self._measuring,), timeout=MEASURE_SECONDS)
        measuring = self._measuring
        if measuring is None or not measuring.done():
            return None
        self._measuring = None
        return measuring.result()


def _post(connection: Connection, path: str, body: bytes, timeout: float) -> SyncAnswer:
    answer = connection.request("POST", path, body, headers={"Content-Type": SYNC_CONTENT_TYPE}, timeout=timeout)
    return decode_answer(raise_for(answer).json())
