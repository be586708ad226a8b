"""The server: settings, store, decider, routes and HTTP put together, started, and stopped in order."""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from . import __version__, auth, firstboot, scheduler, serving
from .address import is_loopback, join_url
from .api.answers import error_body
from .api.application import Application
from .api.call import Service
from .api.callers import Caller, Callers
from .api.feed import Feed
from .api.history import History
from .api.livedata import LiveData
from .api.polls import SPARE_THREADS, Bells, Seats
from .api.readiness import Readiness
from .api.trouble import Trouble
from .cloud.config import checked
from .deployer import Deployer
from .durable import write_whole
from .errors import InvalidRequest, ScitqError, StorageFull, Unavailable
from .notifying import Notifying, Sender
from .settings import Settings
from .store import Store, Transaction, machines, tokens

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
LAST_WRITES_SECONDS = 0.5  # for a database that stands still when the server stops


def serve(settings: Settings, quiet: bool = False) -> None:
    """Run a server until SIGTERM or SIGINT. Raises a ScitqError when it cannot start."""
    check_exposure(settings)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = Server(settings)
    try:
        server.start()
        if not quiet:
            server.greet()
        while not stop.wait(LOOK_SECONDS):  # the kernel may give a signal to another thread: then this one has to look
            pass
    finally:
        server.stop()


def check_exposure(settings: Settings) -> None:
    """Raises InvalidRequest for a server that strangers could reach without TLS or without tokens."""
    if is_loopback(settings.host):
        return
    if settings.no_auth:
        raise InvalidRequest(
            f"a server at {settings.host} without tokens would run anybody's commands: leave out --no-auth, or "
            "listen at 127.0.0.1",
            field="--no-auth",
        )
    if not settings.tls and not settings.insecure_http:
        raise InvalidRequest(
            f"other machines can reach {settings.host}, and tokens would travel in the clear: give --cert FILE "
            f"--key FILE, or, in a network you trust, type: "
            f"scitq server --host {settings.host} --port {settings.port} --insecure-http",
            field="--host",
        )


class Server:
    """A server that can be started and stopped once."""

    def __init__(self, settings: Settings):
        """Opens what it needs. Raises a ScitqError if any of it cannot be had; then nothing stays open."""
        with contextlib.ExitStack() as undo:
            context = serving.tls_context(settings.cert, settings.key) if settings.cert and settings.key else None
            bound = serving.listen(settings.host, settings.port)
            undo.callback(bound.close)
            _make_directory(settings.data)
            self.store = Store.open(settings.database, settings.data)
            undo.callback(self.store.close)
            self.settings = settings
            self.url = join_url("https" if context else "http", _reachable(settings.host), bound.getsockname()[1])
            self.monitor = scheduler.Monitor(self.store, settings.lost_after)
            self.notifying = Notifying(self.store, Sender(settings))
            self.service = self._make_service()
            self.http = serving.HttpServer(
                Application(self.service), bound, f"scitq/{__version__}", settings.max_body, context, error_body
            )
            self.service.seats.set_threads = self.http.dispatcher.set_thread_count
            self._made_token = False
            self.own_token = None if settings.no_auth else self._own_token()
            undo.pop_all()
        self._started = False

    def _make_service(self) -> Service:
        server_id = self.store.read(machines.server_id)
        clouds = checked(self.settings)
        firstboot.check(clouds.deployment.first_boot)
        self.deployer = Deployer(self.store, clouds, server_id, self.url, self.settings.data)
        return Service(
            settings=self.settings,
            clouds=clouds,
            deployer=self.deployer,
            url=self.url,
            store=self.store,
            monitor=self.monitor,
            callers=Callers(lambda: self.store.read(_callers), lambda key: self.store.read(lambda tx: _caller(tx, key))),
            bells=Bells(),
            seats=Seats(self.settings.threads),
            readiness=Readiness(self.store, self.monitor),
            feed=Feed(LiveData(self.store, server_id).read, self.store.changes),
            history=History(),
            trouble=Trouble(self.store),
            server_id=server_id,
            login=_login(),
        )

    def start(self) -> None:
        """Begin to decide and to answer."""
        self._started = True
        self.store.start(scheduler.decide, self.service.bells.ring)
        self.monitor.start()
        self.notifying.start()
        self.deployer.start()
        _write(self.settings.data / "server.json", {"url": self.url, "pid": os.getpid(), "version": __version__})
        self.http.start(SPARE_THREADS)
        log.info("serving %s", self.url)

    def stop(self) -> None:
        """Answer what waits, end what runs, close the database; in less than 5 seconds."""
        if not self._started:
            return
        with contextlib.suppress(OSError):  # it was never written, or its directory is gone
            (self.settings.data / "server.json").unlink()
        self.service.stopping.set()
        self.service.bells.close()
        self.notifying.stop()
        self.deployer.stop()
        self.store.changes.bump()
        self.service.feed.close()
        self.http.stop()
        try:
            self.store.write(lambda tx: None, timeout=LAST_WRITES_SECONDS)
            self.monitor.stop()
            self._forget_own_token()
        except ScitqError as error:
            log.warning("while stopping: %s", error)
        self.store.close(LAST_WRITES_SECONDS)
        log.info("stopped")

    def greet(self) -> None:
        """Tell who started the server what to do with it. The link holds a token, so only a terminal sees it."""
        out = sys.stdout
        print(f"scitq {__version__} serves {self.url}", file=out)
        print(f"  data      {self.settings.data} ({self.store.database.kind})", file=out)
        if self.own_token is None:
            print("  no tokens: everybody on this machine is its administrator", file=out)
            print(f"  browser   {self.url}/ui/", file=out)
        elif out.isatty():
            print(f"  browser   {self.url}/login?token={self.own_token}", file=out)
        else:
            print(f"  browser   {self.url}/login, with your token of {auth.config_directory()}/{auth.TOKENS_FILE}", file=out)
        print(f"  worker    scitq worker {self.url} CONCURRENCY", file=out, flush=True)

    # --- the token of the user who started the server -----------------------------------------------------------------

    def _own_token(self) -> str:
        """An administrator's token in the user's tokens file: the one there, if this database knows it, else a new one."""
        known = auth.load_tokens()
        mine = known.get(auth.token_key(self.url))
        valid = self.store.read(_callers)
        for token in filter(None, [mine, *known.values()]):
            caller = valid.get(auth.hash_token(token))
            if caller is not None and caller.role == "admin":
                if token != mine:
                    auth.save_token(self.url, token)
                return token
        token, self._made_token = auth.new_token(), True
        self.store.write(lambda tx: tokens.create(tx, _login(), "admin", auth.hash_token(token), who=_login()))
        auth.save_token(self.url, token)
        return token

    def _forget_own_token(self) -> None:
        """A port that was chosen for this run alone will not come again: its token would only be left behind."""
        token = self.own_token
        if token is None or self.settings.port != 0:
            return
        auth.forget_token(self.url)
        if self._made_token:
            self.store.write(lambda tx: tokens.withdraw(tx, auth.hash_token(token), who=_login()))


def _caller(tx: Transaction, key: str) -> Caller | None:
    row = tokens.find_by_hash(tx, key)
    return row and _caller_of(row)


def _callers(tx: Transaction) -> dict[str, Caller]:
    return {row["hash"]: _caller_of(row) for row in tokens.valid(tx)}


def _caller_of(row: dict) -> Caller:
    return Caller(row["name"], row["role"], row["worker_id"], row["id"])


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # no such user in the password file, as in many containers
        return f"uid-{os.getuid()}"


def _reachable(host: str) -> str:
    """An address to call: all addresses of this machine are called by the loopback's."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"the data directory {path} cannot be made: {error.strerror}; give another with --data") from None


def _write(path: Path, content: dict) -> None:
    try:
        write_whole(path, json.dumps(content).encode() + b"\n")
    except OSError as error:
        raise StorageFull(f"{path} cannot be written ({error.strerror}): make room there, or give another --data") from None
