"""An open store with its decider, for tests of the store: tasks by users, and workers that say what the test wants."""

from __future__ import annotations

from scitq.protocol import Chunk, Report, SyncAnswer, SyncRequest
from scitq.store import Store, queue, tasks, workers

from scitq import scheduler

WHO = "ann"
LEAD_SECONDS = 10.0


class House:
    """Calls of the store, each in a transaction of its own."""

    def __init__(self, store: Store):
        self.store = store
        self.sequences: dict[int, int] = {}
        self.rung: list[set[int] | None] = []  # workers whose orders changed, one item a commit
        store.start(scheduler.decide, self.rung.append)
        version = store.changes.version
        while not store.leads:
            version = store.changes.wait(version, LEAD_SECONDS)

    def read(self, question, *args, **named):
        return self.store.read(lambda tx: question(tx, *args, **named))

    def write(self, change, *args, **named):
        return self.store.write(lambda tx: change(tx, *args, **named))

    def add(self, *specs: dict | str) -> list[int]:
        """Tasks by their specs (a text: its command)."""
        return self.write(tasks.add, [{"command": spec} if isinstance(spec, str) else spec for spec in specs], WHO)

    def worker(self, name: str = "w", batch: str = "Default", concurrency: int = 1, prefetch: int = 0, **given) -> int:
        known = {"key": name * 20, "hostname": "h", "permanent": True, "cpus": 4, "memory_bytes": 2**33}
        words = {"name": name, "batch": batch, "concurrency": concurrency, "prefetch": prefetch, **known, **given}
        hashed = f"hash of {name} {len(self.sequences)}"
        worker_id = self.write(workers.register, words, hashed, name)["id"]
        self.sequences[worker_id] = 0
        return worker_id

    def sync(self, worker_id: int, *reports: Report, output=(), problem: str | None = None) -> SyncAnswer:
        """A worker's whole exchange; `output`: (execution, stream, offset, bytes) each."""
        self.sequences[worker_id] += 1
        chunks = [Chunk(execution, stream, offset, len(data)) for execution, stream, offset, data in output]
        request = SyncRequest("one", self.sequences[worker_id], "1", problem=problem, executions=list(reports), output=chunks)
        self.write(queue.apply, worker_id, request, [memoryview(data) for *_, data in output])
        return self.read(queue.answer, worker_id, request)

    def run(self, worker_id: int, task_id: int) -> int:
        """The task, which is the worker's, has started; its execution."""
        execution_id = self.read(tasks.get, task_id)["execution_id"]
        self.sync(worker_id, *self._others(worker_id, execution_id), Report(execution_id, "running", started_ago=1.0))
        return execution_id

    def end(
        self, worker_id: int, task_id: int, state: str = "succeeded", exit_code: int | None = 0, stderr: bytes = b"", **more
    ) -> int:
        """The task, which is the worker's, has ended so; its execution."""
        execution_id = self.read(tasks.get, task_id)["execution_id"]
        sizes = {"stdout_size": 0, "stderr_size": len(stderr)}
        report = Report(execution_id, state, exit_code=exit_code, started_ago=2.0, ended_ago=0.5, **sizes, **more)
        output = [(execution_id, "stderr", 0, stderr)] if stderr else []
        assert execution_id in self.sync(worker_id, *self._others(worker_id, execution_id), report, output=output).acknowledged
        return execution_id

    def _others(self, worker_id: int, but: int) -> list[Report]:
        """What else it holds: a first sync that left it out would say that it is gone."""
        rows = self.rows(
            "execution", "worker_id = ? AND state IN ('accepted', 'running', 'uploading') AND id <> ?", worker_id, but
        )
        return [Report(row["id"], row["state"]) for row in rows]

    def rows(self, table: str, test: str = "1 = 1", *params) -> list[dict]:
        return self.store.read(lambda tx: tx.all(f"SELECT * FROM {table} WHERE {test}", params))

    def states(self, *task_ids: int) -> list[str]:
        return [self.read(tasks.get, task_id)["state"] for task_id in task_ids]
