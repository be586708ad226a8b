"""Real services for tests of `fetch`, each on a free port of loopback, in a directory of its own, gone at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ports import free_port

START_SECONDS = 60.0
_NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log warn; {user}
events {{ worker_connections 256; }}
http {{
  access_log {folder}/access.log; client_body_temp_path {folder}/tmp; proxy_temp_path {folder}/tmp;
  fastcgi_temp_path {folder}/tmp; uwsgi_temp_path {folder}/tmp; scgi_temp_path {folder}/tmp;
  default_type application/octet-stream; autoindex on;
  server {{
    listen 127.0.0.1:{port}; root {root};
    location /slow/ {{ alias {root}/; limit_rate 2m; }}
    location /stalls/ {{ alias {root}/; limit_rate_after 300k; limit_rate 1; }}
    location /norange/ {{ alias {root}/; max_ranges 0; }}
    location /auth/ {{ alias {root}/; auth_basic x; auth_basic_user_file {folder}/passwords; }}
    location /busy/ {{ return 503; }}
    location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
  }}
}}
"""
PASSWORD = "secret"
_FTP = """
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, ThrottledDTPHandler
from pyftpdlib.servers import ThreadedFTPServer

port, root, drop_after, plain, limit = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "plain", int(sys.argv[5])
authorizer = DummyAuthorizer()
authorizer.add_user("ann", "secret", root, perm="elradfmwMT")
authorizer.add_anonymous(root)
dropped = []

class Dropping(ThrottledDTPHandler):
    read_limit = limit

    def send(self, data):
        sent = super().send(data)
        if drop_after and not dropped and self.get_transmitted_bytes() >= drop_after:
            dropped.append(True)
            self.cmd_channel.close()
        return sent

class Handler(FTPHandler):
    dtp_handler = Dropping
    use_sendfile = not drop_after

Handler.authorizer = authorizer
if plain:  # as servers are that know no MLSD
    Handler.proto_cmds = {name: what for name, what in FTPHandler.proto_cmds.items() if name not in ("MLSD", "MLST")}
ThreadedFTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def needed(program: str, package: str) -> str:
    """The path of a program that a test needs; without it the test is skipped, or fails where services are required."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if path is None:
        missing = pytest.fail if os.environ.get("SCITQ_TESTS_REQUIRE_SERVICES") else pytest.skip
        missing(f"{program} is not installed: apt-get install {package}")
    return path


class Nginx:
    """nginx with ranges over `root`, and paths below which it is slow, stalls, knows no ranges, wants a password, is busy."""

    def __init__(self, folder: Path):
        self.folder, self.root, self.port = folder, folder / "www", free_port()
        self.root.mkdir(parents=True)
        (folder / "tmp").mkdir()
        words = ["openssl", "passwd", "-apr1", "-stdin"]
        done = subprocess.run(words, input=PASSWORD, capture_output=True, text=True, check=True)
        (folder / "passwords").write_text(f"ann:{done.stdout}")
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "conf").write_text(_NGINX.format(folder=folder, root=self.root, port=self.port, user=user))
        program = needed("nginx", "nginx-light")
        self.process = subprocess.Popen([program, "-c", str(folder / "conf"), "-e", str(folder / "error.log")])
        wait_for_port(self.port, self.process)
        self.url = f"http://127.0.0.1:{self.port}/"

    def requests(self) -> list[str]:
        """The lines of its log."""
        return (self.folder / "access.log").read_text().splitlines()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


class Ftp:
    """An FTP server over `root`: anonymous for reading, `ann` for writing.

    `drop_after` bytes its first transfer is cut off; it takes `limit` bytes a second.
    """

    def __init__(self, folder: Path, drop_after: int = 0, plain: bool = False, limit: int = 0):
        self.root, self.port = folder, free_port()
        words = [
            sys.executable,
            "-c",
            _FTP,
            str(self.port),
            str(folder),
            str(drop_after),
            "plain" if plain else "full",
            str(limit),
        ]
        self.process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        wait_for_port(self.port, self.process)
        self.url = f"ftp://127.0.0.1:{self.port}/"
        self.writable = f"ftp://ann:{PASSWORD}@127.0.0.1:{self.port}/"

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)


def wait_for_port(port: int, process: subprocess.Popen) -> None:
    """Returns when something listens there; fails when the process has ended, or ends it: nobody else will."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args} ended with {process.returncode}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise AssertionError(f"nothing listens on {port}")
