"""The first boot of a machine: one cloud-init document, the same for every provider that boots machines from an image.

It writes files and starts one service, `scitq-boot`, whose steps are the scripts beside this module: they make scratch, swap,
docker and the rest, fetch the one file from the server and start the worker. The service runs at every start of the machine; what
is done already is not done again. Secrets are in files of root alone, in no words of a command, no variable and no log.

Every server imports this to check its configuration: what only a document takes is imported when one is made.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path

from ..address import server_url
from ..cloud.provider import Start
from ..errors import InvalidRequest
from ..protocol import WORKER_NAME

SCRATCH = "/scratch"
MOST_BYTES = 64 * 1024 - 1  # of the document in base64: what OpenStack and Azure take
SWAP_SHARE = 0.1  # of the scratch disk

_STEPS = ("boot", "install", "packages", "scratch", "swap", "data", "docker", "gpu", "program", "worker", "fetch")
_UNITS = ("scitq-boot.service", "scitq-worker.service")
_LIBRARY = "/usr/local/lib/scitq"
_SECRET, _PLAIN, _PROGRAM = "0600", "0644", "0755"
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]*(=[A-Za-z0-9.+:~-]+)?")
_CA_FILE = "/etc/scitq/ca.pem"


def user_data(start: Start, deployment: Mapping) -> str:
    """The document for a machine whose worker is to start so, under the `deployment` part of the configuration.

    Raises InvalidRequest that names the key of the configuration that is wrong, or whose file cannot be read.
    """
    from .document import dumped

    if not re.fullmatch(WORKER_NAME, start.worker):
        raise InvalidRequest(f"{start.worker!r:.120} cannot be the name of a worker", field="name")
    text = dumped(
        {
            "write_files": [*_own_files(start, deployment), *_given_files(deployment)],
            "ssh_authorized_keys": _lines(deployment, "ssh_keys"),
            "runcmd": [["systemctl", "daemon-reload"], ["systemctl", "enable", "--now", "--no-block", "scitq-boot.service"]],
        }
    )
    size = len(base64.b64encode(text.encode()))
    if size > MOST_BYTES:
        raise InvalidRequest(
            f"what a new machine is given would be {size} bytes, providers take {MOST_BYTES}: make the file of rclone_conf or of "
            "registry_login smaller",
            field="deployment",
        )
    return text


def check(deployment: Mapping) -> None:
    """Raises InvalidRequest that names what is wrong with the `deployment` part of the configuration, before there is a machine.
    """
    for key in ("rclone_conf", "registry_login", "ca"):
        if deployment.get(key):
            _read(deployment, key)
    _boot_values(Start("localhost", "", "", "", 1, 0, "", "", ""), deployment)
    _lines(deployment, "ssh_keys")


def _own_files(start: Start, deployment: Mapping) -> list[dict]:
    from importlib.resources import files

    from .document import environment_file

    scripts = files(__name__) / "scripts"
    made = [_file(f"{_LIBRARY}/{name}", (scripts / name).read_text("utf-8"), _PROGRAM) for name in _STEPS]
    made += [_file(f"/etc/systemd/system/{name}", (scripts / name).read_text("utf-8"), _PLAIN) for name in _UNITS]
    made.append(_file("/etc/scitq/boot.env", environment_file(_boot_values(start, deployment)), _PLAIN))
    made.append(_file("/etc/scitq/worker.env", environment_file(_worker_values(start)), _PLAIN))
    identity = {"key": start.key, "token": start.token, "server": server_url(start.server)}
    made.append(_file("/etc/scitq/worker.json", json.dumps(identity) + "\n", _SECRET))
    if start.ca:
        made.append(_file(_CA_FILE, start.ca, _PLAIN))
    return made


def _given_files(deployment: Mapping) -> list[dict]:
    """What the configuration has machines receive."""
    receivers = {"rclone_conf": "/etc/rclone.conf", "registry_login": "/root/.docker/config.json"}
    return [_file(path, _read(deployment, key), _SECRET) for key, path in receivers.items() if deployment.get(key)]


def _boot_values(start: Start, deployment: Mapping) -> dict[str, str]:
    """What the steps are told."""
    return {
        "SCITQ_SCRATCH": start.scratch or SCRATCH,
        "SCITQ_SERVER": server_url(start.server),
        "SCITQ_SHA256": start.sha256,
        "SCITQ_WORKER": start.worker,
        "SCITQ_CA": _CA_FILE if start.ca else "",
        "SCITQ_PACKAGES": " ".join(_packages(deployment)),
        "SCITQ_SWAP": _share(deployment),
        "SCITQ_DOCKER": "1" if deployment.get("docker", True) else "0",
        "SCITQ_NFS": _nfs(deployment),
    }


def _worker_values(start: Start) -> dict[str, str]:
    """The worker's own variables and the words of its command; its token and key are in its file."""
    values = {
        "SCITQ_SERVER": server_url(start.server),
        "SCITQ_CONCURRENCY": str(start.concurrency),
        "SCITQ_WORKER": start.worker,
        "SCITQ_BATCH": start.batch,
        "SCITQ_PREFETCH": str(start.prefetch),
        "SCITQ_SCRATCH": start.scratch or SCRATCH,
    }
    return values | ({"SCITQ_CA": _CA_FILE} if start.ca else {})


def _file(path: str, content: str, mode: str) -> dict:
    return {"path": path, "owner": "root:root", "permissions": mode, "content": content}


# --- the configuration ------------------------------------------------------------------------------------------------


def _packages(deployment: Mapping) -> list[str]:
    """What is asked for, and what is needed by what is asked for."""
    asked = _lines(deployment, "packages")
    for name in asked:
        if not _PACKAGE.fullmatch(name):
            raise InvalidRequest(f"{name!r:.80} cannot be the name of a Debian package", field="deployment.packages")
    needed = {"rclone": deployment.get("rclone_conf"), "nfs-common": deployment.get("nfs")}
    return ["ca-certificates", *(name for name, wanted in needed.items() if wanted), *asked]


def _lines(deployment: Mapping, key: str) -> list[str]:
    given = deployment.get(key) or []
    if not isinstance(given, (list, tuple)) or not all(isinstance(one, str) and one.isprintable() for one in given):
        raise InvalidRequest("wants a list of texts of one line", field=f"deployment.{key}")
    return list(given)


def _share(deployment: Mapping) -> str:
    given = deployment.get("swap", SWAP_SHARE)
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given <= 0.9:
        raise InvalidRequest(f"cannot be {given!r:.80}: it wants a share of the scratch disk, 0 to 0.9", field="deployment.swap")
    return f"{given:f}"


def _nfs(deployment: Mapping) -> str:
    given = deployment.get("nfs") or ""
    if given and not (isinstance(given, str) and re.fullmatch(r"[^\s:/-][^\s/]*:/\S*", given)):
        raise InvalidRequest(f"cannot be {given!r:.80}: it wants HOST:/EXPORT", field="deployment.nfs")
    return given


def _read(deployment: Mapping, key: str) -> str:
    path = Path(str(deployment[key])).expanduser()
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise InvalidRequest(f"the file {path} cannot be read: {why}", field=f"deployment.{key}") from None
