"""A real Slurm on loopback: munged, slurmctld and one slurmd of this host as a node, in a folder, on free ports."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import time
from pathlib import Path

from ports import free_port
from services import needed

START_SECONDS = 60.0
STOP_SECONDS = 30.0
_CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
SlurmdParameters=config_overrides
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=10000
TaskProlog={folder}/prolog
KillWait=20
MinJobAge=60
ReturnToService=2
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node} CPUs=64 RealMemory={mib} State=UNKNOWN
PartitionName=main Nodes=node1 Default=YES MaxTime=INFINITE State=UP
PartitionName=shut Nodes=node1 State=DOWN
"""


class Cluster:
    """One node of 64 processors, which it says it has."""

    def __init__(self, folder: Path):
        self.folder = folder
        programs = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
        paths = {name: needed(name, package) for name, package in programs.items()}
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        folder.chmod(0o755)
        self.environ = {"SLURM_CONF": str(folder / "slurm.conf")}
        mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 * 9 // 10
        (folder / "slurm.conf").write_text(
            _CONFIG.format(
                folder=folder, host=socket.gethostname().partition(".")[0], user=getpass.getuser(), controller=free_port(),
                node=free_port(), mib=mib,
            )
        )  # fmt: skip
        (folder / "prolog").write_text(
            f"#!/bin/sh\necho export HOME={folder}/home\n"
        )  # jobs do not use the home of who runs the tests
        (folder / "prolog").chmod(0o755)
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        files = [f"--{option}={folder}/munge.{end}" for option, end in _MUNGE.items()]
        self.processes: list[subprocess.Popen] = []
        try:
            self._start(paths["munged"], "-F", "--force", *files)
            self._until(lambda: (folder / "munge.sock").is_socket(), "munged listens")
            self._start(paths["slurmctld"], "-D")
            self._start(paths["slurmd"], "-D", "-N", "node1")
            self._until(lambda: "idle" in self.said("sinfo", "-h", "-p", "main", "-o", "%T"), "its node is idle")
        except BaseException:
            self.close()
            raise

    def said(self, *words: str) -> str:
        """What a command of Slurm says; nothing when it fails."""
        return subprocess.run(words, env={**os.environ, **self.environ}, capture_output=True, text=True).stdout

    def close(self) -> None:
        """Ends the jobs too: they would outlive slurmd."""
        self.said("scancel", "--user", getpass.getuser())
        deadline = time.monotonic() + STOP_SECONDS
        while self.said("squeue", "-h", "-o", "%i") and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, *words: str) -> None:
        with open(self.folder / f"{Path(words[0]).name}.out", "wb") as log:
            self.processes.append(subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, **self.environ}))

    def _until(self, condition, what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            ended = [process.args[0] for process in self.processes if process.poll() is not None]
            logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.log"))
            assert not ended and time.monotonic() < deadline, f"{what}: {ended}\n{logs}"
            time.sleep(0.05)


_MUNGE = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
