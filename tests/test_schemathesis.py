"""The API attacked from its own description: no answer of 500 or more, none that is not as described, none that hangs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import hypothesis
import pytest
from env import Env
from hands import Hands
from hypothesis import strategies as st
from scitq.api import application  # noqa: F401 - it fills the table
from scitq.api.routes import TABLE
from scitq.protocol import Report
from scitq.transport import Connection
from scitq.wire import SYNC_CONTENT_TYPE

pytestmark = pytest.mark.slow(seconds=35)

ANSWERS_WITHIN_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 0.05  # for which a long poll is asked here
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance",
)  # fmt: skip
HOOKS = f'''
import schemathesis

@schemathesis.serializer("{SYNC_CONTENT_TYPE}")
def as_it_is(context, value):
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")

@schemathesis.hook
def before_call(context, case, kwargs):
    if case.path.endswith("/stream"):
        case.query = {{**(case.query or {{}}), "wait": {LONGEST_WAIT_SECONDS}}}
    try:
        wait = float(str((case.query or {{}}).get("wait")))
    except ValueError:
        return
    if {LONGEST_WAIT_SECONDS} < wait <= 60:
        case.query["wait"] = {LONGEST_WAIT_SECONDS}
'''


class Target:
    """A server that asks for no tokens, so that none can be lost on the way, and on which there is something of everything."""

    def __init__(self, env: Env):
        self.env = env
        first = env.server()
        _furnish(env)
        env._connection.close()
        first.stop()
        self.server = env.server("--no-auth", "-v", name="open", data=first.data)

    def check_alive(self) -> None:
        with Connection(self.server.url) as connection:
            assert connection.request("GET", "/health/ready", timeout=ANSWERS_WITHIN_SECONDS).status == 200
        self.server.check()


def _furnish(env: Env) -> None:
    tasks = env.create(*[{"command": "true", "batch": "held", "name": f"t{i}"} for i in range(6)])
    env.create({"command": "true", "require": [tasks[5]], "batch": "held"})
    hands = Hands(env, "w", "held")
    hands.sync()
    running = hands.held.copy()
    hands.end(tasks[0], stdout=b"some output")
    hands.end(tasks[1], "failed", 3)
    hands.sync(*[Report(i, "running", started_ago=1.0) for i, task in running.items() if task in tasks[2:4]])
    env.api("POST", "/tokens", {"name": "somebody", "role": "user"})


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("target"))
    made = Target(env)
    yield made
    made.check_alive()
    env.close()


def test_every_answer_is_as_described(target, tmp_path):
    (tmp_path / "described_hooks.py").write_text(HOOKS)
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{target.server.url}/openapi.json",
            "--checks", ",".join(CHECKS),
            "--phases", "examples,coverage,fuzzing", "--max-examples", "6", "--seed", "1", "--no-shrink",
            "--suppress-health-check", "all", "--request-timeout", str(ANSWERS_WITHIN_SECONDS), "--max-redirects", "0",
        ],
        cwd=tmp_path, env={**target.env.variables, "PYTHONPATH": str(tmp_path), "SCHEMATHESIS_HOOKS": "described_hooks"},
        capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[:9000] + done.stderr[-2000:]
    statuses = statuses_by_route(target.server.output())
    assert statuses.keys() == {f"{route.method} {route.path}" for route in TABLE}
    succeeded = [name for name, found in statuses.items() if min(found) < "400"]
    assert len(succeeded) > 0.7 * len(TABLE), sorted(statuses.keys() - set(succeeded))  # otherwise all this proved little


def statuses_by_route(log: str) -> dict[str, set[str]]:
    """What each route answered, by the server's log."""
    found: dict[str, set[str]] = defaultdict(set)
    asked = set(re.findall(r": ([A-Z]+) (/.*) (\d{3}) [\d.]+ ms", log))
    for route in TABLE:
        pattern = re.compile(re.sub(r"<\w+:id>", r"\\d+", re.sub(r"<(name|key)[^>]*>", ".+", route.path)))
        for method, path, status in asked:
            if method == route.method and pattern.fullmatch(path):
                found[f"{route.method} {route.path}"].add(status)
    return dict(found)


# --- a worker's sync, whose body OpenAPI cannot describe ---------------------------------------------------------------------

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
IDS = st.integers(-1, 12) | st.integers()
STATES = st.sampled_from(
    ["assigned", "accepted", "running", "uploading", "succeeded", "failed", "canceled", "lost", "unknown", ""]
)
SECONDS = st.none() | st.floats() | st.integers(-5, 5)
SIZES = st.none() | st.integers(-1, 100) | st.integers()
REPORT = st.fixed_dictionaries(
    {"id": IDS, "state": STATES},
    optional={
        "exit_code": SIZES, "signal": SIZES, "started_ago": SECONDS, "ended_ago": SECONDS, "stdout_size": SIZES,
        "stderr_size": SIZES, "suspended": st.booleans(), "reason": st.none() | st.text(max_size=30), "cpu_seconds": SECONDS,
    },
)  # fmt: skip
CHUNK = st.fixed_dictionaries(
    {
        "id": IDS,
        "stream": st.sampled_from(["stdout", "stderr", "x"]),
        "offset": st.integers(-1, 30) | st.integers(),
        "length": st.integers(0, 9),
    }
)
SYNC = st.fixed_dictionaries(
    {"incarnation": st.sampled_from(["i", "j"]), "sequence": st.integers(0, 9) | st.integers(), "version": st.text(max_size=9)},
    optional={
        "executions": st.lists(REPORT, max_size=3) | ANY, "output": st.lists(CHUNK, max_size=2) | ANY, "wait": st.just(0.0) | ANY,
        "seen": ANY, "problem": st.none() | st.text(max_size=30), "stats": ANY, "unknown": ANY,
    },
)  # fmt: skip


@hypothesis.settings(
    max_examples=300, derandomize=True, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)
@hypothesis.given(sync=SYNC, data=st.binary(max_size=20), worker=st.integers(1, 2))
def test_syncs_of_any_kind(target, sync, data, worker):
    if isinstance(sync.get("wait"), (int, float)):
        sync["wait"] = min(sync["wait"], LONGEST_WAIT_SECONDS)
    body = json.dumps(sync).encode() + b"\n" + data
    with Connection(target.server.url) as connection:
        answer = connection.request(
            "POST",
            f"/api/v1/workers/{worker}/sync",
            body,
            headers={"Content-Type": SYNC_CONTENT_TYPE},
            timeout=ANSWERS_WITHIN_SECONDS,
        )
    assert answer.status < 500, answer.body
    assert answer.status == 200 or answer.json()["error"]["message"]
