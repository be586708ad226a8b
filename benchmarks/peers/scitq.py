"""scitq from the one file: server on SQLite, worker, keeper; asked through `scitq.lib`."""

from __future__ import annotations

import json
import shlex
import sys
import time
from datetime import datetime
from pathlib import Path

from measure import until

from .base import BARE_PYTHON, HERE, LONGEST_SECONDS, POLL_SECONDS, SLOTS, STAMP, Base, free_port, seconds_since, stamped, writer

ONE_FILE = HERE.parent / "dist" / "scitq.pyz"
sys.path.insert(0, str(ONE_FILE))

from scitq.auth import token_key
from scitq.lib import Server


class System(Base):
    """A server, a worker of 8 slots and its keeper; every answer is durable (`synchronous=FULL`)."""

    title = "scitq"

    def start(self, workers: bool = True) -> None:
        data, port = self.directory / "data", free_port()
        self.spawn(BARE_PYTHON, str(ONE_FILE), "server", "--port", str(port), "--data", str(data), "--quiet")
        told = until(lambda: _told(data / "server.json"), "the server is ready")
        self.url = told["url"]
        self.token = json.loads((self.directory / "config" / "tokens.json").read_text())[token_key(self.url)]
        self.client = Server(self.url, token=self.token).client
        if workers:
            self.worker()

    def worker(self, **variables: str) -> None:
        """One more worker; returns when it is online."""
        name = f"w{len(self.started)}"
        words = ("worker", self.url, str(SLOTS), "--name", name, "--scratch", str(self.directory))
        self.spawn(BARE_PYTHON, str(ONE_FILE), *words, **variables)
        until(lambda: any(w["name"] == name and w["state"] == "online" for w in self.client.pages("/workers")), "worker online")

    @property
    def variables(self) -> dict[str, str]:
        return {**super().variables, "SCITQ_CONFIG": str(self.directory / "config"), "SCITQ_SERVER": getattr(self, "url", "")}

    def create(self, tasks: list[dict]) -> list[int]:
        return self.client.send("POST", "/tasks", {"tasks": tasks})["ids"]

    def burst(self, count: int) -> float:
        start = time.perf_counter()
        # Each question counts all of them: it is asked less often of many, as `Server.join` does.
        self.wait(self.create([{"command": "true"}] * count), POLL_SECONDS + count / 100_000)
        return seconds_since(start)

    def wait(self, ids: list[int], pause: float = 0.0) -> None:
        """Returns when all have succeeded, as the server tells through its long poll."""
        chosen, version, deadline = f"{ids[0]}-{ids[-1]}", None, time.monotonic() + LONGEST_SECONDS + len(ids) / 50
        while time.monotonic() < deadline:
            told = self.client.get("/tasks/counts", ids=chosen, version=version, wait=None if version is None else 20)
            if told["counts"].get("succeeded", 0) == len(ids):
                return
            if told["counts"].get("failed"):
                raise RuntimeError(f"a task of {chosen} failed")
            version = told["version"]
            time.sleep(pause)
        raise TimeoutError(f"{chosen} are not done in time: {told['counts']}")

    def one(self) -> tuple[float, float]:
        submitted = time.time()
        ids = self.create([{"command": shlex.join(STAMP)}])
        self.wait(ids)
        seen = time.time()
        start, late = stamped(self.stdout(ids[0]), submitted)
        return start, late - (time.time() - seen)

    def stdout(self, task: int) -> bytes:
        execution = self.client.get(f"/tasks/{task}")["execution_id"]
        return self.client.get_answer(f"/executions/{execution}/stdout").body

    def write(self, size: int) -> float:
        start = time.perf_counter()
        self.last = self.create([{"command": shlex.join(writer(size))}])
        self.wait(self.last)
        return seconds_since(start)

    def run_seconds(self) -> float:
        """How long the command of the last `write` ran, by the times of the server."""
        execution = self.client.get(f"/executions/{self.client.get(f'/tasks/{self.last[0]}')['execution_id']}")
        began, ended = (datetime.fromisoformat(execution[name].replace("Z", "+00:00")) for name in ("started_at", "ended_at"))
        return (ended - began).total_seconds()

    def submit(self, count: int) -> float:
        start = time.perf_counter()
        ids = self.create([{"command": "true"}] * count)
        taken = seconds_since(start)
        assert len(set(ids)) == count
        return taken

    def launch_words(self) -> list[str]:
        return [BARE_PYTHON, str(ONE_FILE), "launch", "true"]


def _told(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # not yet there, or not yet whole
        return None
