"""The loop of a worker: sync with the server, start and adopt executions, report.

`service` puts together: `home` (its directory), `exchange` (the conversation with the server), `workload` (what it holds).
"""

from __future__ import annotations

from .service import Options, serve

__all__ = ["Options", "serve"]
