"""The container engine of a worker's machine: which it is, whether it answers, its images, containers that lost their client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterable

from .. import container
from ..container import Engine, EngineAway
from ..errors import TransferFailed
from ..execution import Execution
from ..keeper import command as ends
from ..runner import inherited_environment

ANSWER_SECONDS = 30.0  # an engine that needs longer for a short question is taken for away
PROBLEM_SECONDS = 60.0  # so long no container is taken after the engine was found away, unless it answers before
LOOK_SECONDS = 3.0  # between questions whether it is back
_SHUTDOWN_SECONDS = 0.5  # an engine that stops ends its containers first
_TAIL_BYTES = 8192  # of stderr: where the client says what is wrong
_KILLED = (128 + 9, 128 + 15)


class Containers:
    """One worker's dealings with the engine; `changed` is called when its problem comes or goes."""

    def __init__(self, worker: str, asked: str | None, changed: Callable[[], None]):
        self._worker = worker
        self._asked = asked or os.environ.get(container.VARIABLE)
        if self._asked:
            container.kind_of(self._asked)
        self._changed = changed
        self._pulls: dict[str, tuple[asyncio.Task, list[object]]] = {}
        self._watch: asyncio.Task | None = None
        self.problem: str | None = None  # why no container can run here now

    def engine(self) -> Engine:
        """The engine to use. Raises EngineAway when there is none; the worker then says so for a while."""
        try:
            return container.find(self._asked, self._worker)
        except EngineAway as error:
            raise self._note(error) from None

    def close(self) -> None:
        """Ends what is under way; a pull begins again with the next worker."""
        for task in [self._watch, *(pull for pull, _ in self._pulls.values())]:
            if task is not None:
                task.cancel()

    # --- is it there? -------------------------------------------------------------------------------------------------

    def _note(self, error: EngineAway) -> EngineAway:
        if self._watch is None or self._watch.done():
            self._watch = asyncio.get_running_loop().create_task(self._wait_until_back())
        self.problem = str(error)
        self._changed()
        return error

    async def _wait_until_back(self) -> None:
        """Takes containers again when the engine answers, or after a while: the next one finds out."""
        deadline = time.monotonic() + PROBLEM_SECONDS
        while time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
            with contextlib.suppress(EngineAway):  # still
                await _ask(container.find(self._asked, self._worker).list())
                break
        self.problem = None
        self._changed()

    # --- images -------------------------------------------------------------------------------------------------------

    async def have(self, image: str) -> None:
        """Returns when the image is on this machine. Raises EngineAway, TransferFailed, ValueError for what is no image."""
        engine = self.engine()
        words = engine.has(image)
        try:
            if words is None or (await _ask(words)) is not None:
                return
            await self._pull(engine, image)
        except EngineAway as error:
            raise self._note(error) from None

    async def _pull(self, engine: Engine, image: str) -> None:
        """One pull for all who wait for an image; it ends with the last of them."""
        if image not in self._pulls:
            task = asyncio.get_running_loop().create_task(_fetch(engine, image))
            self._pulls[image] = task, []
            task.add_done_callback(lambda done: self._pulls.pop(image, None) if self._is_pull(image, done) else None)
        task, waiting = self._pulls[image]
        me = object()
        waiting.append(me)
        try:
            await asyncio.shield(task)
        finally:
            waiting.remove(me)
            if not waiting and not task.done():
                task.cancel()
                if self._is_pull(image, task):
                    del self._pulls[image]

    def _is_pull(self, image: str, task: asyncio.Task) -> bool:
        return image in self._pulls and self._pulls[image][0] is task

    # --- ends ---------------------------------------------------------------------------------------------------------

    async def settle(self, one: Execution, end: dict) -> dict:
        """What the end of a client means for its container, which is gone when this returns, however long its engine is away."""
        assert one.engine is not None
        engine, code = one.engine, end.get("exit_code")
        said = await asyncio.to_thread(_tail, os.path.join(one.directory, "stderr"))
        oom = False
        if end["kind"] == ends.EXITED and code in _KILLED:
            oom, stopped = await self._why_killed(engine, one.id, end)
            if stopped:
                return {**end, "kind": ends.INTERRUPTED, "message": "the container engine was stopped while it ran"}
        elif end["kind"] != ends.EXITED or code == container.ENGINE_FAILED:
            await self.end(engine, one.id)
        return container.judged(end, engine.kind, one.task["container"], said, oom)

    async def end(self, engine: Engine, execution: int) -> None:
        """Ends and removes an execution's container, if there is one; waits for an engine that is away."""
        while engine.owns_containers:
            try:
                found = await _ask(engine.list(execution))
                if not found:
                    return
                await _ask(engine.remove([line.split()[0] for line in found.splitlines()]))
            except EngineAway as error:
                self._note(error)
                await asyncio.sleep(LOOK_SECONDS)
            await asyncio.sleep(0.1)

    async def _why_killed(self, engine: Engine, execution: int, end: dict) -> tuple[bool, bool]:
        """Of a container that was killed: whether it ran out of memory, and whether the engine itself was stopped."""
        words = engine.short_of_memory(execution, end["ended_at"] - (end["ended"] - end["started"]) - 1.0)
        try:
            if words and await _ask(words):
                return True, False
            await asyncio.sleep(_SHUTDOWN_SECONDS)
            await _ask(engine.list(execution))
        except EngineAway as error:
            self._note(error)
            return False, True
        return False, False

    async def sweep(self, held: Callable[[], Iterable[int]]) -> None:
        """Ends this worker's containers whose executions it does not hold: nobody wants their results."""
        with contextlib.suppress(EngineAway):  # none is there, or none can be ended: the next start looks again
            engine = container.find(self._asked, self._worker)
            lines = [line.split() for line in (await _ask(engine.list()) or "").splitlines()] if engine.owns_containers else []
            wanted = {str(number) for number in held()}
            if strangers := [line[0] for line in lines if line[-1] not in wanted]:
                await _ask(engine.remove(strangers))

    async def main_process(self, one: Execution) -> int | None:
        """The pid of a container's main process, None while it has none."""
        assert one.engine is not None
        try:
            said = await _ask(one.engine.main_process(one.id))
        except EngineAway:
            return None
        return int(said) if said and said.strip().isdigit() and int(said) else None

    async def clear(self, one: Execution) -> None:
        """Removes what a container made as another user in its execution's directory, where this user may not."""
        assert one.engine is not None
        with contextlib.suppress(EngineAway, ValueError):  # then it stays
            await _ask(one.engine.clear(one.task["container"], one.directory))


async def _fetch(engine: Engine, image: str) -> None:
    code, _, said = await _run(engine.pull(image))
    if code == 0:
        return
    if container.is_away(said):
        raise EngineAway(container.away_sentence(engine.kind, said))
    raise TransferFailed(
        f"image {image} cannot be pulled by {engine.kind}: {container.sentence(said)}", again=container.passes(said)
    )


async def _ask(words: list[str]) -> str | None:
    """What a short question to the engine answers, None if that is a refusal. Raises EngineAway."""
    kind = container.kind_of(words[0])
    try:
        code, out, said = await asyncio.wait_for(_run(words), ANSWER_SECONDS)
    except asyncio.TimeoutError:
        raise EngineAway(f"{kind} did not answer within {ANSWER_SECONDS:g} s: look after it on the worker's machine") from None
    if code and container.is_away(said):
        raise EngineAway(container.away_sentence(kind, said))
    return None if code else out


async def _run(words: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, which ends with whoever waits for it. Raises EngineAway if it cannot start."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
            env=inherited_environment(), start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise EngineAway(f"{words[0]} cannot be started: {error.strerror}") from None
    try:
        out, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode or 0, out.decode(errors="replace"), said.decode(errors="replace")


def _tail(path: str) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:  # never made
        return ""
