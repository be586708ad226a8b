"""What the worker holds: executions are accepted, started when a slot is free, signaled, told of, and forgotten.

Knows neither the network nor time-outs of it. The server's answers come in by `obey`, the keeper's messages by `hear`;
`say` makes the next request; `changed` is called when there is something to say, at once or soon.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Coroutine

from .. import machine
from ..container import Engine, EngineAway, is_doubtful
from ..execution import WORKER_STOPS, Execution, Spares, end_leftovers, find_leftovers
from ..keeper import BEFORE, LATE, NOT_NOW, records
from ..keeper.processes import TICKS_PER_SECOND, boot_id, boot_seconds, bytes_moved, descendants, processes
from ..protocol import (
    CANCEL, FAILED, KILL, KILL_GRACE_SECONDS, LOST, RETURN, RUN, RUNNING, STREAMS, SUSPEND, TERM, UPLOADING, Chunk, Order,
    Report, SyncAnswer,
)  # fmt: skip
from ..runner import Runner
from .cargo import Cargo
from .containers import Containers
from .errand import Errand

KEPT_AT_MOST = 1000  # directories of failed executions
KEPT_FREE_SHARE = 0.1  # of the scratch disk: with less, the oldest of them go
_LEAST_SHARE_BYTES = 32 * 1024  # of the output of one execution in a request: the quiet are not drowned by the loud
CONTAINERS_FILE = "containers"  # in the worker's directory, once it has run one
LAST_BYTES = 32  # of what was sent, remembered to tell when a command emptied its own output
TRY_AGAIN_SECONDS = 2.0  # after the machine had no room for a process


class Said:
    """What one request carried, to be settled when it was answered."""

    __slots__ = ("reports", "chunks", "data", "positions", "probed", "full")

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.chunks: list[Chunk] = []
        self.data: list[bytes] = []
        self.positions: list[tuple[Execution, str, int, bytes]] = []  # execution, stream, reached, the bytes before it
        self.probed: list[Execution] = []
        self.full = False  # there was more output than it could carry


class Workload:
    """The executions of one worker."""

    def __init__(
        self, base: str, concurrency: int, changed: Callable[[bool], None], name: str = "", engine: str | None = None
    ):  # fmt: skip
        self.base = base
        self.concurrency = concurrency
        self.grace = KILL_GRACE_SECONDS
        self.executions: dict[int, Execution] = {}
        self.start_until = 0.0  # boot_seconds(): the lease, no command starts after it
        self.problem: str | None = None
        self.evicted: str | None = None  # why its machine is taken away
        self.stopping = False
        self.runner: Runner | None = None
        self.greeted = asyncio.Event()  # the keeper's hello is settled
        self._changed = changed
        self._kept: deque[str] = deque()  # directories of failed executions, the oldest first
        self._unprobed: set[int] = set()  # of an older process: how much the server has of them is not known
        self._room_problem: str | None = None
        self._background: set[asyncio.Task] = set()
        self._settling: set[int] = set()  # whose container may be there still, though its client has ended
        self._janitor = Errand("removes directories")
        self._containers_mark = os.path.join(os.path.dirname(base), CONTAINERS_FILE)
        self.containers = Containers(name, engine, self._reconsider_starts)
        self.cargo = Cargo(os.path.dirname(base), self.containers, self._cargo_done)
        self._spares = Spares(os.path.join(os.path.dirname(base), "spare"))
        self._devices = machine.gpu_devices()
        self._cpus = machine.cpu_count()
        self._turn = 0

    # --- start of the worker --------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Takes over what an older process of this worker left; the keeper's hello then tells what of it runs."""
        held, kept, rubbish = find_leftovers(self.base)
        self._kept.extend(kept)
        for path in rubbish:
            self._discard(path)
        for one in held:
            self.executions[one.id] = one
            record = records.read(one.directory, records.STARTED_FILE, one.id) or {}
            if "pid" in record:
                one.has_started(record)
            for stream in one.output.values():
                stream.probe()
            self._unprobed.add(one.id)

    # --- the keeper -----------------------------------------------------------------------------------------------

    def hear(self, message: dict) -> None:
        """A message of the keeper, or of the connection to it."""
        getattr(self, f"_on_{message['event']}")(message)

    def _on_hello(self, message: dict) -> None:
        running = {one["id"]: one for one in message["running"]}
        ended = {end["id"]: end for end in message["ended"]}
        gone = []
        for one in self.executions.values():
            one.obeyed = None
            if one.id in running:
                one.has_started(running[one.id])
                if one.suspended and one.desired == RUN:
                    one.desired = SUSPEND  # until the server says what it wants of it now
            elif end := ended.get(one.id) or (records.read(one.directory, records.END_FILE, one.id) if one.live else None):
                self._has_ended(one, end)
            elif one.live and records.was_started(one.directory, one.id):
                gone.append(one)
            elif one.live:
                one.starting = False
                self.cargo.bring(one)
        for number in running.keys() - self.executions.keys():
            self.runner.signal(number, "kill")
        for number in ended.keys() - self.executions.keys():
            self.runner.forget(number)
        self._put_end_to(gone)
        if os.path.exists(self._containers_mark):
            self._begin(self.containers.sweep(self.executions.keys))
        self.problem = None
        self.greeted.set()
        self._reconsider()

    def _put_end_to(self, gone: list[Execution]) -> None:
        """What a keeper that was killed left running is ended before its execution is given away."""
        if gone:
            self._begin(self._end_and_lose(gone))

    def _begin(self, work: Coroutine) -> None:
        """Has something done meanwhile."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _end_and_lose(self, gone: list[Execution]) -> None:
        await self._janitor.do(end_leftovers, gone)
        await asyncio.gather(*(self.containers.end(one.engine, one.id) for one in gone if one.engine))
        for one in gone:
            record = records.read(one.directory, records.STARTED_FILE, one.id) or {}
            same = record.get("boot", boot_id()) == boot_id()
            why = "the process that looked after its command was killed" if same else "the machine was restarted while it ran"
            if one.live and one.started is None:  # the keeper died before it said so: a loss counts all the same
                one.started = record.get("started", boot_seconds()) if same else boot_seconds()
            if one.live:
                one.end_as(LOST, why)
        self._changed(True)
        self._start_ready()

    def _on_started(self, message: dict) -> None:
        if one := self.executions.get(message["id"]):
            one.has_started(message)
            self._room_problem = None
            self._changed(False)

    def _on_ended(self, message: dict) -> None:
        one = self.executions.get(message["id"])
        if one is None:
            self.runner.forget(message["id"])  # it was fenced: nobody wants its result
            return
        self._has_ended(one, message)
        self._changed(True)
        self._start_ready()

    def _has_ended(self, one: Execution, end: dict) -> None:
        if one.live and one.engine and one.engine.owns_containers and is_doubtful(end):
            if one.id not in self._settling:
                self._settling.add(one.id)
                self._begin(self._settle_container(one, end))
            return
        self._has_really_ended(one, end)

    async def _settle_container(self, one: Execution, end: dict) -> None:
        try:
            end = await self.containers.settle(one, end)
        finally:
            self._settling.discard(one.id)
        if self.executions.get(one.id) is one:
            self._has_really_ended(one, end)
            self._changed(True)
            self._start_ready()

    def _has_really_ended(self, one: Execution, end: dict) -> None:
        one.has_ended(end)
        if one.state == UPLOADING:
            self.cargo.send(one)

    def _cargo_done(self, one: Execution) -> None:
        """Its inputs are there, its outputs are gone, or neither will ever be."""
        self._changed(True)
        self._start_ready()

    def _on_refused(self, message: dict) -> None:
        one = self.executions.get(message["id"])
        if one is None or not one.live:
            return
        one.starting, one.obeyed = False, None
        if message["kind"] == NOT_NOW:
            self._room_problem = message["why"]
            asyncio.get_running_loop().call_later(TRY_AGAIN_SECONDS, self._try_again)
        elif message["kind"] == BEFORE:
            self._put_end_to([one])
        elif message["kind"] == LATE:
            self.start_until = 0.0
        self._reconsider()

    def _try_again(self) -> None:
        self._room_problem = None
        self._reconsider_starts()

    def _reconsider_starts(self) -> None:
        self._start_ready()
        self._changed(True)

    def _on_parted(self, _message: dict) -> None:
        self.greeted.clear()

    def _on_unreachable(self, message: dict) -> None:
        self.problem = message["why"]
        self._changed(True)

    def _on_replaced(self, _message: dict) -> None:
        print("another worker process took over the keeper of these commands", file=sys.stderr)

    # --- the server -----------------------------------------------------------------------------------------------

    def obey(self, answer: SyncAnswer, said: Said) -> bool:
        """Does what an answer wants; whether it wanted anything new."""
        self._settle(answer, said)
        before = (self.concurrency, len(self.executions))
        self.concurrency, self.grace = answer.concurrency, answer.grace
        for number in answer.acknowledged:
            self._forget(number)
        for number in answer.fenced:
            self._throw_away(number)
        news = bool(answer.acknowledged or answer.fenced or answer.offsets)
        for order in answer.orders:
            news |= self._take(order)
        self._start_ready()
        return news or before != (self.concurrency, len(self.executions))

    def _settle(self, answer: SyncAnswer, said: Said) -> None:
        """The bytes of an answered request have arrived, unless the answer asks for them again."""
        for one, stream, position, last in said.positions:
            one.output[stream].sent(position, last)
        for one in said.probed:
            self._unprobed.discard(one.id)
        for number, streams in answer.offsets.items():
            if one := self.executions.get(int(number)):
                for stream, position in streams.items():
                    one.output[stream].sent(position)
                self._changed(True)
        if said.full or said.probed:
            self._changed(True)

    def _take(self, order: Order) -> bool:
        one = self.executions.get(order.id)
        if one is None:
            if order.spec is None:
                return False
            one = self._accept(order.spec)
        if one.desired == order.desired and one.obeyed == order.desired:
            return False
        one.desired = order.desired
        self._carry_out(one)
        return True

    def _accept(self, spec: dict) -> Execution:
        directory = os.path.join(self.base, str(int(spec["id"])))
        if os.path.lexists(directory):
            self._discard(directory)  # a start that was cut short, or of a database that is no more
        try:
            one = Execution.accept(spec, self.base, self._spares)
        except OSError as error:
            one = Execution(spec, directory)
            one.give_back(f"its worker could not make its directory: {error.strerror}")
            self._changed(True)
        else:
            self._changed(False)
            self.cargo.bring(one)
        self.executions[one.id] = one
        return one

    def _carry_out(self, one: Execution) -> None:
        """Brings an execution to what is desired of it."""
        if not one.live:
            return
        if one.occupies:
            self._signal(one)
        elif one.state == UPLOADING:
            if one.desired in (KILL, CANCEL):
                self.cargo.drop(one)
                one.stop_sending()
                self._changed(True)
        elif one.desired == RETURN:
            self.cargo.drop(one)
            one.give_back("given back before it started")
            self._changed(True)
        elif one.desired in (TERM, KILL, CANCEL):
            self.cargo.drop(one)
            one.stop_unstarted()
            self._changed(True)
        one.obeyed = one.desired

    def _signal(self, one: Execution) -> None:
        if one.desired == SUSPEND:
            self.runner.signal(one.id, "suspend")
            one.suspended = True
        elif one.desired == RUN and one.suspended:
            self.runner.signal(one.id, "resume")
            one.suspended = False
        elif one.desired == TERM:
            self.runner.signal(one.id, "term", self.grace)
        elif one.desired in (KILL, CANCEL):
            self.runner.signal(one.id, "kill", asked=one.desired)
        self._changed(True)

    def _forget(self, number: int) -> None:
        """The server has the end of an execution for good."""
        one = self.executions.get(number)
        if one is None or one.live:
            return
        del self.executions[number]
        self.cargo.drop(one)
        self.runner.forget(number)
        if one.state == FAILED:
            one.keep()
            self._kept.append(one.directory)
            self.prune()
        else:
            self._remove(one)

    def _throw_away(self, number: int) -> None:
        """The execution is no longer this worker's: its command ends, its result goes."""
        one = self.executions.pop(number, None)
        if one is None:
            return
        self._unprobed.discard(number)
        self.cargo.drop(one)
        if one.occupies:
            self.runner.signal(number, "kill")
            if one.engine:
                self._begin(self.containers.end(one.engine, number))
        self.runner.forget(number)
        self._remove(one)

    def _remove(self, one: Execution) -> None:
        if one.engine and os.geteuid() != 0 and not one.remove():
            self._begin(self._clear(one))
        elif not one.remove(self._spares):
            self._discard(one.directory)

    async def _clear(self, one: Execution) -> None:
        """Removes a directory in which a container may have made files as a user that is more than the worker's."""
        await self.containers.clear(one)
        self._discard(one.directory)

    def _discard(self, directory: str) -> None:
        """Removes a directory, which may take its time; its name is free at once, for the same execution may come again."""
        aside = f"{directory}.{os.urandom(4).hex()}"
        try:
            os.rename(directory, aside)
        except OSError:  # it is gone, or a disk is in trouble
            aside = directory
        self._janitor.post(_remove_tree, aside)

    def prune(self) -> None:
        """Removes the oldest kept directories when they are many or the disk fills."""
        self.cargo.prune()
        if _wants_room(self._kept, self.base):
            self._janitor.post(_make_room, self._kept, self.base)

    # --- starting -------------------------------------------------------------------------------------------------

    def _reconsider(self) -> None:
        """The orders of all, again: after the keeper was lost and found."""
        for one in list(self.executions.values()):
            if one.live:
                self._carry_out(one)
        self._changed(True)
        self._start_ready()

    def _start_ready(self) -> None:
        """Starts what waits for a slot, in the order in which it came."""
        free = self.concurrency - sum(one.occupies for one in self.executions.values())
        if free <= 0 or not self.greeted.is_set() or self.stopping or self._hindrance():
            return
        no_container = self.containers.problem
        waiting = [one for one in self.executions.values() if one.ready and not (one.in_container and no_container)]
        if waiting and boot_seconds() > self.start_until:
            self._changed(True)  # its answer renews the lease
            return
        for one in waiting[:free]:
            self._start(one)

    def _start(self, one: Execution) -> None:
        one.slot = self._free_slot()
        devices = machine.share_devices(self._devices, one.slot, self.concurrency)
        cpus = max(1, self._cpus // max(1, self.concurrency))
        try:
            engine = self._engine() if one.in_container else None
            order = one.order(self.start_until, self.grace, cpus, devices, engine)
        except ValueError as error:
            one.end_as(FAILED, str(error))
            self._changed(True)
            return
        except (EngineAway, OSError) as error:
            one.give_back(getattr(error, "strerror", None) or str(error))
            self._changed(True)
            return
        one.starting, one.obeyed = True, RUN
        self.runner.run(order)

    def _engine(self) -> Engine:
        """The container engine; from now on this worker may have left containers. Raises EngineAway, OSError."""
        engine = self.containers.engine()
        with open(self._containers_mark, "ab"):
            return engine

    def _free_slot(self) -> int:
        taken = {one.slot for one in self.executions.values() if one.occupies}
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def trouble(self) -> str | None:
        """Why no work can be taken now, in a sentence."""
        return self._hindrance() or self.containers.problem

    def _hindrance(self) -> str | None:
        """Why no command can start, whatever it is."""
        if self.stopping:
            return "its process was stopped"
        return self.evicted or self.problem or self._room_problem or machine.disk_problem(self.base)

    # --- what there is to say -------------------------------------------------------------------------------------

    def say(self, output_bytes: int, carry: bool) -> Said:
        """All that is held; with `carry` also output, at most `output_bytes` of it."""
        said, now, budget = Said(), boot_seconds(), output_bytes
        held = list(self.executions.values())
        behind = sum(one.behind for one in held) if carry else 0
        if held and carry:
            self._turn = (self._turn + 1) % len(held)  # so that one that writes much does not silence the others
            held = held[self._turn :] + held[: self._turn]
        for one in held:
            if carry and one.id in self._unprobed:
                self._probe(one, said)
            elif carry and one.behind:
                budget -= self._carry(one, said, min(budget, max(_LEAST_SHARE_BYTES, budget // behind)))
                behind -= 1
            whole = not one.live and one.id not in self._unprobed and self._is_carried(one, said)
            said.reports.append(one.report(now, whole))
        return said

    def _probe(self, one: Execution, said: Said) -> None:
        for name in STREAMS:
            said.chunks.append(Chunk(one.id, name, one.output[name].position, 0))
            said.data.append(b"")
        said.probed.append(one)

    def _carry(self, one: Execution, said: Said, budget: int) -> int:
        """Adds its next output, half of it of each stream; how many bytes."""
        carried = 0
        streams = [(name, stream) for name, stream in one.output.items() if stream.behind]
        for left, (name, stream) in zip(range(len(streams), 0, -1), streams):
            if budget - carried <= 0:
                said.full = True
                break
            offset, data = stream.read(-(-(budget - carried) // left))
            if data:
                said.chunks.append(Chunk(one.id, name, offset, len(data)))
                said.data.append(data)
                said.positions.append((one, name, offset + len(data), data[-LAST_BYTES:]))
                carried += len(data)
                said.full |= offset + len(data) < stream.size
        return carried

    def _is_carried(self, one: Execution, said: Said) -> bool:
        """Whether the server has all output of it once it has this request."""
        reached = {name: one.output[name].position for name in STREAMS}
        reached |= {name: position for other, name, position, _ in said.positions if other is one}
        return all(reached[name] >= one.output[name].size for name in STREAMS)

    # --- from time to time ----------------------------------------------------------------------------------------

    @property
    def running(self) -> list[Execution]:
        return [one for one in self.executions.values() if one.state == RUNNING]

    def look(self) -> None:
        """Looks for new output of what runs, and whether something that waited can start now."""
        if any([one.look() for one in self.running]):
            self._changed(True)
        if len(self.executions) > len(self.running):
            self._start_ready()

    def measure(self) -> None:
        """Updates what the running executions use, with one look at all processes."""
        running = self.running
        if not running:
            return
        table = processes()
        for one in running:
            if one.in_container and one.engine and one.engine.owns_containers:
                if one.container_pid is None:
                    self._begin(self._find_container(one))
                    continue
                members = descendants(table, {one.container_pid})
            else:
                members = descendants(table, {p.pid for p in table.values() if p.session == one.pid} | {one.pid})
            if not members:
                continue
            ticks = sum(table[pid].cpu_ticks for pid in members)
            resident = sum(table[pid].resident_bytes for pid in members)
            one.usage["cpu_seconds"] = max(one.usage.get("cpu_seconds", 0), ticks / TICKS_PER_SECOND)
            one.usage["peak_memory_bytes"] = max(one.usage.get("peak_memory_bytes", 0), resident)
            moved = [found for pid in members if (found := bytes_moved(pid))]
            for name, total in zip(("read_bytes", "written_bytes"), map(sum, zip(*moved))):
                one.usage[name] = max(one.usage.get(name, 0), total)

    async def _find_container(self, one: Execution) -> None:
        one.container_pid = await self.containers.main_process(one)

    # --- the end of the worker ------------------------------------------------------------------------------------

    def kill_all(self) -> None:
        """Ends every command, because the worker ends; what had not started goes back."""
        self.stopping = True
        for one in self.executions.values():
            if one.live and one.occupies:
                self.runner.signal(one.id, "kill", asked=WORKER_STOPS)
            elif one.live and one.state != UPLOADING:
                one.give_back("its worker was stopped")
        self._changed(True)


def _wants_room(kept: deque[str], base: str) -> bool:
    return bool(kept) and (len(kept) > KEPT_AT_MOST or machine.free_share(base) < KEPT_FREE_SHARE)


def _make_room(kept: deque[str], base: str) -> None:
    """In the janitor's thread: the loop goes on to answer the server however large they are."""
    while _wants_room(kept, base):
        _remove_tree(kept.popleft())


def _remove_tree(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
