"""Disks of the tests' own: small ones that fill at will, and ones whose power can be cut. They want root, to mount them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

SMALL_BYTES = 8 * 2**20
_BALLAST = "ballast"


class SmallDisk:
    """A tmpfs mounted on a directory."""

    def __init__(self, directory: Path, size: int):
        self.directory = directory

        def mount(*words: str) -> None:
            subprocess.run(words, check=True, capture_output=True)

        directory.mkdir(parents=True)
        mount("mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(directory))

    @property
    def free(self) -> int:
        """Bytes."""
        disk = os.statvfs(self.directory)
        return disk.f_bavail * disk.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Nothing is left but so many bytes."""
        with open(self.directory / _BALLAST, "ab") as ballast, contextlib.suppress(OSError):  # full: that is what it is for
            while (rest := self.free - leave) > 0:
                ballast.write(bytes(min(rest, 2**20)))
                ballast.flush()

    def empty(self) -> None:
        """What `fill` took is free again."""
        (self.directory / _BALLAST).unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.directory)], check=True)
        self.directory.rmdir()


@contextlib.contextmanager
def small_disk(directory: Path, size: int = SMALL_BYTES) -> Iterator[SmallDisk]:
    """A disk of `size` bytes on a new directory. Where it cannot be mounted the test is skipped, or fails if it has to run."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk wants root")
    try:
        disk = SmallDisk(directory, size)
    except subprocess.CalledProcessError as error:
        (pytest.fail if os.environ.get("SCITQ_TESTS_REQUIRE_SERVICES") else pytest.skip)(f"no tmpfs here: {error.stderr!r}")
    try:
        yield disk
    finally:
        disk.close()


class Powered:
    """An ext4 file system in a file, whose power can be cut."""

    def __init__(self, directory: Path):
        self.directory = directory
        self._image, self._kept = (directory.parent / f"{directory.name}.{end}" for end in ("image", "kept"))
        directory.mkdir()
        with open(self._image, "wb") as file:
            file.truncate(64 * 2**20)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self._image)], check=True)
        self._mount()

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self._image), str(self.directory)], check=True, capture_output=True)

    def unmount(self) -> None:
        """Ends it."""
        subprocess.run(["umount", "-l", str(self.directory)], check=True)

    def keep(self) -> None:
        """What is on the disk now is what a power cut leaves."""
        shutil.copyfile(self._image, self._kept)

    def cut(self) -> None:
        """The disk is what was kept, mounted again."""
        self.unmount()
        os.replace(self._kept, self._image)
        self._mount()


@contextlib.contextmanager
def powered(directory: Path) -> Iterator[Powered]:
    """A disk on a new directory. Where it cannot be mounted the test is skipped, or fails if it has to run."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("a disk whose power can be cut wants root and mkfs.ext4")
    try:
        disk = Powered(directory)
    except subprocess.CalledProcessError as error:
        (pytest.fail if os.environ.get("SCITQ_TESTS_REQUIRE_SERVICES") else pytest.skip)(f"no loop device here: {error.stderr!r}")
    try:
        yield disk
    finally:
        disk.unmount()
