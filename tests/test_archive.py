"""Archives that nobody vouches for: what is good is unpacked, what is hostile leaves nothing behind."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import subprocess
import tarfile
import zipfile

import pytest
from disks import small_disk
from scitq.archive import gunzip, untar, unzip
from scitq.errors import TransferFailed


def tar_of(path, *members, mode="w"):
    """A tar of `(name, content or a dict of TarInfo's properties)`."""
    with tarfile.open(path, mode) as tar:
        for name, what in members:
            one = tarfile.TarInfo(name)
            data = what if isinstance(what, bytes) else b""
            if isinstance(what, dict):
                for key, value in what.items():
                    setattr(one, key, value)
            one.size = len(data)
            tar.addfile(one, io.BytesIO(data))
    return path


def link(target, kind=tarfile.SYMTYPE):
    return {"type": kind, "linkname": target}


def all_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "in" / "here"
    made.mkdir(parents=True)
    return made


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tars_of_all_kinds(tmp_path, folder, mode):
    members = [
        ("d", {"type": tarfile.DIRTYPE, "mode": 0o755}),
        ("d/f", b"one"),
        ("./g h", b"two"),
        ("d/l", link("f")),
        ("d/e/h", link("d/f", tarfile.LNKTYPE)),
    ]
    found = untar(tar_of(tmp_path / "t", *members, mode=mode), folder)
    assert [path.name for path in found] == ["d", "g h"]
    assert (folder / "d/l").read_text() == (folder / "d/e/h").read_text() == "one" and (folder / "d/l").is_symlink()
    assert all_below(folder) == ["d", "d/e", "d/e/h", "d/f", "d/l", "g h"]


def test_real_tar_and_zip_programs(tmp_path, folder):
    source = tmp_path / "source"
    (source / "ü").mkdir(parents=True)
    (source / "ü" / "run.sh").write_text("#!/bin/sh\n")
    (source / "ü" / "run.sh").chmod(0o755)
    subprocess.run(["tar", "czf", "../t.tgz", "."], cwd=source, check=True)
    untar(tmp_path / "t.tgz", folder)
    assert os.access(folder / "ü" / "run.sh", os.X_OK)
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as file:
        file.write(source / "ü" / "run.sh", "z/run.sh")
    unzip(tmp_path / "t.zip", folder)
    assert (folder / "z/run.sh").read_text() == "#!/bin/sh\n" and os.access(folder / "z/run.sh", os.X_OK)


def test_folders_become_one_and_files_are_replaced(tmp_path, folder):
    (folder / "d").mkdir()
    (folder / "d/old").write_text("stays")
    (folder / "d/f").write_text("goes")
    untar(tar_of(tmp_path / "t", ("d/f", b"comes"), ("d/new", b"")), folder)
    assert all_below(folder) == ["d", "d/f", "d/new", "d/old"] and (folder / "d/f").read_text() == "comes"


HOSTILE = {
    "absolute": [("/tmp/scitq-evil", b"x")],
    "up": [("../evil", b"x")],
    "up from below": [("a/../../evil", b"x")],
    "up at the end": [("a/..", link("x"))],
    "a link out": [("l", link("../..")), ("l/evil", b"x")],
    "an absolute link": [("l", link("/etc/passwd"))],
    "a link through a link": [("a", link("b")), ("b", link("..")), ("a/evil", b"x")],
    "a link, then its folder": [("d", {"type": tarfile.DIRTYPE, "mode": 0o755}), ("d/l", link("..")), ("d/l/../../evil", b"x")],
    "a hard link out": [("h", link("../outside", tarfile.LNKTYPE))],
    "an absolute hard link": [("h", link("/etc/hostname", tarfile.LNKTYPE))],
    "a hard link to a link": [("l", link("f")), ("f", b"x"), ("h", link("l", tarfile.LNKTYPE))],
    "a device": [("null", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})],
    "a pipe": [("pipe", {"type": tarfile.FIFOTYPE})],
    "a file in the place of a folder": [("a/b", b"x"), ("a", b"y")],
    "a folder in the place of a file": [("a", b"x"), ("a/b", b"y")],
    "a newline and more": [("ok", b"x"), ("..\\n/../../evil", b"x")],
}


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_hostile_tars_leave_nothing_behind(tmp_path, folder, members):
    (tmp_path / "in" / "outside").write_text("not yours")
    with pytest.raises(TransferFailed, match="refused|cannot be unpacked"):
        untar(tar_of(tmp_path / "t.tar", ("innocent", b"x"), *members), folder)
    assert all_below(folder) == [] and sorted(os.listdir(tmp_path / "in")) == ["here", "outside"]
    assert not os.path.exists("/tmp/scitq-evil") and not (tmp_path / "evil").exists()


@pytest.mark.parametrize("name", ["../evil", "/tmp/scitq-evil", "a/../../evil", "..\\evil/../../../evil"])
def test_hostile_zips_leave_nothing_behind(tmp_path, folder, name):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        file.writestr("innocent", "x")
        file.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(TransferFailed, match="refused"):
        unzip(tmp_path / "z.zip", folder)
    assert all_below(folder) == [] and not os.path.exists("/tmp/scitq-evil")


def test_a_link_in_a_zip_cannot_lead_out(tmp_path, folder):
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        one = zipfile.ZipInfo("l")
        one.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(one, "../..")
    with pytest.raises(TransferFailed, match="refused"):
        unzip(tmp_path / "z.zip", folder)


def test_nobody_gets_the_rights_of_somebody_else(tmp_path, folder):
    untar(tar_of(tmp_path / "t", ("s", {"mode": 0o6777}), ("n", {"mode": 0})), folder)
    assert [stat.S_IMODE((folder / name).stat().st_mode) for name in "sn"] == [0o755, 0o600]


@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda data: b"<html>not found</html>", lambda data: b""])
@pytest.mark.parametrize("kind", ["tgz", "tar", "zip", "gz"])
def test_what_is_no_whole_archive_leaves_nothing_behind(tmp_path, folder, kind, spoil):
    path = tmp_path / "t"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("f", os.urandom(100_000))
    elif kind == "gz":
        path.write_bytes(gzip.compress(os.urandom(100_000)))
    else:
        tar_of(path, ("f", os.urandom(100_000)), mode="w:gz" if kind == "tgz" else "w")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(TransferFailed, match="no whole"):
        if kind == "gz":
            gunzip(path, folder / "f")
        else:
            (unzip if kind == "zip" else untar)(path, folder)
    assert all_below(folder) == []


def test_gunzip_of_several_members(tmp_path, folder):
    (tmp_path / "f.gz").write_bytes(gzip.compress(b"one ") + gzip.compress(b"two"))
    gunzip(tmp_path / "f.gz", folder / "f")
    assert (folder / "f").read_bytes() == b"one two" and all_below(folder) == ["f"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_does_not_fill_the_disk(tmp_path, pack):
    bomb = tar_of(tmp_path / "b.tar", ("zeros", bytes(30 * 2**20)))
    bomb.write_bytes(pack(bomb.read_bytes()))
    with small_disk(tmp_path / "disk", 20 * 2**20) as disk:
        with pytest.raises(TransferFailed, match="has no room"):
            untar(bomb, disk.directory)
        assert os.listdir(disk.directory) == []


def test_a_million_names_need_little_memory(tmp_path, folder):
    import resource

    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(10_000):
            tar.addfile(tarfile.TarInfo(f"{number % 100}/{number}"))
            tar.members = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    untar(path, folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # kB
    assert len(list((folder / "7").iterdir())) == 100
