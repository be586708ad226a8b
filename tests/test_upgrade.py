"""Workers: their own token, upgrades to another one file without losing what runs, evictions, GPUs."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import onefile
import pytest
from env import Env, WorkerProcess
from hands import Hands
from scitq.transport import Connection
from strikes import changed_program

TOLD = ("version", "outdated", "upgrading", "upgrade_problem", "state")
COUNTS = "for i in $(seq 1 100); do echo $i; sleep 0.01; done; while ! [ -e {gate} ]; do sleep 0.05; done; echo end"


class Site:
    """A server from a checkout that gives out what `give` names, and workers that run from one files."""

    def __init__(self, folder: Path):
        self.env, self.folder = Env(folder), folder
        self.given = folder / "given.pyz"
        self.env.variables["SCITQ_CACHE"] = str(folder / "cache")
        self.builds = {version: onefile.make(folder / f"{version}.pyz", version) for version in ("1.8", "1.9")}
        self.give(self.builds["1.9"])
        self.env.server(variables={"SCITQ_ONE_FILE": str(self.given)})

    def give(self, file: Path) -> None:
        shutil.copy(file, self.folder / "beside")
        (self.folder / "beside").replace(self.given)

    def worker(self, name: str) -> tuple[WorkerProcess, Path]:
        """A worker of version 1.8, and the file that it runs from."""
        file = self.folder / name / "scitq.pyz"
        file.parent.mkdir()
        shutil.copy(self.builds["1.8"], file)
        worker = OfAFile(self.env, name, file)
        self.env.processes.append(worker)
        self.env.until(lambda: self.rows(name), what=f"{name} is there")
        self.env.until(lambda: worker.row["version"] == "1.8")
        return worker, file

    def rows(self, name: str) -> list[dict]:
        return [row for row in self.env.items("/workers") if row["name"] == name]

    def upgrade(self, worker: WorkerProcess, *words: str, code: int | None = 0) -> subprocess.CompletedProcess:
        return self.env.cli("manage", "worker", "upgrade", worker.name, *words, code=code)

    def counting(self, worker: WorkerProcess, gate: str) -> int:
        """A task that runs there, and ends when the file `gate` is there."""
        self.env.api("PATCH", f"/workers/{worker.row['id']}", {"batch": worker.name})
        command = COUNTS.format(gate=self.folder / gate)
        task = self.env.create({"command": command, "shell": "sh", "batch": worker.name})[0]
        self.env.wait_state(task, "running")
        return task

    def keepers(self, name: str) -> list[str]:
        """The command lines of the keepers of a worker."""
        home = str(self.env.directory / "scratch" / name)
        return [line for line in self.env.leftovers().values() if line.endswith(f" keeper {home}")]

    def version_of(self, line: str) -> str:
        """Of the one file that a process runs from."""
        build = Path(line.split()[1]).parent.name
        sums = {version: hashlib.sha256(file.read_bytes()).hexdigest() for version, file in self.builds.items()}
        return next(version for version, found in sums.items() if found.startswith(build))

    def is_whole(self, task: int) -> bool:
        """Its one attempt has succeeded, and all its output is there."""
        self.env.wait_state(task)
        expected = "".join(f"{number}\n" for number in range(1, 101)) + "end\n"
        return self.env.stdout(task).decode() == expected and len(self.env.executions(task)) == 1


class OfAFile(WorkerProcess):
    """A worker that is started from a one file."""

    def __init__(self, env: Env, name: str, file: Path):
        self.file = file
        scratch = env.directory / "scratch"
        super().__init__(env, name, ["worker", env.url, "2", "--name", name, "--scratch", str(scratch)], {}, scratch)

    def start(self) -> None:
        self.program = [sys.executable, str(self.file)]
        super().start()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = Site(tmp_path_factory.mktemp("site"))
    yield made
    made.env.close()


def told(worker: WorkerProcess) -> dict:
    return {name: worker.row[name] for name in TOLD}


def test_a_running_task_notices_nothing(site):
    worker, file = site.worker("calm")
    file.chmod(0o750)
    task = site.counting(worker, "calm-gate")
    assert told(worker) == {"version": "1.8", "outdated": True, "upgrading": False, "upgrade_problem": None, "state": "online"}
    listed = site.env.cli("manage", "worker", "list", "-n", "calm", code=0).stdout
    assert "runs scitq 1.8, which is not the server's version" in listed
    said = site.upgrade(worker, "--wait").stdout
    assert "runs 1.8 and is told to run 1.9" in said and said.rstrip().endswith("runs 1.9")
    assert worker.alive and worker.row["version"] == "1.9"  # the very process
    assert file.read_bytes() == site.builds["1.9"].read_bytes() and stat.S_IMODE(file.stat().st_mode) == 0o750
    assert sorted(path.name for path in file.parent.iterdir()) == ["scitq.pyz"]
    (site.folder / "calm-gate").touch()
    assert site.is_whole(task)
    site.env.until(lambda: {site.version_of(line) for line in site.keepers("calm")} == {"1.9"}, what="the keeper is new too")
    after = site.env.create({"command": "env", "batch": "calm"})[0]
    site.env.wait_state(after)
    assert not {"SCITQ_STARTED_FROM", "SCITQ_BEFORE", "SCITQ_HELD"} & {
        line.partition("=")[0] for line in site.env.stdout(after).decode().splitlines()
    }
    worker.stop()


def test_killed_on_the_way_it_is_done_by_the_next_start(site):
    """While it fetches: by a line on which next to nothing passes."""
    relay = site.env.relay()
    worker, file = site.worker("killed")
    worker.stop()
    worker.words[1] = relay.url
    worker.variables["SCITQ_TOKEN"] = site.env.token
    worker.start()
    site.env.until(lambda: told(worker)["state"] == "online" and relay.passed["down"])
    task = site.counting(worker, "killed-gate")
    copies = site.folder / "cache" / "copies" / hashlib.sha256(site.builds["1.9"].read_bytes()).hexdigest()[:32]
    shutil.rmtree(copies, ignore_errors=True)
    relay.rate = 20_000.0
    site.upgrade(worker)
    site.env.until(lambda: list(copies.glob("scitq.pyz.*")), what="it fetches")
    worker.kill9()
    assert told(worker)["upgrading"] and file.read_bytes() == site.builds["1.8"].read_bytes()
    relay.mend()
    worker.start()
    site.env.until(lambda: told(worker) | {"state": ""} == {
        "version": "1.9", "outdated": True, "upgrading": False, "upgrade_problem": None, "state": ""
    })  # fmt: skip
    assert file.read_bytes() == site.builds["1.9"].read_bytes()
    (site.folder / "killed-gate").touch()
    assert site.is_whole(task)
    worker.stop()


def test_what_cannot_be_run_or_is_another_file_leaves_the_worker_as_it_is(site):
    worker, file = site.worker("stays")
    task = site.counting(worker, "stays-gate")
    site.give(onefile.make(site.folder / "broken.pyz", main="raise SystemExit('it is broken')"))
    done = site.upgrade(worker, "--wait", code=1)
    assert "goes on as 1.8: the new version does not run here: it is broken" in done.stderr
    assert told(worker)["state"] == "online" and file.read_bytes() == site.builds["1.8"].read_bytes()
    assert "not upgraded: the new version does not run here" in site.env.cli("manage", "worker", "list", "-n", "stays").stdout

    worker.pause()  # told to run one, and then there is another
    site.env.api("POST", f"/workers/{worker.row['id']}/upgrade", {})
    site.give(site.builds["1.9"])
    worker.resume()
    site.env.until(lambda: not told(worker)["upgrading"])
    assert "the server gave" in told(worker)["upgrade_problem"] and told(worker)["version"] == "1.8"
    site.upgrade(worker, "--wait")
    assert told(worker)["upgrade_problem"] is None and told(worker)["version"] == "1.9"
    (site.folder / "stays-gate").touch()
    assert site.is_whole(task)
    worker.stop()


def test_one_that_ends_before_it_has_registered_is_not_tried_again(site):
    """Whoever looks after the worker starts it from its file, which is the old one still."""
    worker, file = site.worker("brave")
    task = site.counting(worker, "brave-gate")
    site.give(onefile.make(site.folder / "coward.pyz", main="import sys\nsys.exit(0 if '--version' in sys.argv else 'no')"))
    site.upgrade(worker)
    for _ in range(2):  # the first may have been killed
        assert worker.wait_exit() == 1
        worker.start()
    site.env.until(lambda: not told(worker)["upgrading"])
    assert "ended before it had registered" in told(worker)["upgrade_problem"] and told(worker)["version"] == "1.8"
    site.give(site.builds["1.9"])
    site.upgrade(worker, "--wait")
    (site.folder / "brave-gate").touch()
    assert site.is_whole(task) and file.read_bytes() == site.builds["1.9"].read_bytes()
    worker.stop()


def test_a_worker_of_a_checkout_says_that_it_is_one(site):
    worker = site.env.worker(name="checkout")
    done = site.upgrade(worker, "--wait", code=1)
    assert "it runs from a checkout or an install" in done.stderr
    assert told(worker)["state"] == "online" and not told(worker)["outdated"]
    worker.stop()


def test_a_server_without_a_one_file_says_so(env):
    env.server()
    row = Hands(env, "w", "b").row
    answer = env.answer("POST", f"/workers/{row['id']}/upgrade", {})
    assert answer.status == 409 and "build_zipapp.py" in answer.json()["error"]["message"]
    with Connection(env.url, env.token) as connection:
        assert connection.request("GET", "/install/scitq.pyz").status == 409


# --- its own token ----------------------------------------------------------------------------------------------------------


def test_a_worker_comes_with_its_own_token(site, tmp_path):
    """As on a machine that was deployed: a directory with its key and token is all it has."""
    env = site.env
    row = env.api("POST", "/workers", {"name": "own", "key": "o" * 40, "hostname": "h", "concurrency": 1})
    home = tmp_path / "scratch" / "own"
    home.mkdir(parents=True)
    (home / "worker.json").write_text(json.dumps({"key": "o" * 40, "token": row["token"], "server": env.url}))
    nothing = {"SCITQ_CONFIG": str(tmp_path / "none")}
    worker = env.worker(name="own", scratch=tmp_path / "scratch", variables=nothing)
    assert worker.row["id"] == row["id"] and json.loads((home / "worker.json").read_text())["token"] == row["token"]
    worker.restart()
    env.until(lambda: worker.output().count("worker own (id") == 2)
    worker.stop()
    (home / "worker.json").write_text(json.dumps({"key": "o" * 40, "token": row["token"], "server": "http://elsewhere:5000"}))
    worker.start()  # a token is for the server that gave it
    assert worker.wait_exit() == 4


# --- eviction ---------------------------------------------------------------------------------------------------------------


class Metadata(http.server.BaseHTTPRequestHandler):
    """The service of a machine of Azure, as its documentation shows it."""

    events: list[dict]
    asked: list[tuple[str, str]]

    def do_GET(self):
        self.asked.append((self.command, self.path))
        if self.headers.get("Metadata") != "true":
            return self.send_error(400)
        is_name = self.path.startswith("/metadata/instance/compute/name?")
        body = b"vm-7" if is_name else json.dumps({"DocumentIncarnation": 1, "Events": self.events}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.asked.append((self.command, self.path))
        self.send_error(400)

    def log_message(self, *_):
        pass


@pytest.fixture
def metadata():
    Metadata.events, Metadata.asked = [], []
    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{service.server_port}"
    service.shutdown()
    thread.join()
    service.server_close()


def event(kind: str, *machines: str) -> dict:
    return {
        "EventId": "A123BC45", "EventType": kind, "ResourceType": "VirtualMachine", "Resources": list(machines),
        "EventStatus": "Scheduled", "NotBefore": "Mon, 19 Sep 2026 18:29:47 GMT", "Description": "", "EventSource": "Platform",
        "DurationInSeconds": -1,
    }  # fmt: skip


def test_an_eviction_is_told_and_nothing_more_starts(env, metadata):
    """Of a worker that was deployed here, whose environment is the server's."""
    env.program = changed_program(env.directory / "copy", {"worker/eviction": {"POLL_SECONDS": 1.0}})
    env.server(variables={"SCITQ_EVICTION": "azure", "SCITQ_METADATA_URL": metadata})
    Metadata.events = [event("Reboot", "vm-7"), event("Preempt", "vm-8")]
    order = {"provider": "local", "region": "auto", "flavor": "auto", "batch": "spot", "concurrency": 2}
    (made,) = env.api("POST", "/workers/deploy", order)["items"]

    def of(noun: str, number: int) -> dict:
        return env.api("GET", f"/{noun}/{number}")

    env.until(lambda: of("workers", made["worker"])["state"] == "online")
    waits = f"while ! [ -e {env.directory}/gate ]; do sleep 0.05; done"
    running = env.create({"command": waits, "shell": "sh", "batch": "spot"})[0]
    env.wait_state(running, "running")
    env.until(lambda: len([path for _, path in Metadata.asked if "scheduledevents" in path]) >= 2)
    assert of("workers", made["worker"])["state"] == "online"  # another's, and nothing that ends it
    Metadata.events = [event("Preempt", "vm-7")]
    env.until(lambda: of("machines", made["machine"])["state"] == "evicted")
    why = "Azure takes its machine away (Preempt, not before Mon, 19 Sep 2026 18:29:47 GMT)"
    env.until(lambda: of("workers", made["worker"])["problem"] == why)
    assert of("machines", made["machine"])["message"] == why and of("workers", made["worker"])["draining"]
    later = env.create({"command": "true", "batch": "spot"})[0]
    (env.directory / "gate").touch()
    env.wait_state(running)
    assert env.state(later) == "pending" and {method for method, _ in Metadata.asked} == {"GET"}
    env.api("DELETE", f"/workers/{made['worker']}")
    env.until(lambda: of("machines", made["machine"])["state"] == "gone")


def test_who_cannot_tell_an_eviction_is_refused(site):
    worker = site.env.worker(name="nobody", ready=False, variables={"SCITQ_EVICTION": "azur"})
    assert worker.wait_exit() == 2 and "did you mean 'azure'" in worker.output()


# --- GPUs -------------------------------------------------------------------------------------------------------------------


def test_gpus_are_listed_and_shared_by_slots(site, tmp_path):
    """`nvidia-smi` is a stand-in that says what two GPUs say."""
    env, programs = site.env, tmp_path / "bin"
    programs.mkdir()
    lines = "".join(f"{index}, NVIDIA H200, 12, 1024, 143771\n" for index in (0, 1))
    (programs / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    (programs / "nvidia-smi").chmod(0o755)
    worker = env.worker(name="gpus", batch="gpus", variables={"PATH": f"{programs}:{os.environ['PATH']}"})
    env.until(lambda: worker.row["gpus"] == 2)
    assert worker.row["gpu"] == "NVIDIA H200"
    assert "2 x NVIDIA H200" in env.cli("manage", "worker", "list", "-L", "-n", "gpus", code=0).stdout
    tasks = env.create(*[{"command": "echo $CUDA_VISIBLE_DEVICES; sleep 0.3", "shell": "sh", "batch": "gpus"}] * 2)
    env.wait_state(tasks)
    assert sorted(env.stdout(task) for task in tasks) == [b"0\n", b"1\n"]
    worker.stop()
