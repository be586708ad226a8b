"""What the machine is and how busy: processors, memory, disks, network, GPUs; read from /proc, nothing to install."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
import time

MIN_FREE_BYTES = 100 * 10**6  # of the scratch disk; with less, or
MIN_FREE_SHARE = 0.01  # with less than this share of it, a worker takes no new work
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
    """Measures the machine; rates are of the time since the measurement before."""

    def __init__(self, scratch: str):
        self._scratch = scratch
        self._before: tuple[float, float, float, int, int] | None = None
        self._gpus: list[dict] | None = None
        self._gpus_at = -math.inf

    def measure(self) -> dict:
        """Load, processors (percent), memory and disks (bytes), network (bytes per second), GPUs."""
        now, (busy, total), (received, sent) = time.monotonic(), _cpu_ticks(), _network_bytes()
        stats: dict = {"load": list(os.getloadavg()), "cpus": cpu_count(), "memory": _memory(), "disks": _disks(self._scratch)}
        if self._before is not None:
            then, busy_before, total_before, received_before, sent_before = self._before
            stats["cpu_percent"] = round(100 * (busy - busy_before) / max(1, total - total_before), 1)
            seconds = max(1e-3, now - then)
            stats["network"] = {
                "received_per_second": round((received - received_before) / seconds),
                "sent_per_second": round((sent - sent_before) / seconds),
            }
        self._before = (now, busy, total, received, sent)
        if gpus := self._gpu_stats(now):
            stats["gpus"] = gpus
        return stats

    def _gpu_stats(self, now: float) -> list[dict] | None:
        if self._gpus is None and self._gpus_at > -math.inf:
            return None  # there was none at the first look
        if now >= self._gpus_at + GPU_SECONDS:
            self._gpus, self._gpus_at = _ask_gpus(), now
        return self._gpus


def _cpu_ticks() -> tuple[int, int]:
    with open("/proc/stat", "rb") as file:
        ticks = list(map(int, file.readline().split()[1:9]))
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _memory() -> dict:
    values = {}
    with open("/proc/meminfo", "rb") as file:
        for line in file:
            name, _, rest = line.partition(b":")
            values[name] = int(rest.split()[0]) * 1024
    return {
        "total": values[b"MemTotal"], "available": values.get(b"MemAvailable", values[b"MemFree"]),
        "swap_total": values.get(b"SwapTotal", 0), "swap_free": values.get(b"SwapFree", 0),
    }  # fmt: skip


def _network_bytes() -> tuple[int, int]:
    received = sent = 0
    with contextlib.suppress(OSError), open("/proc/net/dev", encoding="ascii") as file:  # hidden in some containers
        for line in file.readlines()[2:]:
            name, _, rest = line.partition(":")
            if name.strip() != "lo":
                fields = rest.split()
                received, sent = received + int(fields[0]), sent + int(fields[8])
    return received, sent


def _disks(scratch: str) -> dict[str, dict]:
    """Total and free bytes of each mounted disk, and of the scratch directory's."""
    found = {}
    for mount in [*_mounts(), scratch]:
        with contextlib.suppress(OSError):  # unmounted meanwhile, or not ours to look at
            disk = os.statvfs(mount)
            if disk.f_blocks:
                found[mount] = {"total": disk.f_blocks * disk.f_frsize, "free": disk.f_bavail * disk.f_frsize}
    return found


def _mounts() -> list[str]:
    seen: dict[str, str] = {}
    with contextlib.suppress(OSError), open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            device, mount, kind = line.split()[:3]
            if kind in _REAL_DISKS and not mount.startswith(_SKIPPED_MOUNTS):
                seen.setdefault(device if device.startswith("/") else mount, mount)
    return [mount.replace("\\040", " ") for mount in list(seen.values())[:20]]


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
    except (OSError, subprocess.SubprocessError):  # a driver without a device, or a hanging one
        return None
    return [_gpu(line) for line in said.strip().splitlines()]


def _gpu(line: str) -> dict:
    index, name, percent, used, total = (field.strip() for field in line.split(","))
    numbers = {"percent": percent, "memory_used": used, "memory_total": total}
    scale = {"percent": 1, "memory_used": 2**20, "memory_total": 2**20}
    known = {key: int(value) * scale[key] for key, value in numbers.items() if value.isdigit()}
    return {"index": int(index), "name": name, **known}
