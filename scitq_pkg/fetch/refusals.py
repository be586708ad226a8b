"""What is not to be fetched or sent here, as whoever runs this machine says: `SCITQ_FETCH_REFUSE` and `SCITQ_FETCH_ONLY`.

Each is a list of globs of URIs and of networks, with white space between. A network counts for all that this process connects to,
whatever the name or redirect that led there; globs count for every URI that is asked for, listed, or redirected to.
"""

from __future__ import annotations

import os
import posixpath
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache, wraps
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import ParamSpec, TypeVar
from urllib.parse import unquote

from ..errors import InvalidRequest, NotAllowed, ScitqError, TransferFailed
from .uri import Uri

REFUSE_VARIABLE = "SCITQ_FETCH_REFUSE"
ONLY_VARIABLE = "SCITQ_FETCH_ONLY"
P = ParamSpec("P")
T = TypeVar("T")
_PORTS = {"http": 80, "https": 443, "ftp": 21}


@dataclass(frozen=True)
class Rules:
    """Globs of URIs and networks."""

    globs: tuple[str, ...]
    networks: tuple[IPv4Network | IPv6Network, ...]

    @classmethod
    def of(cls, text: str) -> Rules:
        """Reads a list with white space between. Raises InvalidRequest."""
        globs, networks = [], []
        for word in text.split():
            if "://" in word or word == "*":
                globs.append(word)
                continue
            try:
                networks.append(ip_network(word, strict=False))
            except ValueError:
                raise InvalidRequest(
                    f"'{word:.100}' is neither a glob of URIs, as file:///etc/*, nor a network, as 169.254.0.0/16"
                ) from None
        return cls(tuple(globs), tuple(networks))


def check(uri: Uri) -> Uri:
    """The URI, if it may be used here. Raises NotAllowed."""
    refuse, only = _rules()
    if refuse.globs or only.globs:
        names = _names(uri)
        _check_refused(uri, names, refuse)
        if only.globs and not all(any(fnmatchcase(name, glob) for glob in only.globs) for name in names):
            raise NotAllowed(f"{uri}: refused on this machine, which allows only {' '.join(only.globs)}")
    return uri


def check_endpoint(url: str) -> None:
    """The address at which a URI of another scheme is asked for. What is allowed alone names that URI, and not where it leads.

    Raises NotAllowed if it is refused.
    """
    refuse, _ = _rules()
    if refuse.globs:
        scheme, _, place = url.partition("://")
        uri = Uri(scheme.lower(), place)
        _check_refused(uri, _names(uri), refuse)


def _check_refused(uri: Uri, names: set[str], refuse: Rules) -> None:
    for glob in refuse.globs:
        if any(fnmatchcase(name, glob) for name in names):
            raise NotAllowed(f"{uri}: refused on this machine (--refuse or {REFUSE_VARIABLE}: {glob})")


def any_are_set() -> bool:
    """Whether anything is refused: then no program fetches that follows redirects by itself."""
    return any(rules.globs or rules.networks for rules in _rules())


def behind(error: BaseException) -> NotAllowed | None:
    """The refusal that made an error, if one did: libraries wrap what happens to their connections."""
    passed: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and seen not in passed:  # some are told to be their own cause
        if isinstance(seen, _Refused):
            return seen
        passed.append(seen)
        seen = seen.__cause__ or seen.__context__
    return None


def told(act: Callable[P, T]) -> Callable[P, T]:
    """The function, which raises NotAllowed for what failed because a connection was refused, and no errors but those of ours."""

    @wraps(act)
    def acting(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return act(*arguments, **options)
        except ScitqError as error:
            if not isinstance(error, NotAllowed) and (refusal := behind(error)):
                raise NotAllowed(f"{refusal}: {error}") from error
            raise
        except UnicodeError as error:
            raise TransferFailed(f"a name is not UTF-8, which that place wants: rename it, or leave it out ({error})") from error
        except OSError as error:
            raise TransferFailed(f"{error.strerror or error}: {error.filename}" if error.filename else str(error)) from error

    return acting


class _Refused(NotAllowed):
    """A connection to a network that is refused."""


def _rules() -> tuple[Rules, Rules]:
    return _read(os.environ.get(REFUSE_VARIABLE, ""), os.environ.get(ONLY_VARIABLE, ""))


@lru_cache(maxsize=4)
def _read(refuse: str, only: str) -> tuple[Rules, Rules]:
    rules = Rules.of(refuse), Rules.of(only)
    if any(one.networks for one in rules):
        _watch_connections()
    return rules


@lru_cache(maxsize=1)
def _watch_connections() -> None:
    """An audit hook sees the address itself, after names were looked up, whichever library connects."""

    def hook(event: str, arguments: tuple) -> None:
        if event == "socket.connect" and isinstance(arguments[1], tuple):
            _check_address(arguments[1][0])

    sys.addaudithook(hook)


def _check_address(host: str) -> None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return  # no address: whoever connects to names has them looked up before
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    refuse, only = _rules()
    for network in refuse.networks:
        if address in network:
            raise _Refused(f"connections to {address} are refused on this machine (--refuse or {REFUSE_VARIABLE}: {network})")
    if only.networks and not any(address in network for network in only.networks):
        raise _Refused(
            f"connections to {address} are refused on this machine, which allows only {' '.join(map(str, only.networks))}"
        )


def _names(uri: Uri) -> set[str]:
    """All ways in which a glob may name a place: as it is written, and where that leads."""
    if uri.scheme == "file":
        real = os.path.realpath(uri.place)
        return {f"file://{uri.place}", f"file://{real}{'/' if uri.is_folder and real != '/' else ''}"}
    if uri.scheme not in (*_PORTS, "fasp"):
        return {f"{uri.scheme}://{uri.place}", f"{uri.scheme}://{_normal(uri.place, uri.is_folder)}"}
    parts = uri.address
    port = f":{parts.port}" if parts.port and parts.port != _PORTS.get(uri.scheme) else ""
    host = f"{uri.scheme}://{parts.hostname or ''}{port}"
    path = _normal("/" + unquote(parts.path).lstrip("/"), len(parts.path) > 1 and uri.is_folder)
    return {f"{host}{parts.path or '/'}", f"{host}{path}"}


def _normal(path: str, is_folder: bool) -> str:
    """A path without its `..`, which some server on the way may take for a way up."""
    return posixpath.normpath(path) + "/" * is_folder
