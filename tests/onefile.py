"""One files of this checkout for tests: ours alone, the packages that it needs are those of the Python that runs the tests."""

from __future__ import annotations

import re
from pathlib import Path

import build_zipapp


def make(target: Path, version: str | None = None, main: str = build_zipapp.MAIN) -> Path:
    """A one file of another version, or one that does something else when it is started."""
    files = {"scitq/" + path: data for path, data in build_zipapp.package_files().items()}
    if version is not None:
        text = files["scitq/__init__.py"].decode()
        files["scitq/__init__.py"] = re.sub(r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"', text).encode()
    files["__main__.py"] = main.encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    build_zipapp.write_whole(target, build_zipapp.one_file(files))
    return target
