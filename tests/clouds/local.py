"""Workers on this machine, for the conformance suite."""

from __future__ import annotations

from pathlib import Path

from clouds.rig import Rig as Base
from clouds.rig import processes


class Rig(Base):
    kind, flavor, region = "local", "local", "local"

    def __init__(self, directory: Path):
        self.folder = directory / "machines"
        self.config = {"scratch": str(self.folder), "maximum": 100}

    def things(self) -> set[str]:
        """Folders of machines, and processes that stand in them or name them."""
        folders = {path.name for path in self.folder.iterdir() if path.is_dir()} if self.folder.exists() else set()
        return folders | processes(lambda line: f"{self.folder}/".encode() in line)

    def half_made(self, name: str) -> Path:
        return self.folder / name / "machine.json"
