"""Which file of this package serves which scheme; loaded when the first URI of it is met."""

from __future__ import annotations

import threading
from importlib import import_module

from ..errors import InvalidRequest, nearest
from .scheme import Scheme
from .uri import Uri

KNOWN = {
    "file": ".local",
    "http": ".web",
    "https": ".web",
    "ftp": ".ftp",
    "s3": ".s3",
    "azure": ".azure",
    "fasp": ".aspera",
    "run+fastq": ".fastq",
}
PLUGINS = "scitq.fetch"  # entry points: scheme -> a module with a class `Place(Scheme)`

_open: dict[tuple[str, tuple[str, ...]], Scheme] = {}
_lock = threading.Lock()


def scheme_of(uri: Uri) -> Scheme:
    """The scheme of a URI, one object for all URIs of the same scheme and options. Raises InvalidRequest if there is none."""
    key = (uri.scheme, uri.options)
    with _lock:
        if key not in _open:
            _open[key] = _module(uri).Place(uri.scheme, uri.options)
        return _open[key]


def _module(uri: Uri):
    if uri.scheme in KNOWN:
        return import_module(KNOWN[uri.scheme], __package__)
    from importlib.metadata import entry_points  # 40 ms that only a scheme from elsewhere pays

    for plugin in entry_points(group=PLUGINS, name=uri.scheme):
        return plugin.load()
    rclone = import_module(".rclone", __package__)
    if rclone.is_remote(uri.scheme):
        return rclone
    known = ", ".join(f"{name}://" for name in KNOWN)
    raise InvalidRequest(
        f"{uri}: there is no scheme '{uri.scheme}'{nearest(uri.scheme, KNOWN)}; there are {known} and the remotes of rclone"
        + ("" if rclone.is_here() else ", which is not installed here")
    )
