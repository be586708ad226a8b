"""Container engines of the tests' own: a dockerd on a socket of its own, a podman with a store of its own, an image made here."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import pytest
from ports import free_port
from services import needed, wait_for_port

START_SECONDS = 60.0
IMAGE = "localhost/tiny:1"
_CAP_SYS_ADMIN = 21
_OPTIONS = (
    "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none", "--exec-opt=native.cgroupdriver=cgroupfs",
    "--log-level=warn",
)  # fmt: skip
_PODMAN = """[engine]
runtime = "{runtime}"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{folder}/tmp"
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
"""


REGISTRY_PASSWORD = "s3cret"
_BCRYPT = "$2y$05$rO5WtWFXZakZfMCfnQLk.uq/TWewPDwSY93VRrSTl06ml.WsmZSdG"  # of that
_REGISTRY = """version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: test, path: {folder}/passwords}}}}
"""


def make_image(folder: Path) -> Path:
    """The files of a small image, as a tar: busybox and a user named nobody."""
    busybox = needed("busybox", "busybox-static")
    root, tar = folder / "image", folder / "image.tar"
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    names = subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    for name in names:
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    with tarfile.open(tar, "w") as made:
        made.add(root, "", filter=_as_root)
    return tar


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    return member


class Docker:
    """A dockerd without networks: containers use that of the machine (`-O '--network host'`) or none."""

    kind = "docker"

    def __init__(self, folder: Path):
        self.folder, self.socket = folder, folder / "docker.sock"
        self.program, self._dockerd = _same_version("docker"), needed("dockerd", "docker.io")
        _as_root_only("dockerd")
        self.variables = {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(folder / "config")}
        self.cgroup = f"/{folder.name}-{os.getpid()}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "daemon.json").write_text('{"deprecated-key-path": "%s"}' % (folder / "key.json"))
        self.start()
        self.ask("import", "--change", "ENV PATH=/bin", str(make_image(folder)), IMAGE)

    def start(self) -> None:
        """Starts it, again after `kill9`."""
        words = [
            self._dockerd, f"--host=unix://{self.socket}", f"--data-root={self.folder}/data", f"--exec-root={self.folder}/run",
            f"--pidfile={self.folder}/pid", f"--config-file={self.folder}/daemon.json", f"--cgroup-parent={self.cgroup}",
            *_OPTIONS,
        ]  # fmt: skip
        for driver in ("overlay2", "vfs"):  # the first does not work on top of every file system
            with open(self.folder / "log", "ab") as log:
                self.process = subprocess.Popen(
                    [*words, f"--storage-driver={driver}"], stdout=log, stderr=log, start_new_session=True
                )
            if self._is_up():
                return
        raise AssertionError(f"dockerd does not start\n{(self.folder / 'log').read_text()[-3000:]}")

    def _is_up(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            if self.call("version", "--format", "{{.Server.Version}}").returncode == 0:
                return True
            time.sleep(0.05)
        return False

    def kill9(self) -> None:
        """Ends dockerd as a crash would: what it runs goes on."""
        self.process.kill()
        self.process.wait()
        self._end_containerd()

    def _end_containerd(self) -> None:
        """The daemon below it is a child that does not end with a killed parent; the next dockerd wants its own."""
        for path in (self.folder / "run/containerd").glob("*.pid"):
            with contextlib.suppress(ValueError, ProcessLookupError):  # it has ended
                os.kill(int(path.read_text()), signal.SIGKILL)
            path.unlink()
        (self.folder / "pid").unlink(missing_ok=True)

    def call(self, *words: str) -> subprocess.CompletedProcess:
        """A command of the client, to its end."""
        environment = {**os.environ, **self.variables}
        return subprocess.run([self.program, *words], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def ask(self, *words: str) -> str:
        """What a command that must succeed says."""
        done = self.call(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def containers(self, *more: str) -> list[str]:
        """The names of all containers there are."""
        return self.ask("ps", "--all", "--format={{.Names}}", *more).split()

    def close(self) -> None:
        """Ends all of it."""
        if self.process.poll() is None:
            if names := self.containers():
                self.call("rm", "--force", *names)
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):  # then by force
                self.process.wait(60)
        self.process.kill()
        self.process.wait()
        self._end_containerd()
        for entry in Path("/proc").iterdir():  # containerd's shims and what they hold
            with contextlib.suppress(OSError):  # no process, or it ended meanwhile
                told = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
                if f"{self.folder}/run/".encode() in told or self.cgroup in (entry / "cgroup").read_text():
                    os.kill(int(entry.name), signal.SIGKILL)
        _unmount(self.folder)
        for path in sorted(Path("/sys/fs/cgroup").glob(f"*{self.cgroup}/**/"), reverse=True):
            with contextlib.suppress(OSError):  # its last process is just ending
                path.rmdir()


class Registry:
    """A private registry on loopback: `ann` may read and write."""

    def __init__(self, folder: Path):
        self.port = free_port()
        folder.mkdir(parents=True)
        (folder / "passwords").write_text(f"ann:{_BCRYPT}\n")
        (folder / "config.yml").write_text(_REGISTRY.format(folder=folder, port=self.port))
        program = needed("docker-registry", "docker-registry")
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
        wait_for_port(self.port, self.process)

    def image(self, name: str) -> str:
        """The full name of an image there."""
        return f"127.0.0.1:{self.port}/{name}"

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)


class Podman:
    """podman with a store of its own. It has no daemon; `variables` are what finds this store."""

    kind = "podman"

    def __init__(self) -> None:
        self.program = needed("podman", "podman")
        _as_root_only("podman, as these tests set it up,")
        folder = self.folder = Path(tempfile.mkdtemp(prefix="podman-"))  # short: a socket's path may have 107 bytes only
        runtime = "crun" if shutil.which("crun") else "runc"
        (folder / "containers.conf").write_text(_PODMAN.format(runtime=runtime, folder=folder))
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/data"\nrunroot = "{folder}/run"\n'
        )
        self.variables = {
            "CONTAINERS_CONF": str(folder / "containers.conf"), "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }  # fmt: skip
        self.ask("import", "--change", "ENV PATH=/bin", str(make_image(folder)), IMAGE)

    call, ask, containers = Docker.call, Docker.ask, Docker.containers

    def close(self) -> None:
        """Ends all of it."""
        if names := self.containers():
            self.call("kill", *names)
            self.call("rm", "--force", *names)
        _unmount(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


def _as_root_only(what: str) -> None:
    status = Path("/proc/self/status").read_text()
    capabilities = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), 16)
    if os.geteuid() != 0 or not capabilities >> _CAP_SYS_ADMIN & 1:
        pytest.skip(f"{what} needs root and the right to mount")


def _same_version(name: str) -> str:
    """The client that came with the daemon: another one of the machine may be too new for it."""
    return "/usr/bin/docker" if os.path.exists("/usr/bin/docker") else needed(name, "docker.io")


def _unmount(folder: Path) -> None:
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in sorted((p for p in places if p.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", re.sub(r"\\040", " ", place)], check=False)
