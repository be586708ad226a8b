"""Workers whose tasks run for a while and run nothing: a lab at work, in the words of real workers.

Run by the peers' Python: `python busy_workers.py URL PREFIX COUNT CONCURRENCY SECONDS ENDS BATCH... < token`. COUNT workers
called PREFIX1... are spread over the batches; each task ends after SECONDS (half to one and a half times that), one of thirty
fails. Prints `ready` when every slot is taken, or, with ENDS, `done` when each worker has ended so many; then it ends.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time

from idle_workers import AT_ONCE, IdleWorker, Line
from scitq.protocol import FAILED, POLL_SECONDS, RUNNING, SUCCEEDED, Chunk, Report, SyncAnswer, SyncRequest
from scitq.wire import SYNC_CONTENT_TYPE, decode_answer, encode_request

from scitq import __version__

FAILING = 30
STATS_SECONDS = 10.0
WRONG = (b"No space left on device\n", b"KeyError: 'sample_id'\n", b"Segmentation fault\n")
GB = 10**9


class BusyWorker(IdleWorker):
    """One worker with its slots."""

    def __init__(self, url: str, name: str, seconds: float, ends: int):
        super().__init__(url, 0)
        self.name, self.seconds, self.ends, self.ended = name, seconds, ends, 0
        self.held: dict[int, tuple[float, float]] = {}  # execution -> start and end, by the monotonic clock
        self.stats_at = 0.0
        self.is_full = asyncio.Event()

    async def work(self) -> None:
        """Until it has ended what it shall, or for ever."""
        while not self.ends or self.ended < self.ends:
            due = [execution for execution, (_, end) in self.held.items() if end <= time.monotonic()]
            told = await self.exchange(due)
            for execution in {*told.acknowledged, *told.fenced}:
                self.held.pop(execution, None)
            self.ended += len(due)
            for order in told.orders:
                if order.spec and order.id not in self.held:
                    begin = time.monotonic()
                    self.held[order.id] = begin, begin + self.seconds * random.uniform(0.5, 1.5)
            if len(self.held) >= told.concurrency:
                self.is_full.set()
            await asyncio.sleep(told.delay)

    async def exchange(self, due: list[int]) -> SyncAnswer:
        """Says all that it has, and waits for news until the next task ends."""
        now = time.monotonic()
        wrong = {execution: WRONG[execution % len(WRONG)] for execution in due if execution % FAILING == 0}
        reports = [self.report(execution, execution in due, len(wrong.get(execution, b"")), now) for execution in self.held]
        self.sequence += 1
        wait = min([POLL_SECONDS, *(max(0.0, end - now) for _, end in self.held.values())])
        request = SyncRequest(
            self.incarnation, self.sequence, __version__, wait=wait, seen=self.seen, executions=reports, stats=self.stats(now),
            output=[Chunk(execution, "stderr", 0, len(data)) for execution, data in wrong.items()],
        )  # fmt: skip
        answer = decode_answer(await self.line.post(self.path, encode_request(request, list(wrong.values())), SYNC_CONTENT_TYPE))
        self.seen = answer.digest
        return answer

    def report(self, execution: int, ends: bool, written: int, now: float) -> Report:
        begin = now - self.held[execution][0]
        if not ends:
            return Report(execution, RUNNING, started_ago=begin)
        return Report(
            execution, FAILED if written else SUCCEEDED, exit_code=int(written > 0), started_ago=begin, ended_ago=0.0,
            stdout_size=0, stderr_size=written, cpu_seconds=begin, peak_memory_bytes=random.randrange(GB, 8 * GB),
        )  # fmt: skip

    def stats(self, now: float) -> dict | None:
        """What a worker measures of its machine, every ten seconds."""
        if now < self.stats_at + STATS_SECONDS:
            return None
        self.stats_at = now
        return {
            "load": [random.uniform(1, 8)] * 3, "cpus": 8, "cpu_percent": random.uniform(10, 100), "memory": {"total": 64 * GB,
            "available": random.randrange(64 * GB), "swap_total": 0, "swap_free": 0},
            "disks": {"/": {"total": 900 * GB, "free": 300 * GB}},
            "network": {"received_per_second": random.randrange(10**8), "sent_per_second": random.randrange(10**7)},
        }  # fmt: skip


async def main(url: str, prefix: str, count: int, concurrency: int, seconds: float, ends: int, batches: list[str]) -> None:
    token = sys.stdin.readline().strip()
    workers = [BusyWorker(url, f"{prefix}{number + 1}", seconds, ends) for number in range(count)]

    async def register(start: int) -> None:
        line = await Line(url, token).open()
        for number in range(start, count, AT_ONCE):
            await workers[number].register(line, batches[number % len(batches)], concurrency)

    await asyncio.gather(*map(register, range(AT_ONCE)))
    work = [asyncio.create_task(worker.work()) for worker in workers]
    if not ends:
        full = asyncio.gather(*(worker.is_full.wait() for worker in workers))
        await asyncio.wait([full, *work], return_when=asyncio.FIRST_COMPLETED)  # or one of them failed
        print("ready", flush=True)
    await asyncio.gather(*work)
    print("done", flush=True)


if __name__ == "__main__":
    _, url, prefix, count, concurrency, seconds, ends, *batches = sys.argv
    asyncio.run(main(url, prefix, int(count), int(concurrency), float(seconds), int(ends), batches))
