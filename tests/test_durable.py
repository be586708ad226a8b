"""What is on the disk when the power is cut: unpacked archives and resources are whole, or not there."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from disks import powered
from scitq.archive import gunzip, untar, unzip
from scitq.durable import FEW, settle, write_whole
from scitq.resources import Resources

URI = "s3://bucket/resource/"


def content(number: int) -> bytes:
    return b"%d " % number * 1000


def numbered(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tar_of(path: Path, many: int) -> Path:
    with tarfile.open(path, "w") as tar:
        for number in range(many):
            one = tarfile.TarInfo(f"d/{number}")
            one.size = len(content(number))
            tar.addfile(one, io.BytesIO(content(number)))
    return path


def commit(directory: Path) -> None:
    """Something else is brought to the disk, and with it the names of all that was changed before."""
    with open(directory / "other", "w") as file:
        os.fsync(file.fileno())


@pytest.mark.parametrize("many", [3, FEW + 50])
def test_an_archive_goes_when_what_was_in_it_is_on_the_disk(tmp_path, many):
    with powered(tmp_path / "disk") as disk:
        archive = tar_of(disk.directory / "a.tar", many)
        settle(disk.directory)
        untar(archive, disk.directory / "here")
        archive.unlink()
        commit(disk.directory)
        disk.keep()
        disk.cut()
        assert not (disk.directory / "a.tar").exists()
        assert numbered(disk.directory / "here") == {f"d/{number}": content(number) for number in range(many)}


def test_zip_and_gzip_too(tmp_path):
    with powered(tmp_path / "disk") as disk:
        with zipfile.ZipFile(disk.directory / "a.zip", "w") as file:
            file.writestr("x", content(1))
        unzip(disk.directory / "a.zip", disk.directory / "here")
        (disk.directory / "y.gz").write_bytes(gzip.compress(content(2)))
        gunzip(disk.directory / "y.gz", disk.directory / "here" / "y")
        disk.keep()
        disk.cut()
        assert numbered(disk.directory / "here") == {"x": content(1), "y": content(2)}


@pytest.mark.parametrize("many", [3, FEW + 50])
def test_a_resource_that_is_remembered_is_there(tmp_path, many):
    """Whoever brought its files: they were only written."""
    with powered(tmp_path / "disk") as disk:
        resources = Resources(str(disk.directory / "resources"))
        coming = Path(resources.coming(URI), "in")
        coming.mkdir()
        for number in range(many):
            (coming / str(number)).write_bytes(content(number))
        resources.keep(URI)
        disk.keep()
        disk.cut()
        resources = Resources(str(disk.directory / "resources"))
        assert resources.has(URI)
        (files,) = disk.directory.glob("resources/*/files/in")
        assert numbered(files) == {str(number): content(number) for number in range(many)}


def test_names_that_lead_nowhere_do_not_matter(tmp_path):
    (tmp_path / "to-nothing").symlink_to(tmp_path / "nothing")
    settle(tmp_path)


def test_a_file_is_replaced_whole_with_its_rights_or_not_at_all(tmp_path):
    """Whatever a process of this id left beside it when it was killed."""
    (tmp_path / f"kept.{os.getpid()}").write_text("half of an older on")
    write_whole(tmp_path / "kept", b"new", 0o600)
    assert (tmp_path / "kept").read_bytes() == b"new" and (tmp_path / "kept").stat().st_mode & 0o777 == 0o600
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_whole(tmp_path / "folder", b"new")
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "folder"}
