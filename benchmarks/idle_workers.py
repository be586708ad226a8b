"""Workers that hold no task: each keeps its long poll at the server through a socket of its own, in the words of a real worker.

Run by the peers' Python: `python idle_workers.py URL COUNT BATCH CONCURRENCY < token`. Prints `ready` when every poll is held.
A task that one of them is given is reported as succeeded at once; then `ID TIME` is printed: when the order came, in seconds
since the epoch.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "dist" / "scitq.pyz"))

from scitq.protocol import API, POLL_SECONDS, SUCCEEDED, Report, SyncAnswer, SyncRequest
from scitq.wire import SYNC_CONTENT_TYPE, decode_answer, encode_request

from scitq import __version__

AT_ONCE = 16  # that register at the same time


class Line:
    """One kept-alive HTTP connection."""

    def __init__(self, url: str, token: str):
        self.host, self.port = urlsplit(url).hostname, urlsplit(url).port
        self.token = token

    async def open(self) -> Line:
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        return self

    async def post(self, path: str, body: bytes, kind: str) -> dict:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line.split(":")[1]) for line in answer.splitlines() if line.lower().startswith("content-length"))
        told = json.loads(await self.reader.readexactly(length))
        if not answer.startswith("HTTP/1.1 20"):
            raise RuntimeError(f"{path}: {told}")
        return told


class IdleWorker:
    """One worker: registered, then polling for ever."""

    def __init__(self, url: str, number: int):
        self.url, self.name = url, f"idle{number}"
        self.incarnation = os.urandom(12).hex()
        self.sequence, self.seen = 0, None

    async def register(self, line: Line, batch: str, concurrency: int) -> None:
        words = {"name": self.name, "key": os.urandom(16).hex(), "hostname": "bench", "batch": batch, "concurrency": concurrency}
        body = json.dumps(words | {"prefetch": 0, "cpus": 1, "memory_bytes": 2**30}).encode()
        worker = await line.post(f"{API}/workers", body, "application/json")
        self.path = f"{API}/workers/{worker['id']}/sync"
        self.line = await Line(self.url, worker["token"]).open()

    async def sync(self, wait: float, reports: list[Report]) -> SyncAnswer:
        self.sequence += 1
        request = SyncRequest(self.incarnation, self.sequence, __version__, wait=wait, seen=self.seen, executions=reports)
        answer = decode_answer(await self.line.post(self.path, encode_request(request, []), SYNC_CONTENT_TYPE))
        self.seen = answer.digest
        return answer

    async def poll(self) -> None:
        reports: list[Report] = []
        while True:
            answer = await self.sync(0.0 if reports else POLL_SECONDS, reports)
            came = time.time()
            reports = [
                Report(order.id, SUCCEEDED, exit_code=0, started_ago=0.0, ended_ago=0.0, stdout_size=0, stderr_size=0)
                for order in answer.orders
                if order.id not in answer.acknowledged and order.spec
            ]
            for order in answer.orders:
                if order.spec:
                    print(order.spec["task_id"], came, flush=True)
            await asyncio.sleep(answer.delay)


async def main(url: str, count: int, batch: str, concurrency: int) -> None:
    token = sys.stdin.readline().strip()
    workers = [IdleWorker(url, number) for number in range(count)]

    async def register(some: list[IdleWorker]) -> None:
        line = await Line(url, token).open()
        for worker in some:
            await worker.register(line, batch, concurrency)
            await worker.sync(0.0, [])

    await asyncio.gather(*(register(workers[start::AT_ONCE]) for start in range(AT_ONCE)))
    polls = [asyncio.create_task(worker.poll()) for worker in workers]
    await asyncio.sleep(1.0)  # all have sent their poll
    print("ready", flush=True)
    await asyncio.gather(*polls)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
