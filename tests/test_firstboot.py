"""The first boot of machines: the document, and its scripts, which run for real in a file system of their own."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import time
from pathlib import Path

import onefile
import pytest
import yaml
from clouds.http import Answer, Cloud
from env import START_SECONDS, Env, Process
from scitq.cloud.provider import Start
from scitq.errors import InvalidRequest
from scitq.firstboot import MOST_BYTES, check, user_data
from scitq.firstboot.document import environment_file
from scitq.transport import Connection
from services import needed

SCRIPTS = Path(__file__).resolve().parent.parent / "scitq_pkg" / "firstboot" / "scripts"
GIGABYTE = 2**30
ODD = "a b$HOME`id`\"\\'%s{}é#;&|~!*"
KEY = "k" * 40


def start(**changes) -> Start:
    given = {
        "server": "https://scitq.lab", "token": "scitq_secret", "worker": "cloud-1", "key": KEY, "concurrency": 4, "prefetch": 1,
        "batch": "Default", "sha256": "0" * 64, "version": "2.0",
    }  # fmt: skip
    return Start(**{**given, **changes})


def written(text: str) -> dict[str, dict]:
    return {file["path"]: file for file in yaml.safe_load(text)["write_files"]}


# --- the document -----------------------------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path):
    """All that may be configured."""
    (tmp_path / "rclone.conf").write_text("[s3]\nsecret_access_key = SECRET\n")
    (tmp_path / "login.json").write_text('{"auths": {"r.lab": {"auth": "SECRET"}}}\n')
    return {
        "rclone_conf": str(tmp_path / "rclone.conf"), "registry_login": str(tmp_path / "login.json"), "nfs": "nas:/export/lab",
        "packages": ["pigz", "samtools=1.16.1-1"], "ssh_keys": ["ssh-ed25519 AAAA ann@lab"], "swap": 0.2, "docker": True,
    }  # fmt: skip


def test_cloud_init_takes_the_document(full, tmp_path):
    program = needed("cloud-init", "cloud-init")
    document = tmp_path / "user-data"
    document.write_text(user_data(start(ca="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", batch=ODD), full))
    done = subprocess.run([program, "schema", "--config-file", document], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Valid" in done.stdout, done.stdout + done.stderr
    assert len(document.read_bytes()) < MOST_BYTES / 2


def test_secrets_are_in_files_of_root_alone(full):
    files = written(user_data(start(), full))
    secret = {path for path, file in files.items() if any(word in file["content"] for word in ("SECRET", "scitq_secret", KEY))}
    assert secret == {"/etc/rclone.conf", "/root/.docker/config.json", "/etc/scitq/worker.json"}
    assert {files[path]["permissions"] for path in secret} == {"0600"}
    assert all(file["owner"] == "root:root" for file in files.values())


def test_what_is_configured_arrives(full):
    text = user_data(start(batch=ODD), full)
    values = said_by_a_shell(written(text)["/etc/scitq/boot.env"]["content"] + written(text)["/etc/scitq/worker.env"]["content"])
    assert values["SCITQ_SERVER"] == "https://scitq.lab:5000"  # as the worker will say it
    assert values["SCITQ_BATCH"] == ODD
    assert values["SCITQ_PACKAGES"].split() == ["ca-certificates", "rclone", "nfs-common", "pigz", "samtools=1.16.1-1"]
    assert (values["SCITQ_NFS"], float(values["SCITQ_SWAP"]), values["SCITQ_DOCKER"]) == ("nas:/export/lab", 0.2, "1")
    assert yaml.safe_load(text)["ssh_authorized_keys"] == full["ssh_keys"]
    check(full)


def said_by_a_shell(text: str) -> dict[str, str]:
    done = subprocess.run(
        ["env", "-i", "bash", "-c", 'set -a; . /dev/stdin; exec env -0'], input=text, capture_output=True, text=True, check=True
    )  # fmt: skip
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


@pytest.mark.parametrize(
    ("deployment", "named"),
    [
        ({"packages": ["a b"]}, "packages"), ({"packages": ["$(id)"]}, "packages"), ({"packages": "pigz"}, "packages"),
        ({"packages": ["--allow"]}, "packages"), ({"swap": 2}, "swap"), ({"swap": True}, "swap"), ({"swap": "x"}, "swap"),
        ({"nfs": "host"}, "nfs"), ({"nfs": "-o suid:/x"}, "nfs"), ({"ssh_keys": ["a\nb"]}, "ssh_keys"),
        ({"rclone_conf": "/no/such/file"}, "rclone_conf"), ({"registry_login": "/dev"}, "registry_login"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(deployment, named):
    for found in (lambda: user_data(start(), deployment), lambda: check(deployment)):
        with pytest.raises(InvalidRequest) as error:
            found()
        assert error.value.field == f"deployment.{named}" and error.value.message


def test_a_document_that_no_provider_takes_is_not_made(tmp_path):
    (tmp_path / "rclone.conf").write_text("x" * MOST_BYTES)
    with pytest.raises(InvalidRequest, match="make the file of rclone_conf"):
        user_data(start(), {"rclone_conf": str(tmp_path / "rclone.conf")})
    with pytest.raises(InvalidRequest):
        environment_file({"A": "two\nlines"})


# --- scratch ----------------------------------------------------------------------------------------------------------


class Disks:
    """Files in the place of disks. `lsblk`, `mount` and `mdadm` are stand-ins that tell what they are asked; the rest is real."""

    def __init__(self, folder: Path):
        self.folder, self.scratch, self.log = folder, folder / "mounted", folder / "log"
        self.table: list[str] = []
        self.children: dict[str, str] = {}
        (folder / "bin").mkdir()
        shutil.copy(SCRIPTS / "scratch", folder)
        for name in ("mount", "mdadm", "mkfs.ext4", "install"):
            at = folder / name if name == "install" else folder / "bin" / name
            at.write_text(f'#!/bin/sh\necho {name} "$@" >>"{self.log}"\n')
        (folder / "bin" / "lsblk").write_text(
            f'#!/bin/sh\ncase $1 in -bdnpro) cat "{folder}/table" ;; *) eval last=\\${{$#}}; cat "$last.$2" ;; esac\n'
        )
        for path in [*(folder / "bin").iterdir(), folder / "install"]:
            path.chmod(0o755)

    def add(
        self, name: str, gigabytes: int = 5, content: bytes = b"", at: int = 0, kind: str = "disk", mounted: str = "",
        parts: int = 0
    ) -> None:  # fmt: skip
        disk = self.folder / name
        with open(disk, "wb") as file:
            file.truncate(gigabytes * GIGABYTE)
            file.seek(at if at >= 0 else gigabytes * GIGABYTE + at)
            file.write(content)
        self.table.append(f"{disk} {kind} {gigabytes * GIGABYTE} 0")
        Path(f"{disk}.NAME").write_text("".join(f"{name}{part or ''}\n" for part in range(parts + 1)))
        Path(f"{disk}.MOUNTPOINT").write_text(f"\n{mounted}\n")

    def run(self) -> list[str]:
        """The words of what would have changed disks, the disks by their names."""
        (self.folder / "table").write_text("".join(line + "\n" for line in self.table))
        self.log.write_text("")
        variables = {"PATH": f"{self.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "SCITQ_SCRATCH": str(self.scratch)}
        done = subprocess.run([self.folder / "scratch"], env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [line for line in self.log.read_text().replace(f"{self.folder}/", "").splitlines() if "--assemble" not in line]


@pytest.fixture
def disks(tmp_path):
    needed("wipefs", "util-linux")
    return Disks(tmp_path)


def test_one_unused_disk_is_scratch(disks):
    disks.add("sda", parts=1, mounted="/")
    disks.add("vdb")
    assert disks.run() == ["mkfs.ext4 -q -m 0 -L scitq-scratch vdb", "mount -o noatime vdb mounted"]


def test_nvme_disks_are_striped_and_others_left(disks):
    disks.add("vdb", 50)
    disks.add("nvme0n1")
    disks.add("nvme1n1", 6)
    installs, stripes, makes, mounts = disks.run()
    assert installs == "install mdadm"
    assert stripes.startswith("mdadm --create /dev/md/scitq ") and stripes.endswith("--level=0 --raid-devices=2 nvme0n1 nvme1n1")
    assert (makes, mounts) == ("mkfs.ext4 -q -m 0 -L scitq-scratch /dev/md/scitq", "mount -o noatime /dev/md/scitq mounted")


USED = {
    "is mounted": {"mounted": "/home"},
    "has partitions": {"parts": 2},
    "has data at its start": {"content": b"data"},
    "has data in its first MiB": {"content": b"data", "at": 2**20 - 4},
    "has data at its end": {"content": b"data", "at": -4},
    "has a file system": {"content": b"\x53\xef", "at": 1024 + 56},
    "has a table of partitions": {"content": b"\x55\xaa", "at": 510},
    "is small": {"gigabytes": 3},
    "is a CD": {"kind": "rom"},
}


@pytest.mark.parametrize("why", USED)
def test_a_disk_that_may_hold_anything_is_never_touched(disks, why):
    disks.add("nvme0n1", **USED[why])
    assert disks.run() == []
    assert disks.scratch.is_dir()
    disks.add("vdb")
    assert [line.split()[-1] for line in disks.run()] == ["vdb", "mounted"]


# --- the one file -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A server that gives out a one file, over TLS too, and a worker that it knows: its row, with its token."""
    made = Env(tmp_path_factory.mktemp("site"))
    made.one_file = onefile.make(made.directory / "scitq.pyz", "3.1")
    made.sha256 = hashlib.sha256(made.one_file.read_bytes()).hexdigest()
    made.server(variables={"SCITQ_ONE_FILE": str(made.one_file)})
    body = {"name": "cloud-1", "key": KEY, "hostname": "h", "concurrency": 2}
    made.booted = made.api("POST", "/workers", body)
    yield made
    made.close()


class Fetch:
    """The script that fetches, as root runs it."""

    def __init__(self, folder: Path, server: str, token: str, sha256: str, *more: str):
        self.target, self.log = folder / "got.pyz", folder / "fetch.log"
        (folder / "worker.json").write_text(f'{{"token": "{token}"}}')
        words = [str(SCRIPTS / "fetch"), str(folder / "worker.json"), server, sha256, str(self.target), *more]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)

    def until_it_says(self, text: str) -> str:
        deadline = time.monotonic() + START_SECONDS
        while text not in (said := self.log.read_text()):
            assert time.monotonic() < deadline and self.process.poll() is None, said
            time.sleep(0.02)
        return said

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def test_the_one_file_is_streamed_to_who_shows_a_token(site, tmp_path):
    for token in (site.token, site.booted["token"]):
        with Connection(site.url, token) as connection:
            head = connection.request("HEAD", "/install/scitq.pyz")
            assert (head.status, head.body, head.headers["X-Scitq-Sha256"]) == (200, b"", site.sha256)
            assert head.headers["X-Scitq-Version"] == "3.1"
            with open(tmp_path / "got", "wb+") as file:
                whole = connection.request("GET", "/install/scitq.pyz", into=file)
                assert (whole.status, whole.body) == (200, b"")
                assert file.seek(0) == 0 and file.read() == site.one_file.read_bytes()
            same = connection.request("GET", "/install/scitq.pyz", headers={"If-None-Match": head.headers["ETag"]})
            assert (same.status, same.body) == (304, b"")
    with Connection(site.url) as connection:
        assert connection.request("GET", "/install/scitq.pyz").status == 401


def test_it_is_fetched_whole_and_executable(site, tmp_path):
    with Fetch(tmp_path, site.url, site.booted["token"], site.sha256) as fetch:
        assert fetch.process.wait(START_SECONDS) == 0, fetch.log.read_text()
        assert fetch.target.read_bytes() == site.one_file.read_bytes() and fetch.log.read_text() == ""
        assert stat.S_IMODE(fetch.target.stat().st_mode) == 0o755 and not (tmp_path / "got.pyz.part").exists()


class Liar(Cloud):
    """It names another file than it gives."""

    def answer(self, request):
        return Answer(200, {"not": "what was named"}, {"X-Scitq-Sha256": "e" * 64})


def test_another_file_than_the_one_named_is_not_kept(tmp_path):
    liar, found = Liar(), hashlib.sha256(b'{"not": "what was named"}').hexdigest()
    try:
        with Fetch(tmp_path, liar.url, "token", "f" * 64) as fetch:
            fetch.until_it_says(f"its sha256 is {found}, and should be {'f' * 64}; trying again")
            assert not fetch.target.exists()
    finally:
        liar.close()


def test_a_server_that_was_upgraded_while_the_machine_boots_is_believed(site, tmp_path):
    """What it has now is what it names now; else the machine would be given up, and another one paid for."""
    with Fetch(tmp_path, site.url, site.booted["token"], "f" * 64) as fetch:
        assert fetch.process.wait(START_SECONDS) == 0, fetch.log.read_text()
        assert fetch.target.read_bytes() == site.one_file.read_bytes()
        assert fetch.log.read_text() == f"scitq: the server has another version by now: {site.sha256}\n"


def test_a_refused_token_is_told_and_not_shown(site, tmp_path):
    with Fetch(tmp_path, site.url, "scitq_" + "A" * 43, site.sha256) as fetch:
        assert "AAAA" not in fetch.until_it_says("the server answered 401")
        assert not fetch.target.exists()


def test_a_server_that_is_away_is_waited_for(site, tmp_path):
    relay = site.relay()
    relay.refusing = True
    with Fetch(tmp_path, relay.url, site.booted["token"], site.sha256) as fetch:
        fetch.until_it_says("trying again")
        relay.mend()
        relay.most["down"] = 200_000
        site.until(lambda: relay.passed["down"] >= 100_000 or fetch.target.exists())
        relay.cut()
        relay.mend()
        assert fetch.process.wait(START_SECONDS) == 0
        assert fetch.target.read_bytes() == site.one_file.read_bytes()


def test_the_certificate_of_the_server_is_checked(site, tmp_path, monkeypatch):
    needed("openssl", "openssl")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert]
    subprocess.run(words, check=True, capture_output=True)
    monkeypatch.setenv("SCITQ_CA", str(cert))
    site.processes[0].stop()
    variables = {"SCITQ_ONE_FILE": str(site.one_file)}
    tls = site.server("--cert", str(cert), "--key", str(key), name="tls", data=site.processes[0].data, variables=variables)
    with Fetch(tmp_path, tls.url, site.booted["token"], site.sha256) as fetch:
        assert "certificate verify failed" in fetch.until_it_says("trying again")
    with Fetch(tmp_path, tls.url, site.booted["token"], site.sha256, str(cert)) as fetch:
        assert fetch.process.wait(START_SECONDS) == 0, fetch.log.read_text()


# --- all of it --------------------------------------------------------------------------------------------------------


class Machine:
    """A file system of its own over that of this machine, in which the document's files lie and its scripts run as root.

    There are no disks, and no systemd: `lsblk` tells of none, `systemctl` and `swapon` are noted.
    """

    def __init__(self, folder: Path, document: str):
        self.root = folder / "root"
        self.root.mkdir()
        made = f"mount -t tmpfs none {folder} && cd {folder} && mkdir upper work root && "
        made += f"mount -t overlay overlay -o lowerdir=/,upperdir={folder}/upper,workdir={folder}/work root && "
        made += "for name in proc sys dev; do mount --rbind /$name root/$name; done && echo made && exec sleep 1000"
        self.holder = subprocess.Popen(["unshare", "-m", "sh", "-ec", made], stdout=subprocess.PIPE, text=True)
        if self.holder.stdout.readline() != "made\n":
            pytest.skip("no overlay can be mounted here")
        self.inside = Path(f"/proc/{self.holder.pid}/root{self.root}")
        self.enter = ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", "chroot", str(self.root)]
        notes = {name: f"echo {name} $* >>/asked" for name in ("systemctl", "swapon")}
        for name, does in {"lsblk": "exit 0", **notes}.items():
            self.put({"path": f"/usr/local/sbin/{name}", "permissions": "0755", "content": f"#!/bin/sh\n{does}\n"})
        for file in yaml.safe_load(document)["write_files"]:
            self.put(file)

    def put(self, file: dict) -> None:
        at = self.inside / file["path"].lstrip("/")
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(file["content"])
        at.chmod(int(file["permissions"], 8))

    def boot(self) -> str:
        script = "set -a; . /etc/scitq/boot.env; exec /usr/local/lib/scitq/boot"
        done = subprocess.run([*self.enter, "bash", "-c", script], capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def read(self, path: str) -> str:
        return (self.inside / path.lstrip("/")).read_text()

    def worker(self) -> list[str]:
        """The words of the service of the worker, as systemd would make them."""
        unit = self.read("/etc/systemd/system/scitq-worker.service")
        (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
        values = said_by_a_shell(self.read("/etc/scitq/worker.env"))
        return [re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], word) for word in line.partition("=")[2].split()]

    def close(self) -> None:
        self.holder.kill()
        self.holder.stdout.close()
        self.holder.wait()


class Booted(Process):
    """The worker on a machine."""

    def __init__(self, env: Env, machine: Machine):
        self.machine = machine
        variables = {"HOME": "/root", "SCITQ_CONFIG": "/root/none", "SCITQ_CACHE": "/root/cache"}
        super().__init__(env, "cloud-1", machine.worker(), variables, Path("/"))

    def start(self) -> None:
        self.program = self.machine.enter
        super().start()


@pytest.fixture
def machine(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("only root makes file systems")
    made = []

    def make(document: str) -> Machine:
        made.append(Machine(tmp_path_factory.mktemp("machine"), document))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_machine_boots_and_its_worker_works_and_boots_again(env, machine):
    file = onefile.make(env.directory / "scitq.pyz")
    env.server(variables={"SCITQ_ONE_FILE": str(file)})
    body = {"name": "cloud-1", "key": KEY, "hostname": "h", "concurrency": 2}
    token = env.api("POST", "/workers", body)["token"]
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    deployment = {"docker": False, "swap": 0.001}
    made = machine(user_data(start(server=env.url, token=token, sha256=sha256), deployment))
    made.put({"path": "/run/cloud-init/cloud-id", "permissions": "0644", "content": "azure\n"})
    said = made.boot()
    assert token not in said and KEY not in said
    assert made.read("/asked").splitlines() == ["swapon /scratch/swapfile", "systemctl start --no-block scitq-worker.service"]
    assert made.read("/run/scitq/worker.env") == "SCITQ_EVICTION=azure\n"
    identity = made.inside / "scratch/cloud-1/worker.json"
    assert stat.S_IMODE(identity.stat().st_mode) == 0o600

    worker = Booted(env, made)
    env.processes.append(worker)
    env.until(lambda: any(row["state"] == "online" for row in env.items("/workers")), what="the worker is online")
    task = env.create({"command": "echo $SCITQ_TASK_ID; pwd", "shell": "sh"})[0]
    env.wait_state(task)
    assert env.stdout(task).decode().splitlines()[0] == str(task)
    assert env.stdout(task).decode().splitlines()[1].startswith("/scratch/cloud-1/executions/")
    worker.stop()
    noted = identity.read_text()
    file.unlink()  # the server has none any more: the machine has its own
    made.boot()
    assert identity.read_text() == noted and len(made.read("/asked").splitlines()) == 4
