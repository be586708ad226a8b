"""A job that runs: a thread that asks providers, writes a log, and can be stopped at any moment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from ..cloud.calls import Call, Stopped
from ..cloud.provider import CloudRefused, CloudTrouble, NoRoom
from ..errors import ScitqError
from ..store import Transaction, jobs, machines, providers
from .context import WHO, Context

log = logging.getLogger(__name__)

_LATER_SECONDS = 600.0
FAULTS = (CloudTrouble, NoRoom, CloudRefused)


class Work:
    """One job of the table, from when it is taken until it ended or waits for another attempt."""

    def __init__(self, context: Context, job: Mapping):
        self.context, self.job, self.owner = context, job, context.owner
        self.id, self.provider, self.machine_id = job["id"], job["provider"], job["machine_id"]
        self.stopped = threading.Event()
        self.news = threading.Event()  # something that it waits for may have happened
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self._call: Call | None = None
        self.thread = threading.Thread(target=self._run, name=f"job {self.id}", daemon=True)

    def stop(self) -> None:
        """It was canceled, or is not this process's any more: whoever it asks is let go of."""
        with self._lock:
            self.stopped.set()
            call = self._call
        self.news.set()
        self.context.gate.knock()
        if call is not None:
            call.stop()

    def tell(self, line: str) -> None:
        """A line for the log, written with others in a moment."""
        with self._lock:
            self._lines.append(line)

    def flush(self, progress: int | None = None, step: str | None = None) -> None:
        """Writes what was told."""
        with self._lock:
            lines, self._lines = self._lines, []
        if lines or progress is not None or step is not None:
            self.context.write(lambda tx: jobs.write_log(tx, self.id, lines, progress, step))

    def step(self, progress: int, what: str) -> None:
        """Where it is now, in a few words."""
        self.tell(what)
        self.flush(progress, what)

    def ask(self, call: str, **arguments):
        """The answer of the provider to a question. Raises one of FAULTS; Stopped."""
        asked = self.context.call(self.provider, call, self.tell, **arguments)
        with self._lock:
            if self.stopped.is_set():
                raise Stopped("it was stopped")
            self._call = asked
        try:
            with self.context.gate.turn(self.provider, self.stopped):
                return asked.answer()
        finally:
            with self._lock:
                self._call = None

    # --- its life -----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            try:
                self.work()
            except Stopped:
                self._let_go()
        except Stopped:  # the server stops: whoever leads next goes on with it
            pass
        except Exception as error:  # a fault of ours: the job must not stay `running` for ever
            log.exception("job %s", self.id)
            self._give_up(f"unexpected {type(error).__name__}: {error}")

    def work(self) -> None:
        """Everything it has to do. Raises Stopped."""
        raise NotImplementedError

    def _let_go(self) -> None:
        """What is left of a canceled one is its destroy job's."""
        if self.context.stopping.is_set():
            return
        self.flush()
        self.context.write(self._end_if_canceled)

    def _end_if_canceled(self, tx: Transaction) -> None:
        who = tx.value("SELECT canceled_by FROM job WHERE id = ?", (self.id,))
        if who is not None:
            jobs.finish(tx, self.id, self.owner, "canceled", f"canceled by {who}")

    def _give_up(self, why: str) -> None:
        """The last resort: failed, and what may be there is removed; a removal is tried again."""

        def change(tx: Transaction) -> None:
            if self.job["kind"] == "destroy":
                jobs.again(tx, self.id, self.owner, tx.now + _LATER_SECONDS, why)
            elif jobs.finish(tx, self.id, self.owner, "failed", why) and self.job["kind"] == "deploy":
                machines.destroy(tx, self.machine_id, WHO)

        try:
            self.context.write(change)
        except (Stopped, ScitqError) as error:
            log.warning("job %s stays as it is until this server starts anew: %s", self.id, error)


def note_trouble(tx: Transaction, provider: str, error: ScitqError) -> None:
    """Whoever looks at the provider sees it. That a quota is used up is no trouble of its own."""
    if not isinstance(error, NoRoom):
        providers.trouble(tx, provider, error.message)
