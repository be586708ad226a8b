"""A worker by its requests alone, and an API that refuses: for tests of the API from outside."""

from __future__ import annotations

from env import Env
from scitq.protocol import Chunk, Report, SyncAnswer, SyncRequest
from scitq.transport import Connection, raise_for

from scitq import wire


class Hands:
    """A worker by its requests alone: it runs nothing, and says what the test wants."""

    def __init__(self, env: Env, name: str, batch: str, concurrency: int = 4, **more):
        body = {"name": name, "key": (name * 40)[:40], "hostname": "h", "concurrency": concurrency, "batch": batch, **more}
        self.row = env.api("POST", "/workers", body)
        self.connection = Connection(env.url, self.row["token"])
        self.incarnation, self.sequence, self.version = "i", 0, "1"
        self.held: dict[int, int] = {}  # execution -> task

    def sync(self, *reports: Report, output=(), problem: str | None = None, stats: dict | None = None) -> SyncAnswer:
        self.sequence += 1
        chunks = [Chunk(i, stream, offset, len(data)) for i, stream, offset, data in output]
        request = SyncRequest(
            self.incarnation, self.sequence, self.version, problem=problem, stats=stats, executions=list(reports), output=chunks
        )
        body = wire.encode_request(request, [data for *_, data in output])
        headers = {"Content-Type": wire.SYNC_CONTENT_TYPE}
        answer = self.connection.request("POST", f"/api/v1/workers/{self.row['id']}/sync", body, headers=headers)
        told = wire.decode_answer(raise_for(answer).json())
        self.held |= {order.id: order.spec["task_id"] for order in told.orders if order.spec}
        return told

    def end(self, task: int, state: str = "succeeded", exit_code: int = 0, stdout: bytes = b"") -> int:
        """The execution of a task ends so; its id."""
        (execution,) = [e for e, t in self.held.items() if t == task]
        report = Report(
            execution, state, exit_code=exit_code, started_ago=2.0, ended_ago=0.5, stdout_size=len(stdout), stderr_size=0
        )
        told = self.sync(report, output=[(execution, "stdout", 0, stdout)] if stdout else [])
        assert execution in told.acknowledged
        del self.held[execution]
        return execution


def refused(env, method: str, path: str, body=None, status: int = 400, **query) -> dict:
    answer = env.answer(method, path, body, **query)
    assert answer.status == status, answer.body[:300]
    return answer.json()["error"]
