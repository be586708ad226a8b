"""Hosts that a real sshd makes on this machine, for the conformance suite."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import replace
from pathlib import Path

import onefile
from ports import free_port
from scitq.cloud.provider import Order
from sshd import Sshd

from clouds.rig import Rig as Base
from clouds.rig import processes

PLAIN = 'sh -c "$SSH_ORIGINAL_COMMAND"'


class Rig(Base):
    kind, flavor, region = "ssh", "node1", "it"
    shells = {"node1": PLAIN, "node2": PLAIN}

    def __init__(self, directory: Path):
        self.sshd = Sshd(directory / "sshd", self.shells)
        self.server = socket.create_server(("127.0.0.1", 0))  # takes calls and never answers
        self.environ = {"SCITQ_ONE_FILE": str(onefile.make(directory / "scitq.pyz"))}
        self.config = {"hosts": ["node1", "node2"], "options": self.sshd.options, "maximum": 100}
        nobody = ["-oHostName=127.0.0.1", f"-oPort={free_port()}"]
        self.unreachable = {"hosts": ["node1"], "options": nobody}

    def order(self, *words, **changes) -> Order:
        made = super().order(*words, **changes)
        return replace(made, start=replace(made.start, server=f"http://127.0.0.1:{self.server.getsockname()[1]}"))

    def close(self) -> None:
        for line in self._processes():  # keepers need nobody: they end by themselves, later
            os.kill(int(line.split()[1]), signal.SIGKILL)
        self.server.close()
        self.sshd.close()

    def things(self) -> set[str]:
        """Folders of machines on each host, of their scratch too, and processes that name them."""
        homes = self.sshd.folder / "homes"
        folders = {
            str(path) for pattern in (".local/share/scitq/*/", ".cache/scitq/scratch/*/") for path in homes.glob(f"*/{pattern}")
        }
        return folders | self._processes()

    def half_made(self, name: str) -> Path:
        return self.sshd.folder / "homes/node1/.local/share/scitq" / name / "machine.json"

    def _processes(self) -> set[str]:
        homes = f"{self.sshd.folder}/homes/".encode()
        return processes(lambda line: any(word.startswith(homes) for word in line.split(b"\0")))
