"""An open stream of events, as a browser's EventSource has it."""

from __future__ import annotations

import contextlib
import http.client
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

PATIENCE_SECONDS = 60.0


@dataclass
class Told:
    """One event."""

    id: str
    kind: str
    data: dict


class Listener:
    """Reads one stream; `retry` is what it was told, `ended` whether the server has ended it."""

    def __init__(self, url: str, token: str, last: str | None = None, **query):
        words = "&".join(f"{name}={value}" for name, value in query.items())
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_SECONDS)
        headers = {"Authorization": f"Bearer {token}", **({"Last-Event-ID": last} if last else {})}
        self._connection.request("GET", f"/api/v1/stream?{words}", headers=headers)
        self._answer = self._connection.getresponse()
        self.status, self.kind = self._answer.status, self._answer.getheader("Content-Type")
        self.retry: int | None = None
        self.ended = False

    def next(self) -> Told | None:
        """The next event; None when the stream has ended."""
        fields: dict[str, str] = {}
        while True:
            line = self._answer.readline().decode().rstrip("\n")
            if not line and self._answer.isclosed():
                self.ended = True
                return None
            name, _, value = line.partition(": ")
            if name == "retry":
                self.retry = int(value)
            elif line:
                fields[name] = value
            elif "data" in fields:
                return Told(fields["id"], fields["event"], json.loads(fields["data"]))

    def until(self, condition) -> Told:
        """The first event of which the condition holds."""
        while (told := self.next()) is not None:
            if condition(told):
                return told
        raise AssertionError("the stream ended before")

    def rest(self) -> list[Told]:
        """All that comes until the end."""
        return list(iter(self.next, None))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the server was quicker
            self._answer.close()
            self._connection.close()
