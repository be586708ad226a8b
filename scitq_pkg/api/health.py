"""Alive, and ready: both are true to the facts."""

from __future__ import annotations

from .answers import Answer
from .call import Call
from .routes import ANYBODY, route
from .shapes import Live, Ready


@route("GET", "/health/live", ANYBODY, "The process answers", answer=Live)
def live(call: Call) -> dict:
    return {"live": True}


@route(
    "GET",
    "/health/ready",
    ANYBODY,
    "The database can be written and the scheduler ticks; 503 with the reasons otherwise",
    answer=Ready,
)
def ready(call: Call) -> Answer:
    reasons = call.service.readiness.reasons()
    return Answer({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)
