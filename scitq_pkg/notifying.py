"""Tells people that a batch is done, or that tasks of it failed: looks, writes messages down, and sends them until they arrive.

What is to be told and what was sent is in the database alone: a server that is killed anywhere goes on where it was, and a
message that somebody may have taken is sent again under the same id. Of several servers the one that decides does it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from . import __version__, mailing, webhook
from .errors import InvalidRequest, ScitqError, Unreachable
from .mailing import MailServer
from .settings import Settings
from .store import Store, Transaction, notifiers

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # between two looks at batches of which something may be told
_COST_SHARE = 0.05  # of a processor that the looking may take
_REST_SECONDS = 60.0  # between two looks if nothing changes
LONGEST_PAUSE_SECONDS = 3600.0
ATTEMPTS = 36  # which take a day
_AT_ONCE = 8  # messages, and of these to one host
_AT_ONE_HOST = 2
_FORGET_SECONDS = 3600.0
SMTP_PORT = 25
PASSWORD = "SCITQ_SMTP_PASSWORD"


def pause_after(attempts: int) -> float:
    """Seconds from an attempt to the next one, after so many: 1, 2, 4... up to an hour."""
    return min(LONGEST_PAUSE_SECONDS, 2.0 ** min(attempts - 1, 12))


def content(message: dict) -> dict:
    """What a webhook gets: what happened to which batch, its tasks by state, a sentence. The same `id` is the same message."""
    return {
        "id": message["key"],
        "event": message["event"],
        "batch": message["batch"],
        "counts": message["counts"],
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(message["created_at"])),
        "text": sentence(message),
    }


def sentence(message: dict) -> str:
    """`Batch reads is done: 10 succeeded, 2 failed`; what chats show."""
    counts = ", ".join(f"{count} {state}" for state, count in sorted(message["counts"].items()))
    if message["event"] == notifiers.DONE:
        return f"Batch {message['batch']} is done: {counts}"
    return f"Batch {message['batch']} has more than {message['failures']} failed tasks: {counts}"


def mail_server(settings: Settings, environ: Mapping[str, str] | None = None) -> MailServer | None:
    """Where mail goes, if the settings say so; the password is the file's, or `SCITQ_SMTP_PASSWORD`. Raises InvalidRequest."""
    if settings.smtp is None:
        return None
    host, port = split(settings.smtp)
    sender = settings.smtp_sender or f"scitq@{socket.gethostname()}"
    password = (os.environ if environ is None else environ).get(PASSWORD)
    if settings.smtp_password_file is not None:
        try:
            password = settings.smtp_password_file.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            told = getattr(error, "strerror", None) or "it is no text"
            raise InvalidRequest(
                f"{settings.smtp_password_file} cannot be read: {told}", field="--smtp-password-file"
            ) from None
    if settings.smtp_user is not None and not password:
        raise InvalidRequest(f"wants a password: give --smtp-password-file, or {PASSWORD}", field="--smtp-user")
    return MailServer(host, port, sender, settings.smtp_user, password)


def split(place: str) -> tuple[str, int]:
    """`host` or `host:port`. Raises InvalidRequest."""
    host, colon, port = place.rpartition(":")
    if not colon:
        return place, SMTP_PORT
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidRequest(f"cannot be {place!r:.80}: it wants HOST or HOST:PORT", field="--smtp")
    return host, int(port)


class Sender:
    """Gives a message to whom it is for, as the settings allow it."""

    def __init__(self, settings: Settings):
        self._hosts = settings.webhook_host
        self._mail = mail_server(settings)

    def __call__(self, message: dict) -> None:
        """Raises a ScitqError saying why it was not taken."""
        told = content(message)
        if message["kind"] == "webhook":
            headers = {"User-Agent": f"scitq/{__version__}", "Idempotency-Key": message["key"]}
            webhook.post(message["target"], json.dumps(told).encode(), headers, self._hosts)
        elif self._mail is None:
            raise Unreachable("this server sends no mail: start it with --smtp HOST")
        else:
            mailing.send(self._mail, message["target"], f"scitq: {told['text']}", _letter(told), message["key"])


def _letter(told: dict) -> str:
    lines = "".join(f"  {state:<10} {count}\n" for state, count in told["counts"].items())
    return f"{told['text']}\n\n{lines}\n{told['at']}\n"


class Notifying:
    """A thread that looks and writes; each message is sent by a thread of its own, so that one that hangs holds up no other."""

    def __init__(self, store: Store, send: Callable[[dict], None], clock: Callable[[], float] = time.monotonic):
        self._store, self._send, self._clock = store, send, clock
        self._open: set[int] = set()  # batches of which something may be to tell
        self._calm: set[int] = set()  # those that were done at the last look: a second one must agree
        self._watched: set[int] = set()
        self._leading = False
        self._seen = 0  # the newest execution that was looked at
        self._sending: dict[int, str] = {}  # message -> host
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._forgot = float("-inf")
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    def start(self) -> None:
        """Begin; all batches are looked at first."""
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing new. What is being sent is not waited for: it is sent again later, under the same id."""
        self._stopping.set()
        self._store.changes.bump()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        version = -1
        while not self._stopping.is_set():
            began = self._clock()
            try:
                rest = self.step() if self._store.leads else self._forget_all()
            except Exception as error:  # noqa: BLE001 - a database that is away must not end it
                log.warning("notifications go on after: %s", error)
                rest = _REST_SECONDS
            self._stopping.wait(max(LOOK_SECONDS, (self._clock() - began) / _COST_SHARE))
            version = self._store.changes.wait(version, max(0.0, rest - LOOK_SECONDS))

    def step(self) -> float:
        """One look, and what follows from it; for how many seconds nothing is to do unless something changes."""
        if not self._leading:
            self._store.write(notifiers.resume)
            self._leading = True
        self._look()
        self._send_due()
        with self._lock:
            rest = 0.0 if self._open or self._sending else _REST_SECONDS
        if self._clock() - self._forgot > _FORGET_SECONDS:
            self._store.write(notifiers.forget_old)
            self._forgot = self._clock()
        then = self._store.read(lambda tx: (notifiers.next_at(tx), tx.now))
        return rest if then[0] is None else min(rest, max(0.0, then[0] - then[1]))

    def _forget_all(self) -> float:
        """Another server decides: if this one does later, it looks at everything."""
        self._watched, self._leading = set(), False
        return _REST_SECONDS

    # --- looking ------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Batches whose notifiers are new to us, that something ran in, or that were not done before are looked at."""
        rows, stirred, newest = self._store.read(self._news)
        by_batch: dict[int, list[dict]] = {}
        for row in rows:
            by_batch.setdefault(row["batch_id"], []).append(row)
        watched = {row["id"] for row in rows}
        fresh = {row["batch_id"] for row in rows if row["id"] not in self._watched}
        self._open = (self._open | stirred | fresh) & by_batch.keys()
        self._calm &= self._open
        for batch_id in sorted(self._open):
            self._look_at(batch_id, by_batch[batch_id])
        self._watched, self._seen = watched, newest

    def _news(self, tx: Transaction) -> tuple[list[dict], set[int], int]:
        rows = notifiers.standing(tx)
        if not rows:
            return [], set(), self._seen
        return rows, notifiers.stirred(tx, self._seen) if self._watched else set(), notifiers.newest_of_all(tx)

    def _look_at(self, batch_id: int, rows: list[dict]) -> None:
        """A batch that is done is told of when it still is at the next look: between two requests of a launch it may seem so."""

        def look(tx: Transaction) -> tuple[bool, bool]:
            done = notifiers.is_done(tx, batch_id)
            sure = done and batch_id in self._calm
            return done, bool(notifiers.due(tx, rows, sure) or notifiers.calmed(tx, rows))

        done, anything = self._store.read(look)
        if anything:
            sure = batch_id in self._calm
            self._store.write(lambda tx: notifiers.tell(tx, batch_id, sure))
        if done and batch_id in self._calm:
            self._open.discard(batch_id)
            self._calm.discard(batch_id)
        elif done:
            self._calm.add(batch_id)
        else:
            self._calm.discard(batch_id)

    # --- sending ------------------------------------------------------------------------------------------------------

    def _send_due(self) -> None:
        for message in self._store.read(lambda tx: notifiers.unsent(tx, 2 * LONGEST_PAUSE_SECONDS, 100)):
            if self._stopping.is_set() or not self._take(message):
                continue
            pause = pause_after(message["attempts"] + 1) + webhook.WHOLE_SECONDS
            if self._store.write(lambda tx, message=message, pause=pause: notifiers.attempt(tx, message["id"], pause)):
                name = f"notify-{message['id']}"
                threading.Thread(target=self._deliver, args=(message,), name=name, daemon=True).start()
            else:
                self._done_with(message)

    def _take(self, message: dict) -> bool:
        """Whether there is room to send it now: some hosts hang."""
        host = urlsplit(message["target"]).netloc if message["kind"] == "webhook" else "mail"
        with self._lock:
            used = list(self._sending.values())
            if message["id"] in self._sending or len(used) >= _AT_ONCE or used.count(host) >= _AT_ONE_HOST:
                return False
            self._sending[message["id"]] = host
        return True

    def _done_with(self, message: dict) -> None:
        with self._lock:
            self._sending.pop(message["id"], None)

    def _deliver(self, message: dict) -> None:
        attempts = message["attempts"] + 1
        try:
            error = self._try(message)
            if error is None:
                self._store.write(lambda tx: notifiers.sent(tx, message["id"]))
            else:
                last = attempts >= ATTEMPTS
                log.info("message %s of batch %s was not taken: %s", message["id"], message["batch"], error)
                self._store.write(lambda tx: notifiers.failed(tx, message, error, pause_after(attempts), last))
        except ScitqError as error:  # the database is away: the message stays as it is, and is sent again
            log.warning("message %s: %s", message["id"], error)
        finally:
            self._done_with(message)

    def _try(self, message: dict) -> str | None:
        """Why it was not taken; None: it was."""
        try:
            self._send(message)
        except ScitqError as error:
            return error.message
        except Exception:  # of whatever came back; nothing of it may end the thread before it is noted
            log.exception("message %s could not be sent", message["id"])
            return "an unexpected error, which the server's log explains"
        return None
