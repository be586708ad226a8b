"""Promise 32: hostile archives cannot write outside, fill the disk or the memory; nothing of them is left, and nothing else is
harmed.

A corpus goes through `scitq fetch` and, as inputs and resources, through a worker's courier; tests/test_archive.py has the rest.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import signal
import stat
import subprocess
import tarfile
import zipfile

import pytest
from disks import small_disk
from env import PROGRAM

MEMORY_BYTES = 600 * 10**6  # of addresses, which is more than it uses
UNEXPECTED = re.compile(r"unexpected \w*(Error|Exception)")


def member(name: str, data: bytes = b"", **properties) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for key, value in properties.items():
        setattr(made, key, value)
    return made, data


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE):
    return member(name, type=kind, linkname=target)


def folder(name: str):
    return member(name, type=tarfile.DIRTYPE, mode=0o755)


def tar(*members) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as made:
        for one, content in members:
            made.addfile(one, io.BytesIO(content))
    return data.getvalue()


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members:
            made.writestr(name, content)
    return data.getvalue()


def zip_link(name: str, target: bytes) -> tuple[zipfile.ZipInfo, bytes]:
    made = zipfile.ZipInfo(name)
    made.external_attr = (stat.S_IFLNK | 0o777) << 16
    made.compress_type = zipfile.ZIP_DEFLATED
    return made, target


def becomes_another(*last) -> bytes:
    """A link that leads nowhere while it is made, and up out of the folder once what it goes through is there."""
    ups = "/".join([".."] * 4)
    return tar(
        folder("s/deep"), folder("d1/sub"),
        link("d2/sub", f"../B/C/D/E/F/{ups}"),  # inside, as long as B is nowhere
        link("d2/other", "."),
        link("D", "."), link("E", "."), link("F", "."), link("s/deep/C", "../.."), link("B", "s/deep"),
        *last,
    )  # fmt: skip


def huge_header() -> bytes:
    """A name of 600 MB, first of all."""
    data = io.BytesIO()
    with gzip.open(data, "wb", compresslevel=1) as file:
        one = tarfile.TarInfo("././@LongLink")
        one.type, one.size = tarfile.GNUTYPE_LONGNAME, 600 * 2**20
        file.write(one.tobuf(tarfile.GNU_FORMAT))
        for _ in range(600):
            file.write(b"a" * 2**20)
        file.write(tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    return data.getvalue()


def growing_headers() -> bytes:
    """Ever more properties of all files, 600 kB a file."""
    data = io.BytesIO()
    with gzip.open(data, "wb", compresslevel=1) as file:
        for number in range(600):
            body = tarfile.TarInfo._create_pax_generic_header({f"k{number}": "v" * 600_000}, tarfile.XGLTYPE, "utf-8")
            file.write(body + tarfile.TarInfo(f"f{number}").tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(1024))
    return data.getvalue()


CORPUS = {
    "absolute.tgz": lambda: tar(member("/tmp/evil", b"x")),
    "up.tgz": lambda: tar(member("../evil", b"x")),
    "up in the middle.tgz": lambda: tar(member("a/../../evil", b"x")),
    "link out.tgz": lambda: tar(link("l", "/etc")),
    "link up.tgz": lambda: tar(link("a/l", "../../..")),
    "through a link.tgz": lambda: tar(link("l", ".."), member("l/evil", b"x")),
    "hard link out.tgz": lambda: tar(link("l", "/etc/passwd", tarfile.LNKTYPE)),
    "hard link to a link.tgz": lambda: tar(link("l", "nowhere"), link("h", "l", tarfile.LNKTYPE)),
    "a link becomes another.tgz": lambda: becomes_another(),
    "through what becomes another.tgz": lambda: becomes_another(
        link("l", "d1"), member("l/sub/x", b"1"), link("l", "d2"), member("l/sub/evil", b"x")
    ),
    "device.tgz": lambda: tar(member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)),
    "disk.tgz": lambda: tar(member("sda", type=tarfile.BLKTYPE, devmajor=8)),
    "pipe.tgz": lambda: tar(member("p", type=tarfile.FIFOTYPE)),
    "huge header.tgz": huge_header,
    "growing headers.tgz": growing_headers,
    "good and evil.tgz": lambda: tar(member("good", b"x"), member("../evil", b"x")),
    "half.tgz": lambda: tar(member("a", os.urandom(100_000)))[:50_000],
    "html.tgz": lambda: b"<html>404 of a server that says 200</html>",
    "empty.tgz": lambda: b"",
    "up.zip": lambda: zipped(("../evil", b"x")),
    "absolute.zip": lambda: zipped(("/tmp/evil", b"x")),
    "link.zip": lambda: zipped(zip_link("l", b"/etc"), ("l/evil", b"x")),
    "huge link.zip": lambda: zipped(zip_link("l", b"a" * (600 * 2**20))),
    "half.zip": lambda: zipped(("a", os.urandom(100_000)))[:50_000],
    "html.zip": lambda: b"<html>",
    "half.gz": lambda: gzip.compress(os.urandom(100_000))[:50_000],
    "html.gz": lambda: b"<html>",
    "empty.gz": lambda: b"",
}
ACTIONS = {"tgz": "untar", "zip": "unzip", "gz": "gunzip"}


def uri(path) -> str:
    return f"file://{path}|{ACTIONS[path.suffix[1:]]}"


def all_below(directory) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def fetched(source, into) -> str:
    """`scitq fetch` of it, with little memory: what it said."""
    words = ["prlimit", f"--as={MEMORY_BYTES}", *PROGRAM, "fetch", "get", "-q", uri(source), f"{into}/"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and not UNEXPECTED.search(done.stderr), done
    return done.stderr


@pytest.mark.parametrize("name", CORPUS)
def test_nothing_of_it_is_written(tmp_path, name):
    source = tmp_path / "source"
    source.mkdir()
    (source / name).write_bytes(CORPUS[name]())
    here = tmp_path / "a" / "b" / "here"
    here.mkdir(parents=True)
    (here / "mine").write_text("mine")
    fetched(source / name, here)
    there = ["a", "a/b", "a/b/here", f"a/b/here/{name}", "a/b/here/mine", "source", f"source/{name}"]
    assert all_below(tmp_path) == sorted(there)
    assert (here / "mine").read_text() == "mine" and not os.path.lexists("/tmp/evil")


def bomb(kind: str) -> bytes:
    zeros = bytes(40 * 2**20)
    if kind == "zip":
        return zipped(("zeros", zeros))
    return gzip.compress(zeros, 1) if kind == "gz" else tar(member("zeros", zeros))


@pytest.mark.parametrize("kind", ACTIONS)
def test_a_bomb_leaves_room_for_others(tmp_path, kind):
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(bomb(kind))
    with small_disk(tmp_path / "disk", 16 * 2**20) as disk:
        assert "has no room for all that is in it" in fetched(path, disk.directory)
        assert all_below(disk.directory) == [path.name] and disk.free > 15 * 2**20


def test_rights_of_others_are_not_taken_over(tmp_path):
    (tmp_path / "a.tgz").write_bytes(
        tar(member("f", b"x", mode=0o6777, uid=12345, gid=12345), folder("d"), member("d/g", mode=0))
    )
    subprocess.run([*PROGRAM, "fetch", "get", "-q", uri(tmp_path / "a.tgz"), f"{tmp_path}/here/"], check=True)
    found = (tmp_path / "here" / "f").stat()
    assert stat.S_IMODE(found.st_mode) == 0o755 and found.st_uid == os.geteuid()
    assert stat.S_IMODE((tmp_path / "here" / "d" / "g").stat().st_mode) & 0o600 == 0o600


def test_a_worker_refuses_them_as_inputs_and_resources_and_goes_on(env, tmp_path):
    """One task each, all at once; the worker's scratch is all that is written to."""
    env.server()
    env.worker(4)
    source = tmp_path / "source"
    source.mkdir()
    names = [name for name in CORPUS if not name.startswith(("huge", "growing"))]
    for name in names:
        (source / name).write_bytes(CORPUS[name]())
    specs = [{"command": "true", noun: [uri(source / name)]} for name in names for noun in ("input", "resource")]
    tasks = env.create(*specs)
    env.wait_state(tasks, "failed")
    for spec, task in zip(specs, env.items("/tasks", ids=tasks, order="id")):
        assert task["reason"] and not UNEXPECTED.search(task["reason"]), (spec, task["reason"])
    good = tmp_path / "source" / "good.tgz"
    good.write_bytes(tar(member("fine", b"x")))
    [last] = env.create({"command": "ls $INPUT $RESOURCE", "shell": "sh", "input": [uri(good)], "resource": [uri(good)]})
    env.wait_state(last)
    assert env.stdout(last).count(b"fine") == 2
    there = [name for _, folders, files in os.walk(tmp_path) for name in folders + files]  # where a worker takes folders away
    assert not [name for name in there if name.startswith(("evil", ".scitq-unpack-"))] and not os.path.lexists("/tmp/evil")


@pytest.mark.parametrize("when", range(1, 60, 7))
def test_killed_while_it_unpacks_nothing_half_stays(tmp_path, when):
    """SIGKILL at the N-th file that is opened for writing: the same command then brings all, and removes what was left."""
    from strikes import can_trace

    if not can_trace():
        (pytest.fail if os.environ.get("SCITQ_TESTS_REQUIRE_SERVICES") else pytest.skip)("strace cannot trace here")
    content = {f"d/f{number}": os.urandom(5000) for number in range(40)}
    (tmp_path / "a.tgz").write_bytes(tar(*(member(name, data) for name, data in content.items())))
    words = [*PROGRAM, "fetch", "get", "-q", f"{uri(tmp_path / 'a.tgz')}|mv:ref", f"{tmp_path}/here/"]
    inject = ["-e", "trace=chmod,rename,unlink", "-e", f"inject=chmod,rename,unlink:signal=KILL:when={when}"]
    struck = subprocess.run(["strace", "-D", "-f", "-qq", "-o", "/dev/null", *inject, *words], capture_output=True)
    assert struck.returncode in (0, -signal.SIGKILL)
    here = tmp_path / "here"
    for path in here.glob("ref/d/*"):
        assert path.read_bytes() == content[f"d/{path.name}"]
    for _ in range(2):  # the second time over what is there
        subprocess.run(words, check=True)
        assert all_below(here) == sorted(["ref", "ref/d", *(f"ref/{name}" for name in content)])
    assert all((here / "ref" / name).read_bytes() == data for name, data in content.items())
