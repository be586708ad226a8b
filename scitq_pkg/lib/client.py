"""Requests that outlive a restart of the server: reads wait and ask again; writes are sent until answered, and done once."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

from ..auth import find_token
from ..errors import InvalidRequest, ScitqError, StorageFull, TooManyRequests, Unavailable, Unreachable
from ..protocol import API
from ..transport import Answer, Connection, Interrupted, raise_for
from .specs import unsendable

DAY_SECONDS = 24 * 3600.0
PAGE = 1000
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0
_SAY_AFTER_SECONDS = 3.0


class Client:
    """Speaks to the API of one server, in JSON values.

    Until the server has answered once, a call waits `connect_timeout` seconds for it: a wrong address is told soon. After
    that, `get_timeout` (reads) or `put_timeout` (writes). What the user did wrong is raised at once, always.
    """

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        timeout: float = 60.0,
        connect_timeout: float = 10.0,
        get_timeout: float = DAY_SECONDS,
        put_timeout: float = DAY_SECONDS,
    ):
        self._made_with = (server, token, timeout, connect_timeout, get_timeout, put_timeout)
        self._connection = Connection(server, find_token(server, token), timeout)
        self.url = self._connection.url
        self.timeout = timeout
        self._patience = {True: get_timeout, False: put_timeout}
        self._connect_timeout = connect_timeout
        self._met = False

    def another(self) -> Client:
        """A client of the same server with a connection of its own, for what waits long."""
        other = Client(*self._made_with)
        other._met = self._met
        return other

    def close(self) -> None:
        """Closes the connection; the next call opens it again."""
        self._connection.close()

    def interrupt(self) -> None:
        """Ends a call that waits in another thread: it raises `transport.Interrupted`."""
        self._connection.interrupt()

    def get(self, path: str, wait: float | None = None, **query):
        """The answer of `GET /api/v1/path` as JSON values; a long poll holds it for `wait` seconds."""
        return self.get_answer(path, wait, **query).json()

    def get_answer(self, path: str, wait: float | None = None, **query) -> Answer:
        """The answer of `GET /api/v1/path` as it came, for bytes and headers."""
        query["wait"] = wait
        return self._insist(True, "GET", API + path, query=query, timeout=self.timeout + (wait or 0))

    def send(self, method: str, path: str, body: dict | None = None, timeout: float | None = None):
        """Does a write once, however often it has to be sent; the answer as JSON values, None if it has no body.

        `timeout`: seconds that one answer may take.
        """
        key = os.urandom(16).hex()
        try:
            answer = self._insist(False, method, API + path, body=body, headers={"Idempotency-Key": key}, timeout=timeout)
        except TypeError:
            if (name := unsendable(body or {})) is None:
                raise
            raise InvalidRequest("wants texts, numbers, or lists and mappings of them", field=name) from None
        return answer.json() if answer.body else None

    def pages(self, path: str, most: int | None = None, **query) -> Iterator[dict]:
        """The items of a list, page by page, at most `most` of them."""
        left = most
        while True:
            page = self.get(path, **query, limit=PAGE if left is None else min(PAGE, left))
            yield from page["items"]
            left = None if left is None else left - len(page["items"])
            if page.get("next") is None or left == 0:
                return
            query["after"] = page["next"]

    def _insist(self, reads: bool, method: str, path: str, **options) -> Answer:
        start, pause, said = time.monotonic(), _FIRST_PAUSE_SECONDS, False
        while True:
            try:
                answer = self._connection.request(method, path, **options)
                self._met = True
                return raise_for(answer)
            except (Unreachable, Unavailable) as error:
                waited = time.monotonic() - start
                if not _passes(error) or waited + pause > (self._patience[reads] if self._met else self._connect_timeout):
                    raise
                if not said and waited > _SAY_AFTER_SECONDS:
                    said = _say(error)
            time.sleep(pause * random.uniform(0.7, 1.3))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def _passes(error: ScitqError) -> bool:
    """Whether waiting may help. A full disk and a wrong token are told at once, so is an interruption that somebody asked for."""
    return not isinstance(error, (StorageFull, TooManyRequests, Interrupted))


def _say(error: ScitqError) -> bool:
    import logging  # 15 ms that only a long wait pays

    logging.getLogger("scitq.lib").warning("%s; waiting for it", error)
    return True
