"""Servers with providers on this machine, and what of their machines is really there, seen past the program's own words."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from env import Env, ServerProcess

CONFIG = """\
{url}
providers:
  here: {{kind: local, maximum: {maximum}, price: {price}, currency: EUR}}
  there: {{kind: local, maximum: 20, price: {dearer}, currency: EUR, scratch: {there}}}
deployment:
  {{idle: {idle}, reconcile: {reconcile}, boot_timeout: {boot_timeout}, retry: {retry}, destroy_unknown: {destroy_unknown}}}
"""
DEFAULTS = {
    **{"url": "", "maximum": 20, "price": 1.0},
    **{"idle": "1h", "reconcile": "1h", "boot_timeout": "15m", "retry": 2, "destroy_unknown": False},
}


class Site:
    """An environment with a server that deploys on this machine, as two providers."""

    def __init__(self, env: Env, **words):
        self.env = env
        self.file = env.directory / "clouds.yaml"
        self.there = env.directory / "there"
        self.configure(**words)
        self.server: ServerProcess = env.server("--config", str(self.file))

    def configure(self, **words) -> None:
        """For the next start of the server: other values than DEFAULTS."""
        words = {**DEFAULTS, **words}
        self.file.write_text(CONFIG.format(**words, there=self.there, dearer=2 * float(words["price"])))

    @property
    def here(self) -> Path:
        """The folder of the machines of `here`."""
        return self.server.data / "machines"

    # --- what the program says ----------------------------------------------------------------------------------------

    def deploy(self, **words) -> list[dict]:
        """Orders workers; their ids."""
        asked = {"provider": "here", "flavor": "local", "region": "local", "concurrency": 1, **words}
        return self.env.api("POST", "/workers/deploy", asked)["items"]

    def machines(self, **query) -> list[dict]:
        return self.env.items("/machines", **query)

    def jobs(self, **query) -> list[dict]:
        return self.env.items("/jobs", **query)

    def online(self) -> list[dict]:
        return [row for row in self.env.items("/workers") if row["state"] == "online" and row["machine"] is not None]

    def until(self, condition: Callable[[], object], what: str = "") -> object:
        """As `Env.until`, which asks so often that it would be most of the work."""

        def asked():
            time.sleep(0.08)
            return condition()

        return self.env.until(asked, what=what)

    def until_online(self, number: int) -> list[dict]:
        """Waits until so many workers of machines are there; their rows."""
        return self.until(lambda: len(found := self.online()) == number and found, what=f"{number} workers have come")

    def until_quiet(self) -> None:
        """Waits until every job has ended."""
        self.until(lambda: not self.jobs(state="pending,running"), what="all jobs have ended")

    def clear(self) -> None:
        """Has all machines destroyed, and waits for it."""
        for machine in self.machines():
            self.env.answer("DELETE", f"/machines/{machine['id']}")
        self.until(lambda: not self.machines(), what="all machines are gone")

    # --- what is really there -----------------------------------------------------------------------------------------

    def rows(self, sql: str) -> list[tuple]:
        """Read from the database itself."""
        with contextlib.closing(sqlite3.connect(f"file:{self.server.data}/scitq.db?mode=ro", uri=True, timeout=30)) as database:
            return database.execute(sql).fetchall()

    def change(self, sql: str) -> None:
        """Written into the database behind the server's back."""
        with contextlib.closing(sqlite3.connect(self.server.data / "scitq.db", timeout=30)) as database, database:
            database.execute(sql)

    def folders(self) -> set[str]:
        """The machines that have left something on the disk."""
        parents = [folder for folder in (self.here, self.there) if folder.exists()]
        return {path.name for folder in parents for path in folder.iterdir() if path.is_dir()}

    def running(self) -> dict[str, int]:
        """The machines of which a worker's process runs, by name: its pid."""
        found = {}
        for pid, line in self.env.leftovers().items():
            words = line.split()
            scratch = Path(words[words.index("--scratch") + 1]) if "worker" in words and "--scratch" in words else Path()
            if scratch.name == "work":
                found[scratch.parent.name] = pid
        return found

    @contextlib.contextmanager
    def holding(self, path: Path) -> Iterator[None]:
        """Whoever wants this lock has to wait."""
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
