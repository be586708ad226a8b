"""`scitq_pkg` is the folder, `scitq` the package: importing `scitq_pkg.x` answers with the module `scitq.x` itself."""

from __future__ import annotations

import sys
from types import ModuleType

PACKAGE = "scitq"
FOLDER = "scitq_pkg"


class Alias:
    """A finder and loader that loads nothing: it looks the real module up."""

    @staticmethod
    def find_spec(name: str, path=None, target=None):
        if name != FOLDER and not name.startswith(FOLDER + "."):
            return None
        from importlib.util import find_spec, spec_from_loader

        real = find_spec(_real(name))
        return real and spec_from_loader(name, Alias, origin=real.origin)

    @staticmethod
    def create_module(spec) -> None:
        return None

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Import returns what `sys.modules` holds once the module was executed."""
        from importlib import import_module

        sys.modules[module.__name__] = import_module(_real(module.__name__))

    @staticmethod
    def get_code(name: str):
        """For `python3 -m scitq_pkg`, which runs the code without importing."""
        from importlib.util import find_spec

        real = find_spec(_real(name))
        return real.loader.get_code(real.name)


def install() -> None:
    """Answer `scitq_pkg...` from now on, before anyone looks for files of that name."""
    sys.meta_path.insert(0, Alias)


def _real(name: str) -> str:
    return PACKAGE + name[len(FOLDER):]
