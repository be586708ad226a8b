"""`Workflow`: what was declared is run, watched, and tidied up."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import quote

from .. import fetch
from ..errors import InvalidRequest, NotFound
from ..escapes import safe
from ..protocol import FINAL, SUCCEEDED
from ..uris import folder_names, uris
from . import dialogue, terminal
from .declaring import Declaration
from .dialogue import Dialogue
from .logs import save_logs
from .steps import Batch, Step
from .summary import Summary
from .view import DESTROY, QUIT, View, follow_in_lines
from .watch import Watch

_INTERRUPTED = 130


class Workflow(Declaration):
    """Tasks that hang together, in batches of like ones; the server knows each batch as `<workflow>.<batch>`.

    What is given here is the default of every step: `shell`, `retry`, `container`, `container_options`, `download_timeout`,
    `run_timeout` (seconds, or '2h') and `use_cache`; `flavor`, `provider`, `region` and `prefetch` of the workers, of which a
    batch has `max_step_workers` at most and all batches together deploy `max_workflow_workers`. `rel_input` and `rel_output` of
    steps are paths below `base_storage`. With `debug`, `run` runs one chosen task at a time. `server` is a `Server`, or what
    that takes.

    As the context of a `with` block it sends its steps at the end; if the block raises, nothing is sent.
    """

    def __enter__(self) -> Workflow:
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if kind is None and not self.debug:
            self.submit()

    # --- running ------------------------------------------------------------------------------------------------------------

    def run(self, refresh: float = 10) -> Summary:
        """Sends the steps and shows how they go, until nothing can happen any more: all ended, or wait for ever for a failed one.

        What became of them is printed and returned; failures raise nothing. On a terminal it is a live screen with keys,
        otherwise lines on stderr. `refresh`: it looks after so many seconds, 60 at most, even without news. Leaving it (`q`,
        Ctrl-C) ends the script with SystemExit 130, at Python's own prompt with KeyboardInterrupt: the tasks go on, and the
        script that is started again finds them.
        """
        if isinstance(refresh, bool) or not isinstance(refresh, (int, float)) or not refresh > 0:
            raise InvalidRequest(f"must be a number of seconds above 0, not {refresh!r:.80}", field="refresh")
        if not self._batches:
            return Summary(self.name)
        if self.debug:
            answer = Dialogue(self).run()
            if answer == dialogue.QUIT:
                _leave(_goes_on(self.name))
            if answer != dialogue.EXIT:
                return self._end(self._watch())
            self.debug = False
            self._ids.clear()  # what failed there is queued again
            self._untold.clear()  # it was seen there
        self.submit()
        watch = self._watch()
        try:
            self._tell()
            left = self._show(watch, refresh)
        except KeyboardInterrupt:
            left = QUIT
        if left == DESTROY:
            self.destroy()
        if left:
            _leave(f"workflow {safe(self.name)} is destroyed" if left == DESTROY else _goes_on(self.name))
        return self._end(watch)

    def _watch(self) -> Watch:
        return Watch(self.server.client.another(), self.name, list(self._batches.values()), self._ids)

    def _tell(self) -> None:
        """What was sent since the last time, in a line."""
        words = {"queued": "created", "changed": "updated", "queued again": "relaunched", "as they were": "kept"}
        counts = {word: sum(len(getattr(applied, name)) for applied in self._untold) for word, name in words.items()}
        if total := sum(counts.values()):
            parts = [f"{count} {word}" for word, count in counts.items() if count]
            print(f"workflow {safe(self.name)}: {total} tasks: {', '.join(parts)}", flush=True)
        for applied in self._untold:
            for (_, name), why in applied.skipped.items():
                print(f"{safe(name)} stays as it was: it {why}", file=sys.stderr)
        self._untold.clear()

    def _show(self, watch: Watch, refresh: float) -> str | None:
        if not terminal.is_there():
            return follow_in_lines(watch, refresh)
        return View(watch, refresh, f"workflow {safe(self.name)} on {self.server.url}", self._act).show()

    def _act(self, verb: str) -> None:
        {"pause": self.pause, "suspend": lambda: self.pause(suspend=True), "resume": self.unpause}[verb]()

    def _end(self, watch: Watch) -> Summary:
        if not watch.over and watch.labels:
            watch.look(0)
        watch.client.close()
        print(watch.summary, flush=True)
        return watch.summary

    def pause(self, suspend: bool = False) -> None:
        """Nothing of it starts any more; with `suspend` what runs stops where it is."""
        for name in self.batches:
            with contextlib.suppress(NotFound):  # nothing of that batch was sent
                self.server.batch_stop(name, "suspend" if suspend else None)

    def unpause(self) -> None:
        """Reverses `pause`."""
        for name in self.batches:
            with contextlib.suppress(NotFound):  # nothing of that batch was sent
                self.server.batch_go(name)

    # --- afterwards -----------------------------------------------------------------------------------------------------------

    def clean(self, force: bool = False, download_logs: bool = True, log_destination: str | Path | None = None) -> None:
        """Deletes the tasks that succeeded, with what they wrote to stdout and stderr; outputs stay where they are.

        Before, their logs are saved as `<log_destination>/<batch>/<task>_output.log` and `_error.log` (default: a folder named as
        the workflow). Failed tasks stay, and the recruiters of batches in which something is left to do. `force` saves the logs
        of failed ones, too, and deletes the batches with all their tasks, whatever they do. Started again after this, the script
        does everything anew.
        """
        place = Path(log_destination) if log_destination is not None else Path(folder_names([self.name])[0])
        for name, folder in _folders(self._batches).items():
            batch = self._batches[name]
            ended = self.server.client.pages("/tasks", batch=batch.full_name, state=",".join(FINAL if force else (SUCCEEDED,)))
            tasks = {row["id"]: row for row in ended}
            if download_logs:
                save_logs(self.server.client, list(tasks.values()), place / folder)
            if tasks and not force:
                self.server.tasks_delete(list(tasks))
        if force:
            self.destroy()
            return
        counts = {row["name"]: row["counts"] for row in self._rows()}
        idle = {name for name in self.batches if all(state in FINAL for state in counts.get(name, ()))}
        self._dismiss(lambda row: row["batch"] in idle)

    def _rows(self) -> Iterable[dict]:
        for name in self.batches:
            with contextlib.suppress(NotFound):  # nothing of that batch was sent
                yield self.server.client.get(f"/batches/{quote(name, safe='')}")

    def destroy(self) -> None:
        """Deletes its batches with all their tasks and recruiters; what runs is stopped first."""
        for name in self.batches:
            with contextlib.suppress(NotFound):  # nothing of that batch was sent
                self.server.batch_delete(name)
        self._ids.clear()

    def download(self, uri_list=None, destination: str | Path | None = None) -> list[Path]:
        """Fetches URIs, or outputs of steps (default: of all of them), into a folder; the files that are there now.

        The output of a step comes into `<destination>/<batch>/<step>/`. The folder's default name is the workflow's.
        """
        place = Path(destination) if destination is not None else Path(folder_names([self.name])[0])
        wanted = [step for step in self._steps if "output" in step.spec] if uri_list is None else uri_list
        batches, steps = _folders(self._batches), dict[Batch, dict[str, str]]()
        found: list[Path] = []
        for one in [wanted] if isinstance(wanted, (str, Step)) else wanted:
            if isinstance(one, Step):
                if one.group not in steps:  # all of a batch at once: no two have the same folder
                    steps[one.group] = _folders(one.group.steps)
                batch = batches.get(one.group.name) or folder_names([one.group.name])[0]
                found += one.download(place / batch / steps[one.group][one.spec["name"]])
            else:
                for uri in uris(str(one)):
                    found += fetch.get(uri, f"{place}/")
        return found


def _folders(names: Collection[str]) -> dict[str, str]:
    return dict(zip(names, folder_names(names), strict=True))


def _goes_on(name: str) -> str:
    return f"left workflow {safe(name)}: its tasks go on, and starting the script again finds them"


def _leave(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
    if hasattr(sys, "ps1"):  # Python's own prompt, which SystemExit would end
        raise KeyboardInterrupt
    raise SystemExit(_INTERRUPTED)
