"""A thread that does blocking things one after the other for an asyncio program, and never delays its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue


class Errand(threading.Thread):
    """Unlike asyncio's own pool it is a daemon: a hanging network or disk does not keep the process from ending."""

    def __init__(self, name: str):
        super().__init__(name=name, daemon=True)
        self._queue: SimpleQueue = SimpleQueue()
        self.start()

    async def do(self, function: Callable, *args, **kwargs):
        """Calls the function in the thread; its result or error."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._queue.put((loop, future, function, args, kwargs))
        return await future

    def post(self, function: Callable, *args) -> None:
        """Has the function called some time; nobody waits for it."""
        self._queue.put((None, None, function, args, {}))

    def run(self) -> None:
        """The thread itself."""
        while True:
            loop, future, function, args, kwargs = self._queue.get()
            try:
                outcome, error = function(*args, **kwargs), None
            except Exception as raised:  # whatever it is belongs to the one who waits
                outcome, error = None, raised
            if future is not None and not loop.is_closed():
                loop.call_soon_threadsafe(_settle, future, outcome, error)
            del loop, future, function, args, kwargs, outcome, error


def _settle(future: asyncio.Future, outcome, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(outcome)
    else:
        future.set_exception(error)
