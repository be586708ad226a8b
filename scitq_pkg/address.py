"""Where a server is: `host`, `host:port` or a URL becomes one URL that is always written the same way."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from .errors import InvalidRequest
from .protocol import DEFAULT_PORT

LOOPBACK = "127.0.0.1"
_SCHEMES = ("http", "https")


def server_url(server: str | None = None) -> str:
    """The URL of a server, without final slash: `http://host:port`, `https://host:port/prefix`.

    None or nothing means `$SCITQ_SERVER`, else this machine. IPv6 addresses may be bare (`::1`) when no port follows, else in
    brackets. The port is 5000 unless one is given, whatever the scheme. Raises InvalidRequest.
    """
    if server is not None and not isinstance(server, str):
        raise _wrong(server, "it is no text")
    given = (server or os.environ.get("SCITQ_SERVER") or LOOPBACK).strip()
    text = given if "://" in given else "http://" + _bracketed(given)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _wrong(given, str(error)) from None
    if parts.scheme not in _SCHEMES:
        raise _wrong(given, f"{parts.scheme}:// is not spoken here")
    if not host or port == 0 or not host.isprintable() or any(c in host for c in " \\%<>\"'"):
        raise _wrong(given, "it has no valid host name and port")
    if parts.query or parts.fragment or parts.username is not None:
        raise _wrong(given, "it may hold no user, password, query or fragment")
    return join_url(parts.scheme, host if host.isascii() else _ascii(given, host), port or DEFAULT_PORT, parts.path.rstrip("/"))


def join_url(scheme: str, host: str, port: int, path: str = "") -> str:
    """The URL of these parts; an IPv6 address gets its brackets."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"


def split_url(url: str) -> tuple[str, str, int, str]:
    """Scheme, host (without brackets), port and path prefix of a URL that `server_url` made."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or LOOPBACK, parts.port or DEFAULT_PORT, parts.path


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    return host == "localhost" or host == "::1" or (host.startswith("127.") and host.replace(".", "").isdigit())


def _bracketed(text: str) -> str:
    """`::1` as `[::1]`; everything else as it is."""
    return f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text


def _ascii(given: str, host: str) -> str:
    """An international host name as the network knows it."""
    try:
        return host.encode("idna").decode()
    except UnicodeError as error:
        raise _wrong(given, str(error)) from None


def _wrong(given: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{given!r:.200} is not the address of a server ({why}): give host, host:port or a URL", field="server")
