"""The worker's side of the keeper, and what a worker holds, with a real keeper and no server."""

import asyncio
import os
import signal
import time

import pytest
from env import PATIENCE_SECONDS, stands_still
from scitq.keeper.processes import boot_seconds, process
from scitq.protocol import Order, SyncAnswer
from scitq.runner import Runner, inherited_environment
from scitq.worker.workload import Said, Workload


class Rig:
    """A workload and its runner in a directory; answers of a server are made by the test."""

    def __init__(self, directory, concurrency: int = 2):
        self.directory = directory
        base = directory / "executions"
        base.mkdir(parents=True, exist_ok=True)
        self.workload = Workload(str(base), concurrency, lambda now: None)
        self.workload.start_until = boot_seconds() + 60
        self.concurrency = concurrency
        self.keeper = 0

    async def open(self) -> None:
        self.workload.adopt()
        self.workload.runner = Runner(str(self.directory), self.hear)
        await self.workload.runner.open()
        await self.workload.greeted.wait()

    def hear(self, message: dict) -> None:
        if message["event"] == "hello":
            self.keeper = message["pid"]
        self.workload.hear(message)

    def order(self, *orders: Order, **more) -> None:
        held = [Order(one.id, one.desired) for one in self.workload.executions.values() if one.live]
        told = {order.id: order for order in [*held, *orders]}
        self.workload.obey(SyncAnswer(1, self.concurrency, 0, "Default", False, orders=list(told.values()), **more), Said())

    def give(self, number: int, script: str, desired: str = "run") -> None:
        spec = {"id": number, "task_id": number, "attempt": 1, "task": {"command": script, "shell": "sh"}}
        self.order(Order(number, desired, spec))

    def state(self, number: int) -> str:
        return self.workload.executions[number].state

    async def until(self, condition, seconds: float = PATIENCE_SECONDS):
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, {one.id: (one.state, one.reason) for one in self.workload.executions.values()}
            await asyncio.sleep(0.01)
        return value

    def end(self) -> None:
        """Kills what runs and lets the keeper go."""
        self.workload.kill_all()
        self.workload.runner.close()


def rigged(test):
    """Runs an async test with a rig that is open."""

    def run(tmp_path):
        async def main() -> None:
            rig = Rig(tmp_path / "w")
            await rig.open()
            try:
                await test(rig)
            finally:
                keeper = rig.keeper
                rig.end()
                await rig.until(lambda: process(keeper) is None or process(keeper).state == "Z")

        asyncio.run(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@rigged
async def test_no_more_than_the_slots_run_and_the_next_follows(rig):
    for number in (1, 2, 3):
        rig.give(number, "while [ ! -e go ]; do sleep 0.02; done")
    await rig.until(lambda: rig.state(1) == rig.state(2) == "running")
    assert rig.state(3) == "accepted"
    (rig.directory / "executions" / "1" / "temp" / "go").touch()
    await rig.until(lambda: rig.state(1) == "succeeded" and rig.state(3) == "running")
    assert rig.state(2) == "running"


@rigged
async def test_nothing_starts_when_the_server_was_not_heard_of(rig):
    rig.workload.start_until = boot_seconds() - 1
    rig.give(1, "echo x")
    await asyncio.sleep(0.2)
    assert rig.state(1) == "accepted" and not (rig.directory / "executions" / "1" / "stdout").exists()
    rig.workload.start_until = boot_seconds() + 60
    rig.order()
    await rig.until(lambda: rig.state(1) == "succeeded")


@rigged
async def test_given_back_unless_it_has_started(rig):
    for number in (1, 2, 3):
        rig.give(number, "sleep 5")
    await rig.until(lambda: rig.state(1) == rig.state(2) == "running")
    rig.order(Order(1, "return"), Order(3, "return"))
    assert rig.state(3) == "lost"
    await asyncio.sleep(0.1)
    assert rig.state(1) == "running"


@pytest.mark.parametrize(("desired", "state"), [("term", "failed"), ("kill", "failed"), ("cancel", "canceled")])
def test_ended_before_it_started(tmp_path, desired, state):
    @rigged
    async def test(rig):
        rig.workload.start_until = 0
        rig.give(1, "true")
        rig.order(Order(1, desired))
        assert rig.state(1) == state

    test(tmp_path)


@rigged
async def test_suspended_before_it_started_does_not_start(rig):
    rig.give(1, "true", desired="suspend")
    await asyncio.sleep(0.1)
    assert rig.state(1) == "accepted"
    rig.order(Order(1, "run"))
    await rig.until(lambda: rig.state(1) == "succeeded")


@rigged
async def test_fenced_is_killed_and_thrown_away(rig):
    rig.give(1, "sleep 100")
    await rig.until(lambda: rig.state(1) == "running")
    pid = rig.workload.executions[1].pid
    rig.order(fenced=[1])
    await rig.until(lambda: process(pid) is None and not (rig.directory / "executions" / "1").exists())
    assert not rig.workload.executions


@rigged
async def test_the_keeper_is_found_again_after_it_was_killed(rig):
    rig.give(1, "setsid sleep 100 & sleep 100")
    await rig.until(lambda: rig.state(1) == "running")
    pid, before = rig.workload.executions[1].pid, rig.keeper
    os.kill(before, signal.SIGKILL)
    await rig.until(lambda: rig.state(1) == "lost")
    assert rig.keeper != before and (process(pid) is None or process(pid).state == "Z")
    rig.order(fenced=[1])
    rig.give(2, "true")
    await rig.until(lambda: rig.state(2) == "succeeded")


def test_the_next_worker_adopts_all(tmp_path):
    async def first() -> int:
        rig = Rig(tmp_path / "w", concurrency=3)
        await rig.open()
        rig.give(1, "while [ ! -e go ]; do sleep 0.02; done; exit 5")
        rig.give(2, "exit 6")
        rig.give(3, "sleep 100")
        rig.give(4, "true")
        await rig.until(
            lambda: rig.state(1) == rig.state(3) == "running" and rig.state(2) == "failed" and rig.state(4) == "succeeded"
        )
        rig.order(Order(3, "suspend"))
        await rig.until(lambda: stands_still(rig.workload.executions[3].pid))
        rig.give(5, "true", desired="suspend")
        rig.workload.runner.close(leave=False)  # as if this process were killed: no word of farewell
        return rig.keeper

    async def second(keeper: int) -> None:
        rig = Rig(tmp_path / "w", concurrency=3)
        await rig.open()
        assert rig.keeper == keeper
        assert {number: rig.state(number) for number in (1, 2, 3, 4, 5)} == {
            1: "running", 2: "failed", 3: "running", 4: "succeeded", 5: "accepted",
        }  # fmt: skip
        assert rig.workload.executions[2].exit_code == 6 and rig.workload.executions[3].suspended
        (tmp_path / "w" / "executions" / "1" / "temp" / "go").touch()
        await rig.until(lambda: rig.state(1) == "failed")
        assert rig.workload.executions[1].exit_code == 5
        assert stands_still(rig.workload.executions[3].pid)
        rig.end()
        await rig.until(lambda: process(keeper) is None or process(keeper).state == "Z")

    asyncio.run(second(asyncio.run(first())))


def test_a_command_does_not_inherit_the_workers_token(monkeypatch):
    monkeypatch.setenv("SCITQ_TOKEN", "secret")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("KEPT", "1")
    given = inherited_environment()
    assert given["KEPT"] == "1" and not {"SCITQ_TOKEN", "NOTIFY_SOCKET"} & given.keys()
