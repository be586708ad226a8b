"""What the machine is and how busy: processors, memory, disks, network, GPUs."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Iterable
from functools import cached_property
from types import ModuleType

MIN_FREE_BYTES = 100 * 10**6  # of the scratch disk; with less, or
MIN_FREE_SHARE = 0.01  # with less than this share of it, a worker takes no new work
MOST_DISKS = 20  # that are told
GPU_SECONDS = 30.0  # asking the driver costs some 50 ms of processor
_REAL_DISKS = (
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "zfs",
    "f2fs",
    "nfs",
    "nfs4",
    "cifs",
    "lustre",
    "beegfs",
    "gpfs",
    "ceph",
    "overlay",
    "tmpfs",
)
_SKIPPED_MOUNTS = ("/proc", "/sys", "/dev", "/run", "/boot", "/snap", "/var/lib/docker", "/var/lib/containers")


def cpu_count() -> int:
    """Processors this process may use, after affinity and the limits of its control group; at least 1."""
    count = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:  # no limit there
        quota, period = map(int, file.read().split())
        count = min(count, math.ceil(quota / period))
    return max(1, count)


def memory_bytes() -> int:
    """The machine's memory, or what its control group may use of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:  # no limit there
        total = min(total, int(file.read()))
    return total


def disk_problem(directory: str) -> str | None:
    """Why a worker cannot work in this directory, in a sentence; None if it can."""
    try:
        disk = os.statvfs(directory)
    except OSError as error:
        return f"the scratch directory {directory} cannot be read: {error.strerror}"
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"the scratch directory {directory} cannot be written"
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if free < min(MIN_FREE_BYTES, 0.5 * total) or free < MIN_FREE_SHARE * total:
        return f"the disk of the scratch directory {directory} is full ({free / 1e6:.0f} MB free): make room there"
    if disk.f_files and disk.f_favail < 100:
        return f"the disk of the scratch directory {directory} has no room for more files ({disk.f_favail} left): remove some"
    return None


def free_share(directory: str) -> float:
    """The share of a disk that is free, 0 to 1; 1 if it cannot be known."""
    try:
        disk = os.statvfs(directory)
    except OSError:
        return 1.0
    return disk.f_bavail / disk.f_blocks if disk.f_blocks else 1.0


def gpu_devices() -> list[str]:
    """The names of the GPUs that commands may use, as CUDA_VISIBLE_DEVICES has them; what this process was given counts."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    with contextlib.suppress(OSError):  # no NVIDIA driver
        return [str(number) for number in range(len(os.listdir("/proc/driver/nvidia/gpus")))]
    return [str(one["index"]) for one in _ask_gpus() or ()]


def share_devices(devices: list[str], slot: int, slots: int) -> str | None:
    """The GPUs of a run slot: one each in turn, several when there are fewer slots than GPUs; None on a machine without any."""
    if not devices:
        return None
    if slots >= len(devices):
        return devices[slot % len(devices)]
    return ",".join(devices[slot % slots :: slots])


class Meter:
    """Measures the machine, from one thread; rates are of the time since the measurement before.

    Where psutil cannot be had (musl, for instance) `note` is told so once, and what it would measure is left out.
    """

    def __init__(self, scratch: str, note: Callable[[str], None] = lambda sentence: None):
        self._scratch, self._note = scratch, note
        self._before: tuple[float, int, int] | None = None
        self._gpus: list[dict] | None = None
        self._gpus_at = -math.inf

    @cached_property
    def _psutil(self) -> ModuleType | None:
        try:
            import psutil  # 1 MB and 8 ms that only a worker pays

            return psutil
        except (ImportError, OSError) as error:  # OSError: the one file finds no place to unpack it
            self._note(f"processors, memory, network and most disks are not measured here: {error}")
            return None

    def measure(self) -> dict:
        """Load, processors (percent), memory and disks (bytes), network (bytes per second), GPUs; as far as they can be known."""
        now, psutil = time.monotonic(), self._psutil
        stats: dict = {"load": list(os.getloadavg()), "cpus": cpu_count()}
        if psutil is not None:
            with contextlib.suppress(OSError):  # parts of /proc are hidden in some containers
                stats["memory"] = _memory(psutil)
                stats |= self._rates(psutil, now)
        stats["disks"] = _disks([*(_mounts(psutil) if psutil is not None else []), self._scratch])
        if gpus := self._gpu_stats(now):
            stats["gpus"] = gpus
        return stats

    def _rates(self, psutil: ModuleType, now: float) -> dict:
        """What needs two looks; nothing at the first."""
        percent = psutil.cpu_percent()  # since the call before, in this thread
        cards = [card for name, card in psutil.net_io_counters(pernic=True).items() if name != "lo"]
        received, sent = sum(card.bytes_recv for card in cards), sum(card.bytes_sent for card in cards)
        before, self._before = self._before, (now, received, sent)
        if before is None:
            return {}
        seconds = max(1e-3, now - before[0])
        received_rate, sent_rate = max(0, received - before[1]) / seconds, max(0, sent - before[2]) / seconds  # cards come and go
        return {
            "cpu_percent": percent,
            "network": {"received_per_second": round(received_rate), "sent_per_second": round(sent_rate)},
        }

    def _gpu_stats(self, now: float) -> list[dict] | None:
        if self._gpus is None and self._gpus_at > -math.inf:
            return None  # there was none at the first look
        if now >= self._gpus_at + GPU_SECONDS:
            self._gpus, self._gpus_at = _ask_gpus(), now
        return self._gpus


def _memory(psutil: ModuleType) -> dict:
    memory = psutil.virtual_memory()
    with warnings.catch_warnings():  # it may warn that what was swapped is not known: nobody asks for that
        warnings.simplefilter("ignore", RuntimeWarning)
        swap = psutil.swap_memory()
    return {"total": memory.total, "available": memory.available, "swap_total": swap.total, "swap_free": swap.free}


def _disks(mounts: Iterable[str]) -> dict[str, dict]:
    """Total and free bytes of each disk that is mounted there, in the order given; one that is given twice comes last."""
    found: dict[str, dict] = {}
    for mount in mounts:
        with contextlib.suppress(OSError):  # unmounted meanwhile, or not ours to look at
            disk = shutil.disk_usage(mount)
            if disk.total:
                found.pop(mount, None)
                found[mount] = {"total": disk.total, "free": disk.free}
    return found


def _mounts(psutil: ModuleType) -> list[str]:
    """Where the disks are mounted, each once; network disks too, which psutil does not count as physical."""
    seen: dict[str, str] = {}
    with contextlib.suppress(OSError):  # hidden in some containers
        for part in psutil.disk_partitions(all=True):
            if part.fstype in _REAL_DISKS and not part.mountpoint.startswith(_SKIPPED_MOUNTS):
                seen.setdefault(part.device if part.device.startswith("/") else part.mountpoint, part.mountpoint)
    return list(seen.values())[:MOST_DISKS]


def _ask_gpus() -> list[dict] | None:
    """What nvidia-smi says of each GPU; None without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = "index,name,utilization.gpu,memory.used,memory.total"
    try:
        said = subprocess.run(
            [program, f"--query-gpu={asked}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
        return [_gpu(line) for line in said.strip().splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError):  # a driver without a device, a hanging one, or one that complains
        return None


def _gpu(line: str) -> dict:
    index, name, percent, used, total = (field.strip() for field in line.split(","))
    numbers = {"percent": percent, "memory_used": used, "memory_total": total}
    scale = {"percent": 1, "memory_used": 2**20, "memory_total": 2**20}
    known = {key: int(value) * scale[key] for key, value in numbers.items() if value.isdigit()}
    return {"index": int(index), "name": name, **known}
