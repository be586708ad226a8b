"""URIs of data: `scheme@option://place|action`, or the path of a local file.

`s3://bucket/folder/` (a final `/` means all below), `https@aria2://host/file.tgz|untar`, `run+fastq@ftp://ERR3857002`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from urllib.parse import SplitResult, quote, urlsplit

from ..errors import InvalidRequest, nearest
from ..uris import shown

ACTIONS = ("gunzip", "untar", "unzip", "mv:FOLDER", "only:GLOB")
_URI = re.compile(r"([A-Za-z0-9][A-Za-z0-9+. _-]*)((?:@[A-Za-z0-9_]+)*)://(.*)", re.DOTALL)
# Of a plain path only what is one is an action.
_PATH = re.compile(r"(.*?)((?:\|(?:gunzip|untar|unzip|mv:[^|]+|only:[^|]+))*)", re.DOTALL)
_QUOTED = ("ftp", "http", "https")
_CONTROL = re.compile("[\0-\x1f\x7f]")


@dataclass(frozen=True)
class Uri:
    """One place of data, and what is done with what comes from there."""

    scheme: str  # `s3`, `https`, `run+fastq`, or the name of an rclone remote
    place: str  # what stands after `://`; of a file its absolute path
    options: tuple[str, ...] = ()  # how it is transported: `aria2`, `ftp`, `sra`, `aspera`...
    actions: tuple[str, ...] = ()  # done in this order with what was fetched: `untar`, `mv:folder`...

    @classmethod
    def of(cls, text: str) -> Uri:
        """Reads a URI or a local path. Raises InvalidRequest."""
        if not text or _CONTROL.search(text):
            raise InvalidRequest(f"{shown(text)!r:.100} is no URI: {'it holds control characters' if text else 'it is empty'}")
        found = _URI.fullmatch(text)
        if found is None:
            path, actions = _PATH.fullmatch(text).groups()  # type: ignore[union-attr]
            return cls("file", _absolute(path), (), tuple(map(_checked_action, actions.split("|")[1:])))
        place, *actions = found[3].split("|")
        scheme = found[1].lower() if found[1].lower() in ("file", "http", "https", "ftp", "s3", "azure", "fasp") else found[1]
        if scheme == "file":
            place = _absolute(place, text)
        if not place:
            raise InvalidRequest(f"{shown(text)!r:.200} names no place after ://")
        return cls(scheme, place, tuple(found[2].split("@")[1:]), tuple(map(_checked_action, actions)))

    @property
    def is_folder(self) -> bool:
        """Whether it means all below."""
        return self.place.endswith("/")

    @property
    def globs(self) -> list[str]:
        """Which files of it are meant, if not all: one of these must match."""
        return [action.removeprefix("only:") for action in self.actions if action.startswith("only:")]

    @property
    def name(self) -> str:
        """The last part of the place."""
        return self.place.rstrip("/").rpartition("/")[2]

    def child(self, relative: str) -> Uri:
        """What lies at a relative place below this folder. Where names are quoted in a place, it is."""
        if self.scheme in _QUOTED:
            relative = quote(relative, errors="surrogateescape")
        return replace(self, place=self.place.rstrip("/") + "/" + relative, actions=())

    def without_actions(self) -> Uri:
        """The place alone."""
        return replace(self, actions=())

    @property
    def text(self) -> str:
        """As it is written."""
        options = "".join(f"@{option}" for option in self.options)
        return f"{self.scheme}{options}://{self.place}" + "".join(f"|{action}" for action in self.actions)

    def __str__(self) -> str:
        """To be shown: without a password, and without what signs a URL."""
        return shown(self.text)

    @property
    def address(self) -> SplitResult:
        """Of a place that begins with a host: user, password, host, port and path. Raises InvalidRequest if it names no host."""
        try:
            parts = urlsplit(f"{self.scheme}://{self.place}")
            if parts.hostname and (parts.port is None or parts.port > 0):
                return parts
        except ValueError:
            pass  # a port that is no number, a bracket that is not closed
        raise InvalidRequest(f"{self}: it names no host and port; a / or @ in a password is written as %2F or %40")


def _absolute(path: str, text: str | None = None) -> str:
    """A local path from the root on, with its final `/`."""
    if text is not None and not path.startswith("/"):
        raise InvalidRequest(f"{shown(text)!r:.200}: after file:// comes an absolute path: file:///data/a")
    return os.path.abspath(os.path.expanduser(path)) + ("/" if path.endswith("/") and path.strip("/") else "")


def _checked_action(action: str) -> str:
    name, colon, folder = action.partition(":")
    if name == "mv" and folder.strip("/"):
        parts = folder.strip("/").split("/")
        if folder.startswith("/") or ".." in parts:
            raise InvalidRequest(f"the action |{action} leads out of the folder: give a relative one, |mv:reference")
        return action
    if action not in ACTIONS[:3] and not (name == "only" and folder):
        known = ", ".join(f"|{one}" for one in ACTIONS)
        raise InvalidRequest(f"|{action:.60} is no action{nearest(action, ACTIONS)}: there are {known}")
    return action
