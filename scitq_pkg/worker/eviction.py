"""Whether the provider is about to take this machine away, as the provider tells on the machine itself.

It is only listened to: nothing is acknowledged, for that would hasten the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
from collections.abc import Callable
from urllib.parse import urlsplit

from ..errors import InvalidRequest, nearest
from .errand import Errand

VARIABLE = "SCITQ_EVICTION"  # whose machine it is; without it nobody is asked
URL_VARIABLE = "SCITQ_METADATA_URL"
POLL_SECONDS = 5.0
_ANSWER_SECONDS = 150.0  # the first answer may take two minutes
_MOST_BYTES = 2**20
_AZURE = "http://169.254.169.254"
_EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
_NAME = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"


def watch(evicted: Callable[[str], None]) -> asyncio.Task | None:
    """Calls `evicted(why)` once, when this machine is to be taken away; None where nobody can tell.

    Raises InvalidRequest for a provider that is none of those who tell.
    """
    kind = os.environ.get(VARIABLE)
    if not kind:
        return None
    if kind not in _ASKED:
        raise InvalidRequest(f"no machine of {kind!r:.80} tells its eviction{nearest(kind, _ASKED)}", field=VARIABLE)
    return asyncio.get_running_loop().create_task(_until_evicted(_ASKED[kind](), evicted))


async def _until_evicted(provider: Azure, evicted: Callable[[str], None]) -> None:
    errand = Errand("eviction")
    while True:
        try:
            why = await errand.do(provider.why_evicted)
        except (OSError, ValueError, http.client.HTTPException):  # it does not answer now, or answers what it should not
            why = None
        if why:
            evicted(why)
            return
        await asyncio.sleep(POLL_SECONDS)


class Azure:
    """The scheduled events of a virtual machine.

    https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
    """

    def __init__(self) -> None:
        self._url = urlsplit(os.environ.get(URL_VARIABLE) or _AZURE)
        self._name: str | None = None

    def why_evicted(self) -> str | None:
        """A sentence when this machine is to go; None otherwise. Raises OSError, ValueError, HTTPException."""
        told = json.loads(self._get(_EVENTS))
        events = told.get("Events") if isinstance(told, dict) else None
        gone = [event for event in events or () if isinstance(event, dict) and event.get("EventType") in ("Preempt", "Terminate")]
        event = next((event for event in gone if self._is_meant(event.get("Resources"))), None)
        if event is None:
            return None
        return f"Azure takes its machine away ({event['EventType']}, not before {event.get('NotBefore') or 'now'})"

    def _is_meant(self, machines: object) -> bool:
        """Events of a whole availability set are told to each of its machines. Where its name cannot be had, all count."""
        if self._name is None:
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                self._name = self._get(_NAME).decode().strip()
        return self._name is None or not isinstance(machines, list) or self._name in machines

    def _get(self, path: str) -> bytes:
        """No proxy comes between: the address is this machine's own link."""
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port or 80, timeout=_ANSWER_SECONDS)
        try:
            connection.request("GET", path, headers={"Metadata": "true"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise ValueError(f"the metadata service answered {answer.status}")
            return answer.read(_MOST_BYTES)
        finally:
            connection.close()


_ASKED = {"azure": Azure}
