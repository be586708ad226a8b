"""Ports of loopback for servers of tests: none that the kernel lends to a client, and none twice, so that a server finds its own
again.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
from pathlib import Path

_LENT = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LEAST = 10_000
_PROCESSES = 16  # of pytest-xdist: each has ports of its own
_given: set[int] = set()


def free_port() -> int:
    """One at which nobody listens now, and which nothing but its caller will take while this runs."""
    own = range(_LEAST + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % _PROCESSES, _first_lent(), _PROCESSES)
    for port in random.SystemRandom().sample(own, len(own)):
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    with socket.socket() as probe:  # all are lent here: the kernel knows one
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _first_lent() -> int:
    with contextlib.suppress(OSError, ValueError):  # another kernel
        return int(_LENT.read_text().split()[0])
    return 32_768


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False
