"""Workers on hosts that ssh reaches: the one file is copied there, and a worker started that outlives the connection.

Everything on a host is done by `onhost`, sent as text to the host's own Python, so nothing has to be installed there. Answers are
found by a mark of their own among whatever a shell prints at login. Keys of hosts are always checked, passwords never asked for.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources

from ..address import is_loopback, server_url, split_url
from ..errors import Conflict, InvalidRequest, nearest
from ..onefile import OneFile, published
from . import keys
from .provider import SILENT, CloudRefused, CloudTrouble, Flavor, Machine, NoRoom, Order, Start, Tell

AUTO = "auto"  # instead of a host: any that has room
CONNECT_SECONDS = 10
DEAD_SECONDS = 5  # between questions whether a host is still there; it is given up after three
CALL_SECONDS = 30.0
STOP_SECONDS = 600.0  # a scratch folder may hold much
START_SECONDS = 120.0  # and COPY_SECONDS_A_MB for the one file
COPY_SECONDS_A_MB = 10.0
AT_ONCE = 32
_GB = 1e9
PYTHONS = "python3 python3.13 python3.12 python3.11 python3.10"
TEST_PYTHON = (  # for sh: whether $p is one that does
    'command -v "$p" >/dev/null 2>&1 && "$p" -c "import sys; sys.exit(sys.version_info < (3, 10))" </dev/null >/dev/null 2>&1'
)
_BOOT = (  # in single quotes, for whatever shell the user has there; on standard input sh might read more than its script
    "exec sh -c 'for p in {pythons}; do {test} "
    '&& exec "$p" -I -c "import sys; exec(sys.stdin.buffer.read({size}))"; done; echo; echo {mark}nopython\''
)
_HOST_KEYS = {
    "user": str, "port": (int, 1), "scratch": str, "python": str, "maximum": (int, 1), "price": (float, 0), "group": str,
}  # fmt: skip
_KEYS = {"kind": str, "hosts": object, "options": list, "accept_new_keys": bool, "url": str, "currency": str, **_HOST_KEYS}
_NAME = r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*"  # of a host; it can be no option, nor anything to a shell
_SAFE = {  # key: what its text may be, and that in words
    "user": (r"[A-Za-z0-9_][A-Za-z0-9_.@-]*", "the name of a user, of letters, digits and _.@-,"),
    "python": (r"[A-Za-z0-9_./+-]+", "the path of a Python, of letters, digits and ./_+-,"),
    "scratch": (r"[^\0\n]+", "the path of a directory"),
    "group": (r"[A-Za-z0-9_.-]+", "a name of letters, digits and _.-"),
}
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Host:
    """A host of the configuration."""

    name: str  # as ssh knows it: an address, or a name of ~/.ssh/config
    group: str  # which is its region
    user: str | None = None
    port: int | None = None
    scratch: str | None = None
    python: str | None = None
    maximum: int = 1  # workers
    price: float | None = None  # of one of them


class Ssh:
    """A list of hosts as a provider: a flavor is a host, a region a group of them."""

    def __init__(self, name: str, config: Mapping, tag: str, tell: Tell):
        keys.checked(f"providers.{name}", config, _KEYS)
        self.name, self._tag, self._tell = name, tag, tell
        if isinstance(config.get("options"), str):  # would it be one word, or several?
            raise InvalidRequest('a list of words is needed, as in ["-F", "/path"]', field=f"providers.{name}.options")
        self._options = keys.texts(config.get("options"))
        self._accept_new = config.get("accept_new_keys") is True
        self._url = own_url(config, name)
        self._currency = config.get("currency")
        self._hosts = {host.name: host for host in _hosts(name, config)}

    # --- what it is asked ---------------------------------------------------------------------------------------------

    def check(self, flavor: str, region: str, number: int) -> None:
        hosts = self._chosen(flavor, region)
        one_file()
        room, troubles = 0, []
        for host, answer in self._ask_all(hosts, op="probe"):
            if isinstance(answer, Exception):
                troubles.append(answer)
            else:
                room += max(0, host.maximum - answer["taken"])
        if troubles and room < number:
            raise troubles[0]
        if room < number:
            raise NoRoom(f"{_names(hosts)} of provider {self.name}: room for {room} more workers (`maximum`), not for {number}")

    def create(self, order: Order) -> Machine:
        hosts, found = self._chosen(order.flavor, order.region), None
        if len(hosts) > 1:
            found = next((machine.flavor for machine in self._listed(hosts) if machine.name == order.name), None)
        full: list[NoRoom | CloudTrouble] = []
        for host in hosts if found is None else [self._hosts[found]]:
            try:
                return self._start(host, order)
            except (NoRoom, CloudTrouble) as error:
                if len(hosts) == 1:
                    raise
                self._tell(str(error))
                full.append(error)
        raise full[-1]

    def list(self) -> Iterable[Machine]:
        found = list(self._listed(list(self._hosts.values())))
        if found and all(machine.state == SILENT for machine in found):
            raise CloudTrouble(found[0].message)
        return found

    def delete(self, machine: Machine) -> None:
        where = machine.id or (machine.flavor if machine.flavor != AUTO else None)
        if where is not None and where not in self._hosts:
            raise CloudRefused(
                f"{machine.name} is on {where}, which providers.{self.name}.hosts does not name any more: put it back"
            )
        for host in self._hosts.values() if where is None else [self._hosts[where]]:
            self._stop(host, machine.name)

    def flavors(self) -> Iterator[Flavor]:
        answers = list(self._ask_all(list(self._hosts.values()), op="probe"))
        if all(isinstance(answer, Exception) for _, answer in answers):
            raise answers[0][1]
        for host, answer in answers:
            if isinstance(answer, Exception):
                self._tell(str(answer))
                yield Flavor(host.name, host.group, price=host.price, currency=self._currency, available=0)
            else:
                yield self._flavor(host, answer)

    # --- hosts --------------------------------------------------------------------------------------------------------

    def _chosen(self, flavor: str, region: str) -> list[Host]:
        """The host of that name, or all of the region. Raises CloudRefused."""
        groups = {host.group for host in self._hosts.values()}
        if region not in groups:
            raise CloudRefused(
                f"provider {self.name} has no region {region!r:.80}{nearest(region, groups)}: "
                f"there is {', '.join(sorted(groups))}"
            )
        there = {host.name: host for host in self._hosts.values() if host.group == region}
        if flavor == AUTO:
            return list(there.values())
        if flavor not in there:
            raise CloudRefused(
                f"provider {self.name} has no host {flavor!r:.80} in {region}{nearest(flavor, there)}: "
                f"a flavor is one of its hosts, or {AUTO}"
            )
        return [there[flavor]]

    def _listed(self, hosts: list[Host]) -> Iterator[Machine]:
        for host, answer in self._ask_all(hosts, op="list"):
            if isinstance(answer, Exception):
                yield Machine("", host.group, SILENT, flavor=host.name, message=str(answer))
            else:
                yield from (self._machine(host, told) for told in answer["machines"])

    def _machine(self, host: Host, told: Mapping) -> Machine:
        return Machine(
            told["name"], host.group, told["state"], id=host.name, flavor=host.name, address=host.name, message=told["message"]
        )

    def _flavor(self, host: Host, told: Mapping) -> Flavor:
        """What one of the host's workers has: its share."""
        gpus, share = told["gpus"], host.maximum
        model, gpu_mib = gpus[0] if gpus else (None, None)
        return Flavor(
            host.name, host.group, cpu=max(1, told["cpus"] // share), ram=round(told["memory"] / share / _GB, 1),
            disk=round(told["disk"] / share / _GB, 1), gpus=-(-len(gpus) // share), gpu=model,
            gpumem=None if gpu_mib is None else round(gpu_mib * 2**20 / _GB, 1), tags="G" * bool(gpus) + "N" * told["nvme"],
            price=host.price, currency=self._currency, eviction=0.0, available=max(0, share - told["taken"]),
        )  # fmt: skip

    # --- start and stop -----------------------------------------------------------------------------------------------

    def _start(self, host: Host, order: Order) -> Machine:
        """Told what to bring, brings it by scp, and where scp is of no use through the question itself."""
        url = self._url or order.start.server
        file = one_file()
        asked = self._order(host, order, url, file.sha256)
        answer = self._ask(host, START_SECONDS, op="start", **asked)
        patience = START_SECONDS + COPY_SECONDS_A_MB * file.size / 1e6
        if "need" in answer:
            self._tell(f"{host.name}: copying the one file ({file.size / 1e6:.0f} MB)")
            if self._copy(host, file.path, answer["need"], patience):
                answer = self._ask(host, START_SECONDS, op="start", **asked)
        if "need" in answer:
            self._tell(f"{host.name}: copying it through the shell, since scp did not bring it")
            with open(file.path, "rb") as whole:
                answer = self._ask(host, patience, whole.read(), op="start", size=file.size, **asked)
        if "need" in answer:
            raise CloudTrouble(f"{host.name}: the one file does not arrive there as it was sent")
        self._tell(f"{host.name}: worker {order.start.worker} is started")
        return self._machine(host, answer)

    def _order(self, host: Host, order: Order, url: str, sha256: str) -> dict:
        start = order.start
        return {
            "name": order.name, "worker": start.worker, "key": start.key, "token": start.token, "ca": start.ca, "sha256": sha256,
            "part": f"scitq.pyz.{secrets.token_hex(4)}", "server": split_url(url)[1:3], "words": worker_words(start, url),
            "scratch": host.scratch or start.scratch,
        }  # fmt: skip

    def _copy(self, host: Host, file: str, path: str, seconds: float) -> bool:
        """Brings the one file to a path in the host's home; whether scp says that it did."""
        words = ["scp", "-q", *self._ssh_options(host), "--", file, f"{_bracketed(host.name)}:{path}"]
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds
            )
        except FileNotFoundError:
            return False
        except subprocess.TimeoutExpired:
            raise CloudTrouble(f"{host.name}: the one file did not arrive within {seconds:.0f} s") from None
        if done.returncode:
            self._tell(f"{host.name}: scp: {_last_line(done.stderr) or f'exit code {done.returncode}'}")
        return done.returncode == 0

    def _stop(self, host: Host, name: str) -> None:
        left = self._ask(host, STOP_SECONDS, op="stop", name=name).get("left")
        if left:
            self._tell(f"{host.name}: {left} holds files of other users and stays there")

    # --- ssh ----------------------------------------------------------------------------------------------------------

    def _ask_all(self, hosts: list[Host], **asked) -> Iterator[tuple[Host, dict | Exception]]:
        """What each host answers, or why it does not."""

        def one(host: Host):
            try:
                return host, self._ask(host, CALL_SECONDS, **asked)
            except (CloudTrouble, CloudRefused) as error:
                return host, error

        with ThreadPoolExecutor(min(AT_ONCE, len(hosts))) as pool:
            yield from pool.map(one, hosts)

    def _ask(self, host: Host, seconds: float, file: bytes = b"", **asked) -> dict:
        """One question of `onhost`. Raises CloudTrouble, NoRoom, CloudRefused."""
        mark = secrets.token_hex(8)
        question = {"host": host.name, "tag": self._tag, "maximum": host.maximum, "mark": mark, "scratch": host.scratch, **asked}
        program = resources.files(__package__).joinpath("onhost.py").read_bytes() + b"\nserve()\n"
        boot = _BOOT.format(pythons=host.python or PYTHONS, test=TEST_PYTHON, size=len(program), mark=mark)
        words = ["ssh", "-T", "-x", *self._ssh_options(host), "--", host.name, boot]
        out, err, code = _run(words, program + json.dumps(question).encode() + b"\n" + file, seconds)
        answer = next((line[len(mark) :] for line in reversed(out.split("\n")) if line.startswith(mark)), None)
        if answer is None:
            raise self._silence(host, code, out, err)
        if answer == "nopython":
            raise CloudRefused(
                f"{host.name} has no Python 3.10 or newer{f' at {host.python}' if host.python else ''}: "
                f"install one there, or say where it is (`python` of this host in providers.{self.name})"
            )
        told = json.loads(answer)
        if "error" in told:
            raise self._failure(host, asked.get("server"), *told["error"])
        return told

    def _ssh_options(self, host: Host) -> list[str]:
        """Of what is given twice, ssh takes the first."""
        checking = "accept-new" if self._accept_new else "yes"
        given = {"BatchMode": "yes", "StrictHostKeyChecking": checking}
        patience = {"ConnectTimeout": CONNECT_SECONDS, "ServerAliveInterval": DEAD_SECONDS, "ServerAliveCountMax": 3}
        own = {"User": host.user, "Port": host.port}
        words = [f"-o{name}={value}" for name, value in {**given, **own}.items() if value is not None]
        return [*words, *self._options, *(f"-o{name}={value}" for name, value in patience.items())]

    def _silence(self, host: Host, code: int | None, out: str, err: str) -> CloudTrouble | CloudRefused:
        """What it means that ssh ended without an answer."""
        said = _last_line(err) or _last_line(out)
        if code is None:
            return CloudTrouble(f"{host.name} did not answer in time{f': {said}' if said else ''}")
        if "Permission denied" in err or "Too many authentication failures" in err:
            return CloudRefused(
                f"{host.name} refuses the key of the server's user ({said}): log in there with `ssh-copy-id {host.name}` once, "
                f"or name another key in `options` of providers.{self.name}"
            )
        if "Host key verification failed" in err or "host key is known" in err:
            return CloudRefused(
                f"the key of the host {host.name} is not known here, or is another one than before: `ssh {host.name}` shows it, "
                f"and `accept_new_keys: true` in providers.{self.name} takes keys that were never seen"
            )
        if code == 255:
            return CloudTrouble(f"{host.name} does not answer: {said or 'ssh ended without a word'}")
        return CloudRefused(f"{host.name} runs no commands for this user{f': {said}' if said else ''} (exit code {code})")

    def _failure(self, host: Host, server, code: str, sentence: str) -> CloudTrouble | NoRoom | CloudRefused:
        if code == "unreachable":
            at = f"{server[0]}:{server[1]}"
            if self._url:
                return CloudTrouble(
                    f"{host.name} reaches nobody at {at} ({sentence}): `url` of providers.{self.name} has to lead to the server"
                )
            if is_loopback(server[0]):
                return CloudRefused(
                    f"{host.name} does not reach the server, which listens at {at} only: "
                    f"give it --host and --cert (docs/security.md), or keep "
                    f"`ssh -N -R {server[1]}:{at} {host.name}` running, and let `url` of providers.{self.name} name its end there"
                )
            return CloudTrouble(
                f"{host.name} does not reach the server at {at} ({sentence}): `url` of providers.{self.name} may name another way"
            )
        kind = {"room": NoRoom, "refused": CloudRefused}.get(code, CloudTrouble)
        return kind(f"{host.name}: {sentence}")


def one_file() -> OneFile:
    """What is brought to other machines. Raises CloudRefused where there is none."""
    try:
        return published()
    except Conflict as error:
        raise CloudRefused(error.message) from None


def own_url(config: Mapping, provider: str) -> str | None:
    """The address of the server in the configuration of a provider, whose machines reach it there. Raises InvalidRequest."""
    given = config.get("url")
    if given is None:
        return None
    try:
        return server_url(str(given))
    except InvalidRequest as error:
        raise InvalidRequest(error.message, field=f"providers.{provider}.url") from None


def worker_words(start: Start, url: str) -> list[str]:
    """The words of the worker's command that hold no secret and no path."""
    return [
        "worker", url, str(start.concurrency), "--name", start.worker, f"--batch={start.batch}",
        "--prefetch", str(start.prefetch),
    ]  # fmt: skip


def _run(words: list[str], sent: bytes, seconds: float) -> tuple[str, str, int | None]:
    """Output, errors, and the exit code, None after `seconds`.

    Standard input stays open: on the other side its end means that nobody waits.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=out, stderr=err)
        except FileNotFoundError:
            raise CloudRefused(
                "ssh is not installed where the server runs: install it there (apt-get install openssh-client)"
            ) from None
        with ThreadPoolExecutor(1) as writer:
            writing = writer.submit(_send, process, sent)
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
                process.kill()
                process.wait()
            writing.result()
        with contextlib.suppress(BrokenPipeError):  # it ended before it had read all
            process.stdin.close()
        out.seek(0)
        err.seek(0)
        return out.read().decode(errors="replace"), err.read().decode(errors="replace"), code


def _send(process: subprocess.Popen, data: bytes) -> None:
    """Ends when it was read or the process has ended."""
    try:
        process.stdin.write(data)
        process.stdin.flush()
    except BrokenPipeError:
        return  # it has ended, and its exit code and errors tell why


def _last_line(text: str) -> str:
    return next((line.strip()[:300] for line in reversed(text.split("\n")) if line.strip()), "")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _names(hosts: list[Host]) -> str:
    return ", ".join(host.name for host in hosts[:5]) + ("..." if len(hosts) > 5 else "")


# --- configuration --------------------------------------------------------------------------------------------------------


def _hosts(provider: str, config: Mapping) -> Iterator[Host]:
    field, seen = f"providers.{provider}.hosts", set()
    given = config.get("hosts")
    if not isinstance(given, list) or not given:
        raise InvalidRequest("name the hosts: [node1, {host: node2, user: me}]", field=field)
    common = _host_values(config, f"providers.{provider}")
    for index, one in enumerate(given):
        here = f"{field}[{index}]"
        own = one if isinstance(one, Mapping) else {"host": one}
        keys.checked(here, own, {"host": object, **_HOST_KEYS})
        name = own.get("host")
        if not isinstance(name, str) or not re.fullmatch(_NAME, name):
            raise InvalidRequest(f"{name!r:.80} is no name or address of a host", field=here)
        if name in seen or name == AUTO:
            raise InvalidRequest(f"{name} is named twice" if name in seen else f"a host cannot be called {AUTO}", field=here)
        seen.add(name)
        yield Host(**{"name": name, "group": provider, **common, **_host_values(own, here)})


def _host_values(given: Mapping, field: str) -> dict:
    """The keys of a host, whose kinds are right already."""
    values = {key: given[key] for key in _HOST_KEYS if given.get(key) is not None}
    for key, (pattern, words) in _SAFE.items():
        if key in values and not re.fullmatch(pattern, values[key]):
            raise InvalidRequest(f"{words} is needed, not {values[key]!r:.80}", field=f"{field}.{key}")
    if values.get("port", 0) > _LAST_PORT:
        raise InvalidRequest(f"a port is no larger than {_LAST_PORT}", field=f"{field}.port")
    return values
