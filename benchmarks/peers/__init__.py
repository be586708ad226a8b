"""The systems that are measured, one file each. One that cannot be had here is named with the reason, never guessed."""

from __future__ import annotations

import importlib

NAMES = ("scitq", "hyperqueue", "celery", "huey")


def load() -> tuple[dict[str, type], dict[str, str]]:
    """The class of each system that can run here, and why the others cannot."""
    found, missing = {}, {}
    for name in NAMES:
        try:
            system = importlib.import_module(f".{name}", __name__).System
            system.check()
            found[name] = system
        except (ImportError, FileNotFoundError) as error:
            missing[name] = str(error)
    return found, missing
