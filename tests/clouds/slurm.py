"""A real Slurm of one node, for the conformance suite."""

from __future__ import annotations

import socket
from pathlib import Path

import onefile
from slurm import Cluster

from clouds.rig import Rig as Base
from clouds.rig import processes


class Rig(Base):
    kind, flavor, region = "slurm", "small", "it"

    def __init__(self, directory: Path):
        self.cluster = Cluster(directory / "cluster")
        self.server = socket.create_server(("127.0.0.1", 0))  # takes calls and never answers
        self.folder, self.scratch = directory / "shared", directory / "scratch"
        self.environ = {**self.cluster.environ, "SCITQ_ONE_FILE": str(onefile.make(directory / "scitq.pyz"))}
        self.config = {
            "directory": str(self.folder), "scratch": str(self.scratch), "maximum": 100,
            "flavors": {"small": {"cpu": 1, "time": "60"}},
            "url": f"http://127.0.0.1:{self.server.getsockname()[1]}",
        }  # fmt: skip

    def close(self) -> None:
        self.cluster.close()
        self.server.close()

    def things(self) -> set[str]:
        """Folders of machines on the shared disk and the node's, jobs, and processes that name them."""
        folders = {str(path) for top in (self.folder, self.scratch) for path in top.glob("*/") if path.name != "files"}
        folders |= {str(path) for path in self.folder.glob("files/*")}
        jobs = {f"job {line}" for line in self.cluster.said("squeue", "-h", "-o", "%i").split()}
        return folders | jobs | processes(lambda line: any(f"{top}/".encode() in line for top in (self.folder, self.scratch)))

    def half_made(self, name: str) -> Path:
        (self.folder / "files/half-written").mkdir(parents=True, exist_ok=True)
        return self.folder / name / "machine.json"

    def job(self, order) -> str:
        """The id of a machine's job."""
        return self.cluster.said("squeue", "-h", "-n", order.name, "-o", "%i").strip()
