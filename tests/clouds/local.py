"""Workers on this machine, for the conformance suite."""

from __future__ import annotations

from pathlib import Path

from clouds.rig import Rig as Base


class Rig(Base):
    kind, flavor, region = "local", "local", "local"

    def __init__(self, directory: Path):
        self.folder = directory / "machines"
        self.config = {"scratch": str(self.folder), "maximum": 100}

    def things(self) -> set[str]:
        """Folders of machines, and processes that stand in them or name them."""
        folders = {path.name for path in self.folder.iterdir() if path.is_dir()} if self.folder.exists() else set()
        return folders | self._processes()

    def _processes(self) -> set[str]:
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes()
                    state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
                except OSError:  # it ended meanwhile
                    continue
                if state != "Z" and f"{self.folder}/".encode() in line:
                    found.add(f"process {entry.name}")
        return found
