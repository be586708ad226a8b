"""Workers on hosts that ssh reaches, beyond what all providers do alike: a real sshd, real keys, shells of all kinds."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from clouds.rig import command_lines
from clouds.ssh import PLAIN
from clouds.ssh import Rig as Base
from disks import small_disk
from scitq.cloud import onhost
from scitq.cloud.provider import SILENT, STOPPED, UP, CloudRefused, CloudTrouble, Machine, NoRoom
from services import needed
from test_cloud_providers import OURS, until


class Rig(Base):
    """More hosts, each with a shell of another kind."""

    shells = {
        **Base.shells,
        "csh": 'csh -c "$SSH_ORIGINAL_COMMAND"',
        "fish": 'fish -c "$SSH_ORIGINAL_COMMAND"',
        "noisy": f"echo Welcome to the machine; echo -n no line; {PLAIN}; echo logout",
        "small": PLAIN,
        "gpus": f'PATH="$HOME/bin:$PATH" {PLAIN}',
        "gone": "echo This account is currently not available.; exit 1",
    }

    def on(self, host: str, **keys):
        """The provider of one host alone."""
        return self.provider(config={**self.config, "hosts": [host], **keys})

    def options(self, path: Path, host: str, **words) -> list[str]:
        """Of a client that knows one host in another way, and no other."""
        folder = self.sshd.folder
        usual = {
            "HostName": "127.0.0.1",
            "Port": self.sshd.ports.get(host),
            "IdentitiesOnly": "yes",
            "IdentityFile": folder / "id",
        }
        usual |= {"UserKnownHostsFile": folder / "known_hosts", "GlobalKnownHostsFile": "/dev/null", "ControlPath": "none"}
        lines = "".join(f"  {name} {value}\n" for name, value in {**usual, **words}.items())
        path.write_text(f"Host {host}\n{lines}")
        return ["-F", str(path)]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    made = Rig(tmp_path_factory.mktemp("ssh"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCITQ_ONE_FILE", made.environ["SCITQ_ONE_FILE"])
        yield made
    left = made.things()
    made.close()
    assert left == set()


@pytest.fixture
def order(hosts, request):
    """An order for node1; what came of it is removed."""
    made = hosts.order()
    yield made
    for record in (hosts.sshd.folder / "homes").glob("*/.local/share/scitq/*/machine.json"):
        host = record.relative_to(hosts.sshd.folder).parts[1]
        hosts.on(host).delete(Machine(record.parent.name, hosts.region, UP, id=host))


def for_host(order, host: str):
    return replace(order, flavor=host)


# --- a worker that works ---------------------------------------------------------------------------------------------------


def test_a_worker_on_a_host_from_its_start_to_its_end(hosts, env, order):
    """It works; killed and asked for again it goes on with its task; it takes all that its tasks started with it."""
    env.server()
    start = replace(order.start, server=env.url, token=env.token, worker="there")
    order = replace(order, start=start)
    hosts.provider().create(order)
    task = env.launch("sh", "-c", "setsid sleep 1000 & echo $$ $!; sleep 1000")
    env.wait_state(task, "running")
    pids = [int(word) for word in env.until(lambda: env.stdout(task).split(), what="it says its processes")]
    record = json.loads(next(hosts.sshd.home("node1").glob(".local/share/scitq/*/machine.json")).read_text())
    os.kill(record["pid"], signal.SIGKILL)
    env.until(lambda: hosts.machine(order.name).state == STOPPED, what="its end is seen")
    hosts.provider().create(order)
    assert hosts.machine(order.name).state == UP and env.state(task) == "running" and len(env.executions(task)) == 1
    hosts.provider().delete(hosts.machine(order.name))
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert hosts.things() == set()


def test_deployed_by_a_server(hosts, env):
    """With a token of its own, and removed with all that it was given."""
    env.server(
        "--config", hosts.configuration(env.directory / "server.yaml", {**hosts.config, "maximum": 1}), variables=hosts.environ
    )
    env.cli("manage", "worker", "deploy", "2", "-P", "it", "-r", "it", "-f", "auto:cpu>=1", "-b", "b", "--wait", code=0)
    assert sorted(row["flavor"] for row in env.items("/machines")) == ["node1", "node2"]
    env.wait_state(env.launch("-b", "b", "true"))
    env.cli("manage", "worker", "delete", "-n", "it-*", "--wait", "--yes", code=0)
    assert hosts.things() == set()


def test_why_a_worker_ended_is_told(hosts, env, order):
    env.server()
    order = replace(order, start=replace(order.start, server=env.url))  # its token is nobody's
    hosts.provider().create(order)
    env.until(lambda: hosts.machine(order.name).state == STOPPED, what="it is refused")
    assert "token" in hosts.machine(order.name).message


# --- shells and files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shell", "package"), [("csh", "tcsh"), ("fish", "fish"), ("noisy", None)])
def test_whatever_the_login_shell_is_and_says(hosts, order, shell, package):
    if package:
        needed(shell, package)
    provider = hosts.on(shell)
    assert provider.create(for_host(order, shell)).state == UP
    assert any("scp did not bring it" in line for line in hosts.said) == (shell == "noisy")  # sftp cannot be where a shell talks
    assert [machine.name for machine in provider.list()] == [order.name]


def test_the_file_is_copied_once(hosts, order):
    """What another worker's copy left in the cache of the host serves the next one; a part of a file never does."""
    copies = hosts.sshd.home("node2") / ".cache" / "scitq" / "copies"
    subprocess.run(["rm", "-rf", copies], check=True)
    first, second = for_host(order, "node2"), replace(for_host(order, "node2"), name=order.name + "b")
    provider = hosts.provider()
    said = hosts.said
    provider.create(first)
    assert [line for line in said if "copying" in line]
    until(lambda: list(copies.glob("*/scitq.pyz")), "it has made itself a copy")
    said.clear()
    provider.create(second)
    assert not [line for line in said if "copying" in line]
    provider.delete(replace(provider.create(second), id=None))
    (copy,) = copies.glob("*/scitq.pyz")
    copy.write_bytes(copy.read_bytes()[:-1])
    provider.create(second)
    assert [line for line in said if "copying" in line]
    copy.unlink()


def test_a_full_disk_is_no_room_and_leaves_nothing(hosts, order):
    with small_disk(hosts.sshd.home("small") / ".local", 2**20) as disk:
        disk.fill(leave=100_000)
        provider = hosts.on("small")
        with pytest.raises(NoRoom, match="small: its disk is full"):
            provider.create(for_host(order, "small"))
        disk.fill()
        (machine,) = provider.list()
        provider.delete(machine)
        assert list(provider.list()) == [] and hosts.things() == set()


def test_what_a_host_has_is_shared_by_its_workers(hosts, order):
    (hosts.sshd.home("gpus") / "bin").mkdir()
    driver = hosts.sshd.home("gpus") / "bin" / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho NVIDIA A100-SXM4-80GB, 81920\necho NVIDIA A100-SXM4-80GB, 81920\n")
    driver.chmod(0o755)
    one, two = (list(hosts.on("gpus", maximum=maximum, price=2, currency="EUR").flavors())[0] for maximum in (1, 2))
    assert (one.gpus, one.gpu, one.gpumem, one.price, one.currency) == (2, "NVIDIA A100-SXM4-80GB", 85.9, 2, "EUR")
    assert "G" in one.tags and one.eviction == 0
    assert one.cpu == len(os.sched_getaffinity(0)) and two.cpu == max(1, one.cpu // 2)
    assert two.ram == pytest.approx(one.ram / 2, abs=0.1) and two.disk == pytest.approx(one.disk / 2, abs=0.1)
    assert (one.available, two.available, two.gpus) == (1, 2, 1)
    for name in (order.name, order.name + "b"):
        hosts.on("gpus", maximum=2).create(replace(order, name=name, flavor="gpus"))
    records = [json.loads(path.read_text()) for path in hosts.sshd.home("gpus").glob(".local/share/scitq/*/machine.json")]
    given = [Path(f"/proc/{record['pid']}/environ").read_bytes().split(b"\0") for record in records]
    assert {word for words in given for word in words if word.startswith(b"CUDA")} == {
        b"CUDA_VISIBLE_DEVICES=0", b"CUDA_VISIBLE_DEVICES=1"
    }  # fmt: skip


# --- who does not let us in ------------------------------------------------------------------------------------------------


def refused(provider, order) -> str:
    with pytest.raises(CloudRefused) as error:
        provider.create(order)
    return str(error.value)


def test_keys_and_passwords(hosts, order, tmp_path):
    """A host that refuses the key is not asked with a password; one whose key is not known is not spoken to."""
    another = hosts.options(tmp_path / "one", "node1", IdentityFile=hosts.sshd.folder / "other_id")
    said = refused(hosts.on("node1", options=another), order)
    assert "node1 refuses the key" in said and "ssh-copy-id node1" in said
    unknown = hosts.options(tmp_path / "two", "node1", UserKnownHostsFile=tmp_path / "known", StrictHostKeyChecking="no")
    said = refused(hosts.on("node1", options=unknown), order)
    assert "key of the host node1 is not known" in said and "accept_new_keys" in said
    assert hosts.on("node1", options=unknown, accept_new_keys=True).create(order).state == UP


def test_a_host_without_python_or_shell(hosts, order):
    said = refused(hosts.on("node1", python="/opt/nowhere/python3"), order)
    assert said.startswith("node1 has no Python 3.10 or newer at /opt/nowhere/python3: ")
    assert "gone runs no commands for this user: This account is currently not available." in refused(
        hosts.on("gone"), for_host(order, "gone")
    )


def test_a_server_that_the_host_does_not_reach(hosts, order):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        order = replace(order, start=replace(order.start, server=f"http://127.0.0.1:{closed.getsockname()[1]}"))
        said = refused(hosts.provider(), order)
    assert "ssh -N -R" in said and "`url` of providers.it" in said
    assert hosts.names() == [] and hosts.things() == set()
    there = f"http://127.0.0.1:{hosts.server.getsockname()[1]}"
    assert hosts.provider(config={**hosts.config, "url": there}).create(order).state == UP


def test_a_host_that_is_away_hides_its_machines_alone(hosts, order, tmp_path):
    hosts.provider().create(order)
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes calls and never answers
        options = ["-oConnectTimeout=1", *hosts.options(tmp_path / "config", "node2", Port=deaf.getsockname()[1])]
        (tmp_path / "config").write_text(f"{(tmp_path / 'config').read_text()}Host node1\n  Include {hosts.sshd.folder}/config\n")
        found = list(hosts.provider(config={**hosts.config, "options": options}).list())
    assert [(machine.name, machine.flavor, machine.state) for machine in found] == [
        (order.name, "node1", UP),
        ("", "node2", SILENT),
    ]
    assert found[1].message.startswith("node2 ")


# --- many at once, and killed ----------------------------------------------------------------------------------------------


def test_two_at_once_and_no_more_than_the_maximum(hosts, order):
    """The same name twice is one machine; of two names one finds no room, on `auto` it goes to the other host."""
    config = {**hosts.config, "maximum": 1}
    other = replace(order, name=order.name + "b")
    ended = []

    def ask(one):
        try:
            ended.append(hosts.provider(config=config).create(one).name)
        except NoRoom as error:
            ended.append(str(error))

    threads = [threading.Thread(target=ask, args=[one]) for one in (order, order, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (there,) = hosts.names()
    assert sorted(ended) == sorted([there] * ended.count(there) + [name for name in ended if "at most 1 workers" in name])
    third = replace(order, name=order.name + "c", flavor="auto")
    assert hosts.provider(config=config).create(third).flavor == "node2"
    assert hosts.provider(config=config).create(third).flavor == "node2"
    with pytest.raises(NoRoom):
        hosts.provider(config=config).check("auto", "it", 1)
    assert {flavor.name: flavor.available for flavor in hosts.provider(config=config).flavors()} == {"node1": 0, "node2": 0}


KILLER = """#!/bin/sh
echo x >> {folder}/calls
test "$(wc -l < {folder}/calls)" = "$KILL_AT" || exec {program} "$@"
{program} "$@"
kill -9 0
"""


@pytest.mark.parametrize("step", [1, 2, 3])  # the question, scp, the question again
def test_killed_between_all_steps(hosts, order, monkeypatch, tmp_path, step):
    for name in ("ssh", "scp"):
        (tmp_path / name).write_text(KILLER.format(folder=tmp_path, program=needed(name, "openssh-client")))
        (tmp_path / name).chmod(0o755)
    subprocess.run(["rm", "-rf", hosts.sshd.home("node1") / ".cache"], check=True)
    monkeypatch.setenv("KILL_AT", str(step))
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(CloudTrouble):
            hosts.call("create", order=asdict(order)).answer()
    assert (tmp_path / "calls").read_text().count("x") == step
    assert hosts.names() == [order.name]
    assert hosts.provider().create(order).state == UP
    running = until(lambda: [thing for thing in hosts.things() if " " in thing], "its process has become the worker")
    assert len(running) == 1
    hosts.provider().delete(hosts.machine(order.name))
    assert hosts.things() == set()


KILLING = """
calls, kill = [], os.kill
def killing(what):
    def call(*words, **named):
        calls.append(1)
        if len(calls) == {at}:
            kill(os.getpid(), 9)
        return what(*words, **named)
    return call
os.replace, os.write, os.kill, shutil.rmtree = map(killing, (os.replace, os.write, os.kill, shutil.rmtree))
os.register_at_fork(after_in_parent=killing(lambda: None))
serve()
"""


@pytest.mark.parametrize("op", ["start", "stop"])
def test_killed_between_all_steps_on_the_host(hosts, tmp_path, op):
    """Killed before each change that it makes there, it is done by the next one who asks: one process, or none."""
    file = Path(hosts.environ["SCITQ_ONE_FILE"]).read_bytes()
    asked = {
        "host": "h", "tag": OURS, "name": "scitq-00000000-kill", "maximum": 1, "mark": "M", "scratch": str(tmp_path / "scratch"),
        "server": hosts.server.getsockname(), "worker": "w", "key": "k", "token": "t", "part": "scitq.pyz.part",
        "size": len(file), "sha256": hashlib.sha256(file).hexdigest(),
        "words": ["worker", f"http://127.0.0.1:{hosts.server.getsockname()[1]}", "--name", "w"],
    }  # fmt: skip

    def ask(op: str, at: int = 0) -> dict | None:
        """The answer; None when it was killed."""
        question = json.dumps({**asked, "op": op, "size": asked["size"] if op == "start" else 0}).encode() + b"\n"
        words = [sys.executable, "-I", "-c", Path(onhost.__file__).read_text() + KILLING.format(at=at)]
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "HOME": str(tmp_path)}
        ) as process:
            with contextlib.suppress(BrokenPipeError):  # killed before it had read all
                process.stdin.write(question + (file if op == "start" else b""))
                process.stdin.flush()
            said = process.stdout.read()
        return json.loads(said.strip()[1:]) if said else None

    def processes() -> int:
        return command_lines().count(f"--scratch {tmp_path}")

    for at in itertools.count(1):
        if op == "stop":
            ask("start")
        if ask(op, at) is not None:
            break
        if op == "start":
            assert ask("start")["state"] == "up" and ask("list")["machines"][0]["state"] == "up"
            assert until(lambda: processes() == 1, "the one worker runs")
        assert ask("stop") == {} and processes() == 0 and ask("list") == {"machines": []}
        assert list((tmp_path / "scratch").iterdir()) == []
    assert at > (6 if op == "start" else 3)
    ask("stop")


# --- configuration ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "hosts: name the hosts"),
        ({"hosts": ["-oProxyCommand=x"]}, r"hosts\[0\]: '-oProxyCommand=x' is no name"),
        ({"hosts": ["a", "a"]}, r"hosts\[1\]: a is named twice"),
        ({"hosts": [{"host": "a", "prot": 22}]}, r"hosts\[0\].prot: there is no such key \(did you mean 'port'"),
        ({"hosts": [{"host": "a", "port": "22"}]}, r"hosts\[0\].port: a whole number of 1 or more is needed, not '22'"),
        ({"hosts": [{"host": "a", "port": 65536}]}, r"hosts\[0\].port: a port is no larger than 65535"),
        ({"hosts": ["a"], "accept_new_keys": "yes"}, "accept_new_keys: true or false is needed, not 'yes'"),
        ({"hosts": [{"host": "a", "python": "python3; rm"}]}, r"hosts\[0\].python: the path of a Python.*, not 'python3; rm'"),
        ({"hosts": ["a"], "url": "ftp://a"}, "url: 'ftp://a' is not the address of a server"),
        ({"hosts": ["a"], "options": "-F x"}, "options: a list of words"),
    ],
)
def test_a_wrong_configuration_is_named(hosts, config, said):
    with pytest.raises(ValueError, match="providers.it." + said):
        hosts.provider(config=config)
