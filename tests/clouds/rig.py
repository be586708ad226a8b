"""What the suite for all providers (`test_cloud_providers.py`) needs of one: `clouds/<kind>.py` has a class `Rig`."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from scitq.cloud.calls import Call
from scitq.cloud.provider import Machine, Order, Provider, Start

from scitq import cloud

TOKEN = "scitq_THE-SECRET-TOKEN-OF-THE-WORKER"
KEY = "THE-SECRET-KEY-OF-THE-WORKER"


def processes(belongs: Callable[[bytes], bool]) -> set[str]:
    """Those that live and of which the command line, words with NULs between, belongs to machines."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            except OSError:  # it ended meanwhile
                continue
            if state != "Z" and belongs(line):
                found.add(f"process {entry.name}")
    return found


class Rig:
    """A provider that really is there, and how to look at what it has without the program's own code.

    Made once for all tests of the suite. A machine that starts a worker for real gets a server where nobody answers.
    """

    kind: str
    flavor: str  # one that it has
    region: str  # where it has it
    config: Mapping  # of `providers.<name>`, without `kind`
    environ: Mapping[str, str] = {}  # credentials; set while the tests run
    secrets: tuple[str, ...] = ()  # of the environment, that must be seen nowhere
    unreachable: Mapping | None = None  # a configuration of which nothing answers; None: there is no such thing

    def __init__(self, directory: Path):
        """Starts what it needs; `directory` is empty and its own."""

    def close(self) -> None:
        """Ends what it started."""

    def things(self) -> set[str]:
        """Everything that is there on behalf of machines, of whatever tag: machines, disks, addresses, files, processes."""
        raise NotImplementedError

    def half_made(self, name: str) -> Path | None:
        """Where the record of a machine would stand, whose folder is all that was made when its asker was killed; None: nothing
        of this provider is made in two steps.
        """
        return None

    # --- the same for all ---------------------------------------------------------------------------------------------

    def provider(self, tag: str = "scitq-00000000aaaaaaaa", config: Mapping | None = None) -> Provider:
        """The provider as servers make it; `said` of the rig has the lines that it tells."""
        self.said: list[str] = []
        return cloud.provider("it", {"kind": self.kind, **(self.config if config is None else config)}, tag, self.said.append)

    def order(self, tag: str = "scitq-00000000aaaaaaaa", **changes) -> Order:
        """An order of a machine with a name of its own."""
        name = f"scitq-{tag[6:14]}-{uuid.uuid4().hex[:8]}"
        start = Start(
            server="http://127.0.0.1:9", token=TOKEN, worker=f"worker-of-{name}", key=KEY, concurrency=1, prefetch=0,
            batch="Default", sha256="0" * 64, version="1",
        )  # fmt: skip
        words = {
            "name": name,
            "tag": tag,
            "flavor": self.flavor,
            "region": self.region,
            "start": start,
            "user_data": "#cloud-config\n",
        }
        return Order(**{**words, **changes})

    def call(self, call: str, tag: str = "scitq-00000000aaaaaaaa", **arguments) -> Call:
        """A question to the provider as servers ask it: by a process of its own."""
        question = {
            "provider": "it",
            "config": {"kind": self.kind, **self.config},
            "tag": tag,
            "call": call,
            "arguments": arguments,
        }
        self.heard: list[str] = []
        return Call(question, self.heard.append)

    def configuration(self, path: Path, config: Mapping | None = None, **deployment) -> str:
        """A file of a server that has this provider."""
        providers = {"it": {"kind": self.kind, **(self.config if config is None else config)}}
        path.write_text(json.dumps({"providers": providers, "deployment": deployment}))
        return str(path)

    def names(self, tag: str = "scitq-00000000aaaaaaaa") -> list[str]:
        return sorted(machine.name for machine in self.provider(tag).list())

    def machine(self, name: str, tag: str = "scitq-00000000aaaaaaaa") -> Machine:
        """The one machine of this name, as the list tells it."""
        (found,) = [machine for machine in self.provider(tag).list() if machine.name == name]
        return found


def command_lines() -> str:
    """The command lines of all processes of this machine."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:  # it ended meanwhile
                continue
    return "\n".join(found)
