"""One region of an OpenStack cloud, by openstacksdk: asked patiently, its errors told in ours.

Reads and removals are asked again when the cloud stumbles; what makes something only where it surely was not begun (429).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from importlib import import_module
from typing import Any, TypeVar

from ..errors import ScitqError, nearest
from .provider import CloudRefused, CloudTrouble, NoRoom, Tell

T = TypeVar("T")

VARIABLES = "OS_CLOUD and a clouds.yaml, or OS_AUTH_URL, OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME and the domains"
_SECONDS = 60.0  # for one answer
_TRIES, _TRIES_WHEN_BUSY = 3, 6
_LONGEST_PAUSE_SECONDS = 60.0
_PASSING = (500, 502, 503, 504)
_NO_ROOM = re.compile(
    r"quota|no valid host|exhausted all hosts|limit ?exceeded|over a? ?limit|maximum number of|no more ip addresses|not enough",
    re.IGNORECASE,
)
_WRONG = (400, 401, 403, 404)


class Region:
    """A connection to one region of a cloud. `name` is None for the one that the cloud has by itself."""

    def __init__(self, provider: str, cloud: str | None, name: str | None, tell: Tell):
        self._provider, self._cloud, self._tell = provider, cloud, tell
        self._connection = self._connected(name)
        self.name = self._checked(name)

    def ask(self, what: str, call: Callable[..., T], *words, again: bool = True, **more) -> T:
        """What the SDK answers to `call`. `what`: for the log and for errors. Raises CloudTrouble, NoRoom, CloudRefused."""
        attempt = 1
        while True:
            try:
                return call(*words, **more)
            except Exception as error:  # the SDK's own, requests', keystoneauth's: they have no common ancestor
                pause = _pause(error, attempt, again)
                if pause is None:
                    raise self._ours(what, error) from error
                self._tell(f"{what}: {_said(error)}; asking again in {pause:g} s")
            time.sleep(pause)
            attempt += 1

    def find(self, kind: str, wanted: str, listing: Callable[[], Iterable]) -> Any:
        """The one thing of this name or id. Raises CloudRefused with the nearest name."""
        known = self.ask(f"listing {kind}s", lambda: list(listing()))
        found = [one for one in known if one.id == wanted] or [one for one in known if one.name == wanted]
        if len(found) == 1:
            return found[0]
        where = f"region {self.name} of provider {self._provider}"
        if found:
            ids = ", ".join(one.id for one in found)
            raise CloudRefused(f"{where} has {len(found)} {kind}s called {wanted!r:.80}: give the id of one ({ids})")
        names = sorted({one.name for one in known if one.name})
        raise CloudRefused(f"{where} has no {kind} {wanted!r:.80}{nearest(wanted, names)}")

    @cached_property
    def compute(self):
        compute = self.ask("asking for Nova", lambda: self._connection.compute)
        compute.request = partial(compute.request, connect_retries=0)  # or it would send an order twice
        return compute

    @cached_property
    def image(self):
        return self.ask("asking for Glance", lambda: self._connection.image)

    @cached_property
    def network(self):
        return self.ask("asking for Neutron", lambda: self._connection.network)

    # --- the connection -----------------------------------------------------------------------------------------------

    def _connected(self, name: str | None):
        openstack = self.ask("loading openstacksdk", import_module, "openstack")
        known = self.ask("reading the credentials", openstack.config.OpenStackConfig, app_name="scitq")
        names = self.ask("reading the credentials", known.get_cloud_names)
        if self._cloud and self._cloud not in names:
            there = f"no cloud {self._cloud!r:.80} in a clouds.yaml{nearest(self._cloud, names)}"
            raise CloudRefused(f"provider {self._provider}: there is {there}: set `cloud`, or {VARIABLES}")
        more = {"region_name": name} if name else {}
        config = self.ask("reading the credentials", known.get_one, cloud=self._cloud, api_timeout=_SECONDS, **more)
        return self.ask("making a session", openstack.connection.Connection, config=config)

    def _checked(self, name: str | None) -> str:
        """The name of the region, which the cloud's catalogue has. Raises CloudRefused."""
        session = self.ask("making a session", lambda: self._connection.session)
        access = self.ask("asking for a token", lambda: session.auth.get_access(session))
        found = access.service_catalog.get_endpoints_data(service_type="compute") if access.has_service_catalog() else {}
        regions = sorted({one.region_name for endpoints in found.values() for one in endpoints if one.region_name})
        name = name or self._connection.config.get_region_name() or (regions[0] if len(regions) == 1 else None)
        if name in regions:
            return name
        if name is None:
            raise CloudRefused(f"provider {self._provider} has several regions: name yours in `regions` ({', '.join(regions)})")
        there = ", ".join(regions) or "none"
        raise CloudRefused(f"provider {self._provider} has no region {name!r:.80}{nearest(name, regions)}: there are {there}")

    # --- errors -------------------------------------------------------------------------------------------------------

    def _ours(self, what: str, error: Exception) -> Exception:
        if isinstance(error, (ScitqError, ImportError)):
            return error
        from keystoneauth1 import exceptions as keystone
        from openstack import exceptions as sdk

        who = f"provider {self._provider}: {what}"
        if isinstance(error, (keystone.MissingRequiredOptions, keystone.MissingAuthPlugin)):
            missing = [f"OS_{option.name.upper().replace('-', '_')}" for option in getattr(error, "options", ())]
            return CloudRefused(f"{who}: no credentials ({', '.join(missing) or 'none at all'} missing): set {VARIABLES}")
        if isinstance(error, sdk.ConfigException):
            hint = "" if "egion" in str(error) else f" Set {VARIABLES}"
            return CloudRefused(f"{who}: {_said(error)}{hint}")
        if isinstance(error, keystone.Unauthorized) or _status(error) == 401:
            return CloudRefused(f"{who}: the credentials are refused ({_said(error)}): set {VARIABLES}")
        if isinstance(error, (keystone.AuthPluginException, keystone.CatalogException, sdk.DuplicateResource)):
            return CloudRefused(f"{who}: {_said(error)}")
        return self._by_status(who, error)

    def _by_status(self, who: str, error: Exception) -> ScitqError:
        status, said = _status(error), _said(error)
        if status in (400, 403, 409, 413) and is_no_room(said):
            return NoRoom(f"{who}: {said}")
        if status in _WRONG:
            return CloudRefused(f"{who}: {said}")
        return CloudTrouble(f"{who}: {said if status is None else f'{status}, {said}'}")


def together(what: str, calls: Sequence[Callable[[], T]], seconds: float) -> list[T | ScitqError]:
    """What each call answers, asked all at once, or why it does not; one that is silent for so long holds up no other, nor an
    exit.
    """
    answers: dict[int, T | Exception] = {}

    def ask(index: int, call: Callable[[], T]) -> None:
        try:
            answers[index] = call()
        except Exception as error:  # noqa: BLE001 - told below, where somebody hears it
            answers[index] = error

    end = time.monotonic() + seconds
    threads = [threading.Thread(target=ask, args=one, daemon=True) for one in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    found = [answers.get(index, CloudTrouble(f"{what}: no answer within {seconds:g} s")) for index in range(len(calls))]
    for answer in found:
        if isinstance(answer, Exception) and not isinstance(answer, ScitqError):
            raise answer
    return found


def is_no_room(said: str) -> bool:
    """Whether what a cloud said of a failure means that quota or capacity are used up."""
    return _NO_ROOM.search(said) is not None


def _status(error: Exception) -> int | None:
    """The HTTP status of the answer; None if none came."""
    return getattr(error, "status_code", None) or getattr(error, "http_status", None) or None


def _said(error: Exception) -> str:
    """What the cloud said, in one line."""
    return " ".join(str(getattr(error, "details", None) or error).split())[:500] or type(error).__name__


def _pause(error: Exception, attempt: int, again: bool) -> float | None:
    """Seconds until it may be asked again; None if it may not."""
    status = _status(error)
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    if status == 429 or (status == 413 and "Retry-After" in headers):
        return None if attempt == _TRIES_WHEN_BUSY else _seconds(headers, 2.0**attempt)
    if again and attempt < _TRIES and (status in _PASSING or (status is None and _is_of_the_line(error))):
        return _seconds(headers, 0.25 * 2**attempt)
    return None


def _is_of_the_line(error: Exception) -> bool:
    if isinstance(error, ImportError):
        return False
    from keystoneauth1.exceptions import ConnectFailure, ConnectTimeout, UnknownConnectionError

    return isinstance(error, (ConnectFailure, ConnectTimeout, UnknownConnectionError, ConnectionError))


def _seconds(headers: Mapping[str, str], otherwise: float) -> float:
    """Of `Retry-After`, when it is there and a number."""
    said = headers.get("Retry-After", "").strip()
    return min(float(said) if re.fullmatch(r"\d+(\.\d+)?", said) else otherwise, _LONGEST_PAUSE_SECONDS)
