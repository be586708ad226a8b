"""The Python client of scitq: `from scitq.lib import Server, Executor`."""

from __future__ import annotations

from ..errors import TaskFailed
from .server import Server
from .specs import RESET

__all__ = ["RESET", "Executor", "Server", "TaskFailed", "TaskResult"]


def __getattr__(name: str):
    """Executor and TaskResult on first use: they bring concurrent.futures, which most commands never need."""
    if name in ("Executor", "TaskResult"):
        from . import executor

        return getattr(executor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
