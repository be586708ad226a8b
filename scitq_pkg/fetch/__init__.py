"""Moves data: `get`, `put`, `copy`, `sync`, `delete`, `list_content`, `info`, over any scheme.

    from scitq.fetch import get
    get("s3://bucket/reads/", "reads/")
    get("https://host/reference.tgz|untar", "reference/")

A file that is there is complete: it comes under another name, is checked by size (and by md5, where the source tells it), and
renamed. What is broken off is gone on with where the source allows, and tried again. Errors: NotFound, NotAllowed,
InvalidRequest, TransferFailed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from ..errors import InvalidRequest, NotAllowed, NotFound
from . import actions, refusals
from .arrivals import Arrivals
from .parallel import together
from .progress import Meter
from .scheme import Entry, Scheme
from .schemes import scheme_of
from .transfer import clean, download, md5_of, replaceable, upload
from .uri import Uri

__all__ = ["Entry", "Uri", "copy", "delete", "entries", "get", "info", "list_content", "put", "sync"]


@refusals.told
def get(
    uri: str, destination: str | Path = ".", parallel: int | None = None, show_progress: bool = False, meter: Meter | None = None
) -> list[Path]:  # fmt: skip
    """Fetches a file, or with a final `/` all below; then does its actions. The files that are there now.

    Into `destination` if that is a folder (it is there, or ends in `/`, or a folder is fetched), else to that very path.
    `parallel`: files at once. A `meter` counts, and its `stop` ends it.
    """
    source = refusals.check(Uri.of(uri))
    scheme, root = scheme_of(source), Path(destination)
    into = scheme.many or source.is_folder or str(destination).endswith("/") or root.is_dir()
    root = _moved(root, into, source.actions)
    if scheme.many:
        if source.globs:
            raise InvalidRequest(f"{source}: |only: chooses among the files of a folder")
        with _metered([], show_progress, meter) as meter:
            files = scheme.bring_all(source, root, meter, parallel)
    else:
        entries = [entry for entry in _entries(scheme, source) if _included(entry, source.globs)]
        if not entries:
            raise NotFound(f"{source}: no file below it matches")
        targets = _targets(entries, root) if into else [(entry, replaceable(root)) for entry in entries]
        with _metered(entries, show_progress, meter) as meter:
            _bring(scheme, targets, parallel, meter)
        files = [target for _, target in targets]
        clean(files)
    for action in source.actions:
        files = actions.apply(action, files)
    return files


@refusals.told
def put(
    source: str | Path, uri: str, parallel: int | None = None, show_progress: bool = False, meter: Meter | None = None,
    within: Path | None = None,
) -> None:  # fmt: skip
    """Sends a file, or a folder with all below (into `uri`, as if that ended in `/`).

    `within`: links that lead out of this folder are left out. A `meter` counts, and its `stop` ends it.
    """
    path, target = Path(source), refusals.check(Uri.of(uri))
    here = Uri("file", f"{path.absolute()}/" if path.is_dir() else str(path.absolute()))
    entries = _found(scheme_of(here), here)
    if within is not None:
        root = within.resolve()
        entries = [entry for entry in entries if Path(entry.uri.place).resolve().is_relative_to(root)]
    _send(entries, target, _is_one(here), parallel, show_progress, meter)


@refusals.told
def copy(source: str, destination: str, parallel: int | None = None, show_progress: bool = False) -> None:
    """Brings a file, or with a final `/` all below, from anywhere to anywhere; within one place without fetching, if it can."""
    origin, target = refusals.check(Uri.of(source)), refusals.check(Uri.of(destination))
    if target.scheme == "file":
        get(source, target.place, parallel, show_progress)
    elif origin.scheme == "file" and not origin.actions:
        _send(_entries(scheme_of(origin), origin), target, _is_one(origin), parallel, show_progress)
    else:
        scheme = scheme_of(origin)
        _relay(scheme, _entries(scheme, origin), target, _is_one(origin) and not scheme.many, parallel, show_progress)


@refusals.told
def sync(
    source: str, destination: str, include: Iterable[str] = (), parallel: int | None = None, show_progress: bool = False
) -> int:
    """Brings what is not there yet, or differs in size or is older there, from one folder to another; how many files that were.

    Nothing is deleted. `include`: globs, one of which the relative path must match.
    """
    origin, target = _folder(refusals.check(Uri.of(source))), _folder(refusals.check(Uri.of(destination)))
    there = {entry.path: entry for entry in _listed_if_there(target)}
    scheme, globs = scheme_of(origin), list(include)
    new = [entry for entry in scheme.list(origin) if _included(entry, globs) and _differs(entry, there.get(entry.path))]
    for entry in new:
        refusals.check(entry.uri)
    if target.scheme == "file":
        with _metered(new, show_progress) as meter:
            pairs = _targets(new, Path(target.place))
            _bring(scheme, pairs, parallel, meter)
        clean(target for _, target in pairs)
    elif origin.scheme == "file":
        _send(new, target, False, parallel, show_progress)
    else:
        _relay(scheme, new, target, False, parallel, show_progress)
    return len(new)


@refusals.told
def delete(uri: str, include: Iterable[str] = (), dry_run: bool = False) -> list[str]:
    """Deletes a file, or with a final `/` all below that one of the globs matches; the URIs of what was (or would be) deleted."""
    target = refusals.check(Uri.of(uri))
    if target.scheme == "file" and os.path.realpath(target.place) == os.sep:
        raise NotAllowed(f"{uri} is all of this machine, and is not deleted: name the folder that you mean")
    scheme = scheme_of(target)
    globs = list(include)
    entries = [entry for entry in _entries(scheme, target) if _included(entry, globs)]
    if entries and not dry_run:
        scheme.delete(entries)
    return [entry.uri.text for entry in entries]


@refusals.told
def list_content(uri: str, no_rec: bool = False, md5: bool = False) -> list[Entry]:
    """The files below a folder (`no_rec`: directly in it, and its folders); with `md5` that of each, fetched if need be."""
    folder = _folder(refusals.check(Uri.of(uri)))
    scheme = scheme_of(folder)
    return [
        _with_md5(scheme, entry) if md5 and not entry.path.endswith("/") else entry for entry in scheme.list(folder, not no_rec)
    ]


@refusals.told
def info(uri: str, md5: bool = False) -> Entry:
    """What is known of a file; with `md5` that too, fetched if nobody knows it."""
    place = refusals.check(Uri.of(uri))
    scheme = scheme_of(place)
    found = scheme.info(place.without_actions())
    return _with_md5(scheme, found) if md5 else found


@refusals.told
def entries(uri: str) -> list[Entry]:
    """The files that a URI means, as they are known without fetching them."""
    place = refusals.check(Uri.of(uri))
    return _entries(scheme_of(place), place)


def below(folder: Path, relative: str) -> Path:
    """A path in a folder. Raises InvalidRequest for a relative path that leads out of it: names come from elsewhere."""
    parts = relative.split("/")
    if relative.startswith("/") or ".." in parts or "\0" in relative or not relative:
        raise InvalidRequest(f"the name {relative!r:.200} would lead out of {folder}: it is not fetched")
    return folder.joinpath(*parts)


# --- inside -----------------------------------------------------------------------------------------------------------------


def _entries(scheme: Scheme, uri: Uri) -> list[Entry]:
    """The files that a URI means. Raises NotFound if there is none, NotAllowed if one of them is refused here."""
    found = _found(scheme, uri)
    for entry in found:
        refusals.check(entry.uri)
    return found


def _found(scheme: Scheme, uri: Uri) -> list[Entry]:
    if not (uri.is_folder or scheme.many):
        return [scheme.info(uri.without_actions())]
    found = list(scheme.list(uri.without_actions()))
    if not found:
        raise NotFound(f"{uri}: there is nothing below it")
    return found


def _targets(entries: list[Entry], folder: Path) -> list[tuple[Entry, Path]]:
    """Where each comes to. Raises InvalidRequest if two would come to one place: `a//b` and `a/b` are two objects elsewhere."""
    there: dict[Path, Entry] = {}
    for entry in entries:
        other = there.setdefault(below(folder, entry.path), entry)
        if other is not entry:
            raise InvalidRequest(f"{entry.uri} and {other.uri} would be one file here: fetch them one by one")
    return [(entry, target) for target, entry in there.items()]


def _bring(scheme: Scheme, pairs: list[tuple[Entry, Path]], parallel: int | None, meter: Meter) -> None:
    """Each file to its path."""
    with Arrivals() as arrivals:
        together(lambda pair: download(scheme, *pair, meter, arrivals=arrivals), pairs, _threads(scheme, parallel), meter)


def _moved(root: Path, into: bool, actions: Iterable[str]) -> Path:
    """The destination in the folders of `|mv:`: what comes goes there at once, and never meets a file of that name on its way."""
    for action in reversed([action for action in actions if action.startswith("mv:")]):
        folder = action.removeprefix("mv:").strip("/")
        root = root / folder if into else root.parent / folder / root.name
    return root


def _is_one(uri: Uri) -> bool:
    return not uri.is_folder


def _folder(uri: Uri) -> Uri:
    return uri if uri.is_folder else Uri(uri.scheme, uri.place + "/", uri.options)


def _listed_if_there(folder: Uri) -> Iterator[Entry]:
    with contextlib.suppress(NotFound):  # then nothing is in it
        yield from scheme_of(folder).list(folder)


def _included(entry: Entry, globs: list[str]) -> bool:
    return not globs or any(fnmatchcase(entry.path, glob) or fnmatchcase(entry.uri.name, glob) for glob in globs)


def _differs(entry: Entry, there: Entry | None) -> bool:
    """Whether it has to be brought: by size, by md5 where both sides know it, else by time."""
    if there is None or entry.size is None or entry.size != there.size:
        return True
    if entry.md5 and there.md5:
        return entry.md5 != there.md5
    return bool(
        entry.modified_at and there.modified_at and int(entry.modified_at.timestamp()) > int(there.modified_at.timestamp())
    )


def _target(entry: Entry, uri: Uri, alone: bool) -> Uri:
    return uri.without_actions() if alone and not uri.is_folder else uri.child(entry.path)


def _send(
    entries: list[Entry], target: Uri, alone: bool, parallel: int | None, show: bool, meter: Meter | None = None
) -> None:
    """Local files to elsewhere; one `alone` may get another name."""
    scheme = scheme_of(target)
    with _metered(entries, show, meter) as meter:
        together(
            lambda entry: upload(scheme, Path(entry.uri.place), _target(entry, target, alone), meter),
            entries, _threads(scheme, parallel), meter,
        )  # fmt: skip


def _relay(scheme: Scheme, entries: list[Entry], target: Uri, alone: bool, parallel: int | None, show: bool) -> None:
    """From elsewhere to elsewhere: within the place if it can, else through a file here, one a thread at a time."""
    other = scheme_of(target)
    with _metered(entries, show) as meter, tempfile.TemporaryDirectory(prefix="scitq-") as folder:
        together(
            partial(_relay_one, scheme, other, Path(folder), target, alone, meter), entries, _threads(other, parallel), meter
        )


def _relay_one(scheme: Scheme, other: Scheme, folder: Path, target: Uri, alone: bool, meter: Meter, entry: Entry) -> None:
    uri = _target(entry, target, alone)
    if scheme is other and scheme.copy(entry, uri, meter):
        meter.done()
        return
    silent = Meter()
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path = Path(own, "file")
        download(scheme, entry, path, silent)
        upload(other, path, uri, meter)


def _with_md5(scheme: Scheme, entry: Entry) -> Entry:
    if entry.md5:
        return entry
    from dataclasses import replace

    refusals.check(entry.uri)
    if entry.uri.scheme == "file":
        return replace(entry, md5=md5_of(Path(entry.uri.place)))
    with tempfile.TemporaryDirectory(prefix="scitq-") as folder:
        path = Path(folder, "file")
        download(scheme, entry, path, Meter())
        return replace(entry, md5=md5_of(path))


def _threads(scheme: Scheme, parallel: int | None) -> int:
    return parallel if parallel else scheme.files


@contextlib.contextmanager
def _metered(entries: list[Entry], show: bool, meter: Meter | None = None) -> Iterator[Meter]:
    meter = meter or Meter(show)
    meter.expect(len(entries), sum(entry.size or 0 for entry in entries))
    try:
        yield meter
    finally:
        meter.close()
