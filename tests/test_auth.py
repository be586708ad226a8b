"""Tokens, what roles reach, and the tokens file under every condition it can be found in."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from scitq import auth, errors
from scitq.protocol import ROLES


@pytest.fixture(autouse=True)
def configuration(tmp_path, monkeypatch):
    for name in ("SCITQ_TOKEN", "SCITQ_SERVER", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCITQ_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


def test_tokens_are_random_and_as_announced():
    tokens = {auth.new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(token.startswith("scitq_") and len(token) == 6 + 43 and token.isprintable() for token in tokens)


def test_the_hash_is_sha256_and_takes_any_text():
    assert auth.hash_token("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert auth.hash_token("\udcff") != auth.hash_token("")


@pytest.mark.parametrize(
    ("role", "wanted", "may"),
    [
        ("admin", "admin", True), ("admin", "user", True), ("admin", "worker", False),
        ("user", "admin", False), ("user", "user", True), ("user", "worker", False),
        ("worker", "admin", False), ("worker", "user", False), ("worker", "worker", True),
        ("root", "user", False), (None, "user", False), ("", "user", False), ("user", "nonsense", False),
        (None, None, True),
    ],
)  # fmt: skip
def test_roles(role, wanted, may):
    assert auth.permits(role, wanted) is may


def test_every_role_has_its_line():
    assert set(auth.REACH) == set(ROLES)


def test_saved_and_found_again(configuration):
    path = auth.save_token("127.0.0.1:5000", "scitq_a")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(configuration).st_mode) == 0o700
    assert auth.find_token("127.0.0.1") == "scitq_a"
    assert sorted(os.listdir(configuration)) == ["tokens.json", "tokens.lock"]


@pytest.mark.parametrize(
    "name", ["localhost", "127.0.0.1", "http://127.0.1.1:5000/", "::1", "http://[::1]:5000", "0.0.0.0", None]
)
def test_all_names_of_loopback_are_one(name):
    auth.save_token("localhost:5000", "scitq_a")
    assert auth.find_token(name) == "scitq_a"


@pytest.mark.parametrize("name", ["localhost:5001", "https://localhost", "127.evil.example", "node", "http://localhost/other"])
def test_no_other_server_gets_it(name):
    auth.save_token("localhost:5000", "scitq_a")
    assert auth.find_token(name) is None


def test_order_of_places(monkeypatch):
    auth.save_token("localhost", "from-file")
    monkeypatch.setenv("SCITQ_TOKEN", "from-environment")
    assert auth.find_token("localhost", "given") == "given"
    assert auth.find_token("localhost") == "from-environment"
    monkeypatch.delenv("SCITQ_TOKEN")
    assert auth.find_token("localhost") == "from-file"


def test_forgotten():
    auth.save_token("a", "1")
    auth.save_token("b", "2")
    auth.forget_token("a")
    auth.forget_token("never-seen")
    assert (auth.find_token("a"), auth.find_token("b")) == (None, "2")


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser reads everything")
def test_an_unreadable_file_is_told(configuration):
    path = auth.save_token("a", "1")
    os.chmod(path, 0)
    with pytest.raises(errors.NotAllowed, match="cannot be read"):
        auth.find_token("a")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_file_open_to_others_is_refused(mode):
    path = auth.save_token("a", "1")
    os.chmod(path, mode)
    with pytest.raises(errors.NotAllowed, match="chmod 600"):
        auth.find_token("a")


def test_a_directory_others_may_write_is_refused(configuration):
    configuration.mkdir()
    os.chmod(configuration, 0o777)
    with pytest.raises(errors.NotAllowed, match="chmod go-w"):
        auth.save_token("a", "1")
    assert os.listdir(configuration) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only the superuser can give a file away")
def test_a_file_of_another_user_is_refused(configuration, monkeypatch):
    path = auth.save_token("a", "1")
    os.chown(path, 12345, 12345)
    assert auth.find_token("a") == "1"  # the superuser may
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(errors.NotAllowed, match="belongs to another user"):
        auth.find_token("a")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', "null"])
def test_a_broken_file_is_told_and_kept(configuration, content):
    path = auth.save_token("a", "1")
    Path(path).write_text(content)
    with pytest.raises(errors.InvalidRequest, match="move it away"):
        auth.save_token("b", "2")
    assert Path(path).read_text() == content


def test_a_killed_writer_leaves_nothing_that_hinders(configuration):
    path = auth.save_token("a", "1")
    Path(f"{path}.{os.getpid()}").write_text("half")
    auth.save_token("b", "2")
    assert json.loads(Path(path).read_text()).keys() == {"http://a:5000", "http://b:5000"}


def _save_some(index):
    for i in range(10):
        auth.save_token(f"host{index}-{i}", "t")


def test_writers_at_the_same_time_lose_nothing():
    processes = [multiprocessing.get_context("fork").Process(target=_save_some, args=(i,)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert len(auth.load_tokens()) == 40


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        ({"SCITQ_CONFIG": "/c", "XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/c"),
        ({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/x/scitq"),
        ({"HOME": "/h"}, "/h/.config/scitq"),
        ({"TMPDIR": "/t"}, f"/t/scitq-{os.getuid()}"),
        ({}, f"/tmp/scitq-{os.getuid()}"),
    ],
)
def test_where_the_file_lies(monkeypatch, environment, directory):
    for name in ("SCITQ_CONFIG", "XDG_CONFIG_HOME", "HOME", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert auth.config_directory() == directory
