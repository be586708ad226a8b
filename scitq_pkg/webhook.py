"""One POST to a URL that somebody gave: only where it may go, to the address that was looked at, and not for long.

Whoever may use a server could make it speak to what only the server can reach. So a host is allowed by its name, or by each of
its addresses, and the connection goes to that very address: a name that leads elsewhere the next moment changes nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Iterable
from fnmatch import fnmatch
from urllib.parse import SplitResult, urlsplit

from .errors import InvalidRequest, NotAllowed, Unreachable

PUBLIC = "public"  # all addresses but those of machines and networks of one's own
MOST_CHARACTERS = 2000
WAIT_SECONDS = 10.0  # for a connection, and for each piece of an answer
WHOLE_SECONDS = 20.0  # for all of it
_ANSWER_BYTES = 4096  # that are read
_BLANK = re.compile(r"[\x00-\x20\x7f-\uffff]")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check_url(url: str) -> None:
    """Raises InvalidRequest for what is no URL of a webhook; never with the URL, which may be a secret."""
    _parts(url)


def masked(url: str) -> str:
    """A webhook as it may be shown: its path is what lets people post."""
    try:
        parts = _parts(url)
    except InvalidRequest:
        return "..."
    return f"{parts.scheme}://{parts.netloc}/..."


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        known = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:  # the port is none, or the brackets of an address
        known = False
    if not known or _BLANK.search(url) or "\\" in url:
        raise InvalidRequest("is no URL such as https://hooks.example.org/T0/B1 (http or https, ASCII, no spaces)")
    if len(url) > MOST_CHARACTERS:
        raise InvalidRequest(f"is longer than {MOST_CHARACTERS} characters")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest("cannot have a user or a password before its host")
    if parts.path == "/..." and not parts.query:
        raise InvalidRequest("is only what the server shows of one: give the whole URL")
    return parts


# --- where it may go ------------------------------------------------------------------------------------------------------


def check_host(url: str, allowed: Iterable[str]) -> None:
    """Raises NotAllowed for a host that no item of `allowed` could let through, as far as its name tells; asks nobody."""
    host, patterns = _host(_parts(url)), list(allowed)
    address = _address(host)
    could = address is None and any(pattern == PUBLIC or _network(pattern) for pattern in patterns)
    if not could and not _is_allowed(host, address, patterns):
        raise _refusal(host)


def _host(parts: SplitResult) -> str:
    return (parts.hostname or "").rstrip(".").lower()


def _refusal(host: str) -> NotAllowed:
    return NotAllowed(
        f"webhooks may not go to {host:.200}: it is private, or not among those that this server allows "
        "(its administrator may: --webhook-host)"
    )


def _is_allowed(host: str, address: Address | None, allowed: Iterable[str]) -> bool:
    """By its name, or by its address, if that is known."""
    for pattern in allowed:
        network = _network(pattern)
        if pattern == PUBLIC or network is not None:
            if address is not None and (is_public(address) if network is None else _plain(address) in network):
                return True
        elif fnmatch(host, pattern):
            return True
    return False


def _network(pattern: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return None


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
    return address


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet, and not of this machine or of a network around it."""
    plain = _plain(address)
    return plain.is_global and not plain.is_multicast and not plain.is_reserved


def _addresses(host: str, port: int, allowed: list[str]) -> list[str]:
    """Those of a host to which it may go. Raises Unreachable, NotAllowed."""
    try:
        found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{host} has no address: {getattr(error, 'strerror', None) or 'it is no name'}") from None
    good = [text for text in dict.fromkeys(found) if _is_allowed(host, _address(text), allowed)]
    if not good:
        raise _refusal(host)
    return good


# --- the request ----------------------------------------------------------------------------------------------------------


def post(
    url: str, body: bytes, headers: dict[str, str], allowed: Iterable[str],
    wait_seconds: float = WAIT_SECONDS, whole_seconds: float = WHOLE_SECONDS,
) -> None:  # fmt: skip
    """POST JSON. Redirects are not followed, proxies not asked. Raises Unreachable, NotAllowed; neither shows the path."""
    parts = _parts(url)
    host, port = _host(parts), parts.port or _PORTS[parts.scheme]
    address = _addresses(host, port, list(allowed))[0]
    connection = http.client.HTTPConnection(parts.hostname or "", port, timeout=wait_seconds)
    limit = _Limit(whole_seconds)
    try:
        connection.sock = limit.sock = _connected(parts, address, port, wait_seconds)
        if isinstance(connection.sock, ssl.SSLSocket):
            connection.sock.do_handshake()
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        answer.read(_ANSWER_BYTES)
        if limit.is_over:  # the end of headers that never ended
            raise ConnectionError
    except TimeoutError:
        raise Unreachable(f"{host} does not answer within {wait_seconds:g} s") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = f"it took longer than {whole_seconds:g} s" if limit.is_over else _reason(error)
        raise Unreachable(f"{host} cannot be asked: {why}") from None
    finally:
        limit.cancel()
        connection.close()
    _check_status(host, answer.status)


class _Limit:
    """Ends what takes too long: whoever sends a byte now and then would hold it for ever."""

    def __init__(self, seconds: float):
        self.sock: socket.socket | None = None
        self.is_over = False
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        """It is done in time."""
        self._timer.cancel()

    def _cut(self) -> None:
        self.is_over = True
        if self.sock is not None:
            with contextlib.suppress(OSError):  # it was closed by the other side already
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # not ssl's, which changes what the reading thread uses


def _connected(parts: SplitResult, address: str, port: int, wait_seconds: float) -> socket.socket:
    bare = socket.create_connection((address, port), wait_seconds)
    if parts.scheme == "http":
        return bare
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context.wrap_socket(bare, server_hostname=parts.hostname, do_handshake_on_connect=False)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason}"
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _check_status(host: str, status: int) -> None:
    if 300 <= status < 400:
        raise Unreachable(f"{host} answers {status}, a redirect, which is not followed: give the URL that it leads to")
    if not 200 <= status < 300:
        raise Unreachable(f"{host} answers {status} {http.client.responses.get(status, '')}".rstrip())
