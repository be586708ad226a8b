"""A PostgreSQL server of the tests' own: on loopback, in a temporary directory, without durability, gone at the end."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from ports import free_port

START_SECONDS = 60.0
USER = "scitq"
_FAST = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=200")


def programs() -> Path | None:
    """The directory of `initdb` and `postgres`, or None where there is none."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4]))
    path = found[-1] if found else shutil.which("initdb")
    return Path(path).parent if path else None


class Postgres:
    """One server; `new_database()` gives an empty database each time."""

    def __init__(self, options: tuple[str, ...] = _FAST):
        self.bin = programs()
        self.directory = Path(tempfile.mkdtemp(prefix="scitq-postgres-"))
        self.data, self.log = self.directory / "data", self.directory / "log"
        self.port = free_port()
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")
        self._run("initdb", "-D", str(self.data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C.UTF-8")
        self.options = options
        self.start()
        self._made = 0
        self._free: list[str] = []

    def start(self) -> None:
        """Starts it, again after `kill9`."""
        words = [
            "-D",
            str(self.data),
            "-p",
            str(self.port),
            "-k",
            str(self.directory),
            "-c",
            "listen_addresses=127.0.0.1",
            *self.options,
        ]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [str(self.bin / "postgres"), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **_identity(),
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start:\n{self.log.read_text()}")
            time.sleep(0.05)

    def new_database(self) -> str:
        """The URL of an empty database."""
        if self._free:
            return self._free.pop()
        self._made += 1
        name = f"test{self._made}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, name)
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def give_back(self, url: str) -> None:
        """A test is over with a database: it is emptied for the next one, which is far quicker than to make another."""
        import psycopg2

        connection = psycopg2.connect(url)
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        self._free.append(url)

    def kill9(self) -> None:
        """Ends it as a power cut would, save that the disk keeps what it was given."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Ends it, in order or not, and removes all."""
        if self.process.poll() is None:
            self.process.send_signal(3)  # SIGQUIT: at once
            self.process.wait(60)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _answers(self) -> bool:
        words = ["-h", "127.0.0.1", "-p", str(self.port), "-q", "-t", "1"]
        return subprocess.run([str(self.bin / "pg_isready"), *words]).returncode == 0

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(self.bin / program), *words], capture_output=True, text=True, cwd=self.directory, **_identity()
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")


def _identity() -> dict:
    """PostgreSQL refuses to run as root."""
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
