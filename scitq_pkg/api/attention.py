"""What somebody should look at."""

from __future__ import annotations

from ..protocol import API
from .call import Call
from .routes import USER, route
from .shapes import Attention


@route(
    "GET",
    f"{API}/attention",
    USER,
    "Failures that look alike, work that nobody does, silent workers, full disks, machines and budgets",
    answer=Attention,
)
def attention(call: Call) -> dict:
    return call.service.trouble.read()
