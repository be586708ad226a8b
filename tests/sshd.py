"""A real sshd on loopback with throw-away keys: several hosts in one, each a port with a home and a shell of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ports import free_port
from services import needed, wait_for_port

SFTP = next(
    (path for path in ("/usr/lib/openssh/sftp-server", "/usr/lib/ssh/sftp-server") if Path(path).exists()),
    "/usr/libexec/openssh/sftp-server",
)
_CONFIG = """
Subsystem sftp {sftp}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/id.pub
PasswordAuthentication yes
KbdInteractiveAuthentication no
PermitRootLogin yes
StrictModes no
UsePAM no
MaxStartups 100
MaxSessions 100
"""
_CLIENT = """
Host *
  IdentityFile {folder}/id
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  ControlMaster auto
  ControlPath {folder}/%n.mux
  ControlPersist 30
"""


class Sshd:
    """Hosts by their names: how each runs what is asked for, which is in `$SSH_ORIGINAL_COMMAND`."""

    def __init__(self, folder: Path, hosts: dict[str, str]):
        self.folder, self.ports = folder, {name: free_port() for name in hosts}
        program = needed("sshd", "openssh-server")
        needed("ssh", "openssh-client")
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # compiled in
        for key in ("host_key", "id", "other_id"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
        (folder / "sshd_config").write_text(self._server(hosts))
        (folder / "config").write_text(self._client())
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen([program, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
        for port in self.ports.values():
            wait_for_port(port, self.process)

    @property
    def options(self) -> list[str]:
        """For ssh and scp."""
        return ["-F", str(self.folder / "config")]

    def home(self, host: str) -> Path:
        return self.folder / "homes" / host

    def close(self) -> None:
        for host in self.ports:
            subprocess.run(["ssh", *self.options, "-O", "exit", host], capture_output=True)
        self.process.terminate()
        self.process.wait(10)

    def _server(self, hosts: dict[str, str]) -> str:
        text = _CONFIG.format(folder=self.folder, sftp=SFTP)
        text += "".join(f"ListenAddress 127.0.0.1:{port}\n" for port in self.ports.values())
        for host, command in hosts.items():
            home = self.home(host)
            home.mkdir(parents=True)
            text += f"Match LocalPort {self.ports[host]}\n  SetEnv HOME={home} XDG_CACHE_HOME={home}/.cache\n"
            text += f'  ForceCommand cd "$HOME" && {command}\n'
        return text

    def _client(self) -> str:
        key = " ".join((self.folder / "host_key.pub").read_text().split()[:2])
        known = [f"[127.0.0.1]:{port} {key}\n" for port in self.ports.values()]
        (self.folder / "known_hosts").write_text("".join(known))
        hosts = [f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n" for name, port in self.ports.items()]
        return "".join(hosts) + _CLIENT.format(folder=self.folder)
