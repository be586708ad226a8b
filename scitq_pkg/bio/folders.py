"""Samples of one's own: the files of reads below a folder, here or in any store."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import InvalidRequest, NotFound, nearest
from .runs import PAIRED, SINGLE, Run, Samples, by_sample

GROUPS = ("folder", "name")
_MOST_FILES = 3  # of a folder that is one sample: two of pairs, one of reads that lost theirs
_ILLUMINA = re.compile(r"(?P<sample>.+?)(?:_S\d+)?(?:_L\d{3})?_(?P<mate>R[12]|I[12])_\d{3}")
_MARKED = re.compile(r"(?P<sample>.+?)[._-][Rr](?P<mate>[12])")
_NUMBERED = re.compile(r"(?P<sample>.+?)(?P<mark>[._-])(?P<mate>\d)")


@dataclass(frozen=True)
class _File:
    uri: str
    folder: str  # relative to what was listed, without a final `/`
    stem: str  # the name without its ending
    size: int | None
    sample: str = ""  # by the name alone
    mate: int | None = None  # 1 or 2 of paired reads


def uri_get_samples(
    uri: str, ending: str = ".fastq.gz", alternate_endings: Sequence[str] = (".fastq", ".fq.gz", ".fq"),
    group_by: str | None = None,
) -> Samples:  # fmt: skip
    """The samples whose reads lie below a folder, with a Run for each file.

    `sample_accession` is the sample's name, `run_accession` the file's without its ending, `mate` 1 or 2 of paired reads, `size`
    its bytes. A sample is PAIRED if it has as many second reads (`_2`, `_R2`, `_R2_001`) as first ones.

    `group_by`: one sample is a `folder`, or what files have in common before such a mark in their `name`; None: a folder, where
    there are any and few files are in each. A file that is there with several endings is taken with the first of them.
    Raises InvalidRequest; NotFound if there are no reads.
    """
    if group_by is not None and group_by not in GROUPS:
        raise InvalidRequest(f"samples cannot be grouped by {group_by!r:.60}{nearest(group_by, GROUPS)}: by folder, or by name")
    files = _files(uri, [ending, *alternate_endings])
    named = _named(files)
    if group_by == "folder" or (group_by is None and _folders_are_samples(files)):
        names = _folder_names(uri, {file.folder for file in files})
        return _samples((names[file.folder], file) for file in named)
    return _samples((file.sample, file) for file in named)


def _files(uri: str, endings: list[str]) -> list[_File]:
    from ..fetch import list_content

    found: dict[tuple[str, str], tuple[int, _File]] = {}
    for entry in list_content(uri):
        folder, _, name = entry.path.rpartition("/")
        rank = next((place for place, ending in enumerate(endings) if name.endswith(ending) and name != ending), None)
        if rank is not None:
            stem = name[: -len(endings[rank])]
            known = found.get((folder, stem))
            if known is None or rank < known[0]:
                found[folder, stem] = rank, _File(entry.uri.text, folder, stem, entry.size)
    if not found:
        raise NotFound(f"{uri}: there are no files below it that end in {', '.join(endings)}")
    return [file for _, file in found.values()]


def _folders_are_samples(files: Iterable[_File]) -> bool:
    """Whether all lie in folders below the one that was listed, in each about as many as one sample has."""
    counts = Counter(file.folder for file in files)
    mean = sum(counts.values()) / len(counts)
    return "" not in counts and mean <= _MOST_FILES and max(counts.values()) - min(counts.values()) <= mean


def _folder_names(uri: str, folders: set[str]) -> dict[str, str]:
    """A name for each folder: its own, or where two have the same those above it, too. Raises InvalidRequest."""
    own = {folder: folder.rpartition("/")[2] or uri.rstrip("/").rpartition("/")[2] for folder in folders}
    if len(set(own.values())) < len(own):
        own = {folder: folder.replace("/", "_") or name for folder, name in own.items()}
    if len(set(own.values())) < len(own):
        raise InvalidRequest(f"{uri}: two folders in it would be samples of one name: give one folder above them at a time")
    return own


def _named(files: list[_File]) -> list[_File]:
    """The files with sample and mate as their names tell them, without those that hold Illumina's index reads."""
    there = {(file.folder, file.stem) for file in files}
    return [
        _File(file.uri, file.folder, file.stem, file.size, *found)
        for file in files if (found := _sample_and_mate(file, there)) is not None
    ]  # fmt: skip


def _sample_and_mate(file: _File, there: set[tuple[str, str]]) -> tuple[str, int | None] | None:
    if found := _ILLUMINA.fullmatch(file.stem):
        return None if found["mate"].startswith("I") else (found["sample"], int(found["mate"][1]))
    if found := _MARKED.fullmatch(file.stem):
        return found["sample"], int(found["mate"])
    if found := _NUMBERED.fullmatch(file.stem):  # mates only if they are two: mouse_1, mouse_2, mouse_3 are three samples
        others = {mate for mate in range(10) if (file.folder, f"{found['sample']}{found['mark']}{mate}") in there}
        if others == {1, 2}:
            return found["sample"], int(found["mate"])
    return file.stem, None


def _samples(files: Iterable[tuple[str, _File]]) -> Samples:
    grouped: dict[str, list[_File]] = {}
    for name, file in files:
        grouped.setdefault(name, []).append(file)
    return by_sample(_run(name, file, _layout(own)) for name, own in grouped.items() for file in own)


def _layout(files: Iterable[_File]) -> str:
    counts = Counter(file.mate for file in files)
    return PAIRED if counts[1] and counts[1] == counts[2] else SINGLE


def _run(sample: str, file: _File, layout: str) -> Run:
    values = {"sample_accession": sample, "run_accession": file.stem, "uri": file.uri}
    return Run(**values, library_layout=layout, mate=file.mate, size=file.size)
