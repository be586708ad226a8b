"""What a browser could be made to send is refused here: foreign hosts, foreign origins, frames. This server runs commands.

Every answer carries headers that forbid framing, sniffing and scripts from elsewhere.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache
from urllib.parse import urlsplit

from ..address import is_loopback
from ..errors import InvalidRequest, NotAllowed

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Gate:
    """Checks the `Host`, the `Origin` and the path of every request, whoever sends it."""

    def __init__(self, host: str, allowed: tuple[str, ...] = ()):
        own = {"localhost", host.lower(), socket.gethostname().lower(), socket.gethostname().partition(".")[0].lower()}
        self._names = own | {name.lower() for name in allowed}

    def check(self, environ: dict) -> None:
        """Raises NotAllowed (it comes from elsewhere), InvalidRequest (its path is no UTF-8)."""
        _check_path(environ.get("PATH_INFO", ""))
        host = environ.get("HTTP_HOST", "")
        self._check_host(host)
        self._check_origin(environ, host)

    def _check_host(self, host: str) -> None:
        """DNS rebinding: another site's name may lead here; then the browser sends that name."""
        name = _name_of(host)
        if not name:
            raise NotAllowed("the request does not say which host it is for", field="Host")
        if name in self._names or is_loopback(name) or _is_address(name) or name == _full_name():
            return
        raise NotAllowed(
            f"this server does not go by the name {name!r:.100}: start it with --allowed-host {name:.100} if it should",
            field="Host",
        )

    def _check_origin(self, environ: dict, host: str) -> None:
        """Cross-site requests: a page from elsewhere has another origin. Only plain navigation may come from other sites."""
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and not _is_same(origin, host):
            raise NotAllowed(f"requests from pages of {origin!r:.100} are refused", field="Origin")
        site = environ.get("HTTP_SEC_FETCH_SITE", "none")
        if site in ("same-origin", "none"):
            return
        navigates = environ.get("HTTP_SEC_FETCH_MODE") == "navigate" and environ.get("REQUEST_METHOD") == "GET"
        if not navigates or environ.get("PATH_INFO", "").startswith("/api/"):
            raise NotAllowed("requests from pages of other sites are refused", field="Sec-Fetch-Site")


def check_own_page(environ: dict) -> None:
    """A write that only a cookie speaks for must come from a page of ours. Raises NotAllowed.

    The cookie is SameSite=Strict already; but a server at another port of this machine counts as the same site.
    """
    own = environ.get("HTTP_ORIGIN") is not None or environ.get("HTTP_SEC_FETCH_SITE") == "same-origin"
    if not own:
        raise NotAllowed(
            "a change wants the header `Authorization: Bearer TOKEN`, or to come from a page of this server", field="Origin"
        )


def _check_path(path: str) -> None:
    try:
        text = path.encode("latin-1").decode("utf-8")
    except ValueError:
        raise InvalidRequest("the path is not UTF-8", field="path") from None
    if "\0" in text:
        raise InvalidRequest("the path holds a NUL", field="path")


def _name_of(host: str) -> str:
    """The host of a `Host` header, lower-case, without port, brackets and final dot."""
    try:
        return (urlsplit("//" + host).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    """A literal address cannot be rebound."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_same(origin: str, host: str) -> bool:
    """Whether an `Origin` is that of this server, as it was called; not the scheme: a proxy may have taken off the TLS."""
    scheme, _, rest = origin.lower().partition("://")
    default = {"http": ":80", "https": ":443"}.get(scheme)
    return default is not None and (rest == host.lower() or rest + default == host.lower() or rest == host.lower() + default)


@lru_cache(maxsize=1)
def _full_name() -> str:
    return socket.getfqdn().lower()  # asks the DNS, so only when another name came in
