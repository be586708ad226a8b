"""What /proc tells of processes: who they are, whose children they are, and what they used."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Process(NamedTuple):
    """A line of `/proc/PID/stat`."""

    pid: int
    state: str  # "Z": ended, not yet waited for
    parent: int
    group: int
    session: int
    cpu_ticks: int  # its own, and of the children it waited for
    start: int  # ticks since the machine's start: with the pid and the boot id the identity of a process
    resident_bytes: int


@lru_cache(maxsize=1)
def boot_id() -> str:
    """A random id of this start of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def boot_seconds() -> float:
    """Seconds since the machine's start. It never jumps, goes on while the machine sleeps, and is one for all processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def process(pid: int) -> Process | None:
    """What is known of a process, None if there is none of this pid."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:  # no such process, or hidden from this user
        return None
    try:
        line = os.read(fd, 1024)
    except ProcessLookupError:  # it ended meanwhile
        return None
    finally:
        os.close(fd)
    f = line[line.rindex(b")") + 2 :].split()
    cpu_ticks = int(f[11]) + int(f[12]) + int(f[13]) + int(f[14])
    return Process(pid, f[0].decode(), int(f[1]), int(f[2]), int(f[3]), cpu_ticks, int(f[19]), int(f[21]) * _PAGE_BYTES)


def processes() -> dict[int, Process]:
    """Every process of the machine that this user may see."""
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {one.pid: one for one in found if one is not None}


def descendants(table: dict[int, Process], roots: Iterable[int]) -> set[int]:
    """The pids of `roots` and of all below them that still live."""
    children: dict[int, list[int]] = {}
    for one in table.values():
        children.setdefault(one.parent, []).append(one.pid)
    found, todo = set(), [pid for pid in roots if pid in table]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo.extend(children.get(pid, ()))
    return {pid for pid in found if table[pid].state != "Z"}


def children_of_this_process() -> set[int]:
    """The pids of this (single-threaded) process's children."""
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children", "rb") as file:
            return set(map(int, file.read().split()))
    except FileNotFoundError:  # a kernel without that file
        return {one.pid for one in processes().values() if one.parent == me}


def name(pid: int) -> str | None:
    """The short name of a process's program; None if there is none of this pid."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def environment_value(pid: int, name: str) -> str | None:
    """A variable of the environment that a process was started with; None if it has none, or is not ours to read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            content = file.read()
    except OSError:  # it ended, or runs as another user
        return None
    prefix = os.fsencode(name) + b"="
    for item in content.split(b"\0"):
        if item.startswith(prefix):
            return os.fsdecode(item[len(prefix) :])
    return None


def links(pid: int, *names: str) -> list[str]:
    """Where links of `/proc/PID/` lead ("cwd", "fd/1"); those that are not there, or not ours to read, are left out."""
    found = []
    for name in names:
        with contextlib.suppress(OSError):  # it ended, has closed that file, or runs as another user
            found.append(os.readlink(f"/proc/{pid}/{name}"))
    return found


def signal_processes(pids: Iterable[int], number: int) -> None:
    """Signals processes; those that ended meanwhile, or that this user may not signal, are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended, or became another user's
            os.kill(pid, number)


def signal_exactly(one: Process, number: int) -> bool:
    """Signals this very process, never another one that got its pid; False if it has ended or is not ours."""
    try:
        fd = os.pidfd_open(one.pid)
    except OSError:
        return False
    try:
        now = process(one.pid)
        if now is None or now.start != one.start:
            return False
        signal.pidfd_send_signal(fd, number)
        return True
    except (ProcessLookupError, PermissionError):  # it ended, or became another user's
        return False
    finally:
        os.close(fd)


def bytes_moved(pid: int) -> tuple[int, int] | None:
    """Bytes read and written by a process and the children it waited for, from disk or not; None if it is not ours to know."""
    try:
        fd = os.open(f"/proc/{pid}/io", os.O_RDONLY)
    except OSError:
        return None
    try:
        lines = os.read(fd, 512).split(b"\n")
        return int(lines[0].split()[1]), int(lines[1].split()[1])
    except (OSError, IndexError):  # it ended, or became another user's
        return None
    finally:
        os.close(fd)


def out_of_memory_kills() -> int:
    """How many processes the kernel ended since the machine's start because memory was short."""
    with contextlib.suppress(OSError), open("/proc/vmstat", "rb") as file:  # hidden in some containers: then 0 for ever
        for line in file:
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0
