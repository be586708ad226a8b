"""What is done with files after they were fetched: `|gunzip`, `|untar`, `|unzip`; `|mv:FOLDER` and `|only:GLOB` are done while
fetching.
"""

from __future__ import annotations

from pathlib import Path

from .. import archive
from ..errors import TransferFailed

_TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")


def apply(action: str, files: list[Path]) -> list[Path]:
    """Does one action with the files; what is there in their place. An archive is removed after it was unpacked.

    Of several files those that are no archives by their names are left as they are. Raises TransferFailed.
    """
    name = action.partition(":")[0]
    if name in ("only", "mv"):  # which said what is fetched, and where to
        return files
    endings = {"gunzip": (".gz",), "untar": _TAR_ENDINGS, "unzip": (".zip",)}[name]
    found: list[Path] = []
    for path in files:
        if len(files) > 1 and not path.name.lower().endswith(endings):
            found.append(path)
        else:
            found += _unpacked(name, path)
    return found


def _unpacked(name: str, path: Path) -> list[Path]:
    if name == "gunzip":
        target = path.with_suffix("") if path.suffix.lower() == ".gz" else None
        if target is None:
            raise TransferFailed(f"{path.name}|gunzip: its name does not end in .gz")
        archive.gunzip(path, target)
        found = [target]
    else:
        found = (archive.untar if name == "untar" else archive.unzip)(path, path.parent)
    if path not in found:
        path.unlink()
    return found
