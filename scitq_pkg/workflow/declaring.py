"""Steps are declared, and sent all at once."""

from __future__ import annotations

import contextlib
import sys
import weakref
from argparse import Namespace
from collections.abc import Callable
from unicodedata import category

from ..errors import InvalidRequest, NotFound, nearest
from ..escapes import safe
from ..lib import Server
from ..lib.join import tasks_of
from ..lib.objects import shown
from ..lib.specs import plain
from ..reconcile import Applied, Declared, reconcile
from .crew import RANKS, UNSET, check_number, crew_of
from .steps import Batch, Step, beneath, check_place, command_of, listed

_BREAKING = ("Cc", "Cs", "Zl", "Zp")  # kinds of characters: what breaks the line that a name is shown in
_CREW = ("flavor", "provider", "region", "concurrency", "prefetch", "maximum_workers", "tasks_per_worker", "rounds")


class Declaration:
    """The steps of a workflow, and what the server has of them."""

    def __init__(
        self, name: str, max_step_workers: int | None = None, server: Server | str | None = None, provider: str | None = None,
        region: str | None = "auto", flavor: str | None = None, shell: bool | str = False,
        max_workflow_workers: int | None = None, retry: int | None = None, rounds: int | None = None,
        prefetch: int | None = None, container: str | None = None,
        container_options: str | None = None, download_timeout: float | str | None = None, run_timeout: float | str | None = None,
        use_cache: bool = False, base_storage: str | None = None, debug: bool = False,
    ):  # fmt: skip
        _check_name("workflow", name)
        check_number("max_step_workers", max_step_workers, 1)
        check_number("max_workflow_workers", max_workflow_workers, 1)
        check_place("base_storage", base_storage)
        self.name, self.base_storage, self.debug = name, base_storage, debug
        self.server = server if isinstance(server, Server) else Server(server)
        self.max_workflow_workers = max_workflow_workers
        self._defaults = {
            "shell": shell, "retry": retry, "container": container, "container_options": container_options,
            "download_timeout": download_timeout, "run_timeout": run_timeout, "use_cache": use_cache,
        }  # fmt: skip
        self._crew = {
            "flavor": flavor, "provider": provider, "region": region, "prefetch": prefetch, "rounds": rounds,
            "maximum_workers": max_step_workers,
        }  # fmt: skip
        self._batches: dict[str, Batch] = {}
        self._steps: list[Step] = []
        self._ids: dict[tuple[str, str], int] = {}  # of the steps that were sent
        self._untold: list[Applied] = []
        self._unsent = {"steps": 0}
        weakref.finalize(self, _tell_unsent, name, self._unsent)

    # --- declaring ----------------------------------------------------------------------------------------------------------

    def step(
        self, batch: str, command, concurrency=UNSET, prefetch=UNSET, provider=UNSET, region=UNSET, flavor=UNSET,
        name: str | None = None, tasks_per_worker=UNSET, rounds=UNSET, shell=UNSET, maximum_workers=UNSET,
        input=None, output: str | None = None, resource=None, rel_output: str | None = None, rel_input=None, required_tasks=None,
        container=UNSET, container_options=UNSET, retry=UNSET, download_timeout=UNSET, run_timeout=UNSET, use_cache=UNSET, *,
        env: dict[str, str] | None = None, workdir: str | None = None, priority: int | None = None, uid: int | None = None,
        gid: int | None = None,
    ) -> Step:  # fmt: skip
        """Declares a task of a batch; it is sent by `run` or `submit`, or when its id or state is asked.

        Batch and `name` (default: `batch #n`) tell which task it is when the script is started again. `command` is a text or a
        `shell_code`. `required_tasks`: steps, tasks, ids, or lists of them. What is not given is as the workflow says; None takes
        such a default away. Raises InvalidRequest.
        """
        said = dict(locals())
        options = {"env": env, "workdir": workdir, "priority": priority, "uid": uid, "gid": gid}
        options |= {one: default if said[one] is UNSET else said[one] for one, default in self._defaults.items()}
        options["command"], options["shell"] = command_of(command, options["shell"])
        options["input"] = listed(input, "input") + beneath(self.base_storage, rel_input, "rel_input")
        options["resource"] = listed(resource, "resource")
        if output is not None and rel_output is not None:
            raise InvalidRequest("give `output` or `rel_output`, not both", field="output")
        for one, place in (("output", output), ("rel_output", rel_output)):
            check_place(one, place)
        options["output"] = output if rel_output is None else beneath(self.base_storage, rel_output, "rel_output")[0]
        group = self._group(batch, {one: _plain(said[one], one) for one in _CREW})
        options["name"] = f"{batch} #{len(group.steps) + 1}" if name is None else name
        _check_name("step", options["name"])
        if options["name"] in group.steps:
            raise InvalidRequest(f"batch {batch!r} has two steps named {options['name']!r}: give each a name of its own")
        step = Step(self, group, options, required_tasks)
        self._batches[batch] = group
        group.steps[options["name"]] = step
        self._steps.append(step)
        self._unsent["steps"] += not self.debug
        return step

    def _group(self, name: str, given: dict) -> Batch:
        _check_name("batch", name)
        known = self._batches.get(name)
        if known is not None:
            known.crew.check_same(name, given)
            return known
        return Batch(name, f"{self.name}.{name}", crew_of(name, given, self._crew, self.max_workflow_workers))

    @property
    def steps(self) -> list[Step]:
        """All steps, in the order in which they were declared."""
        return list(self._steps)

    @property
    def previous_step(self) -> Step | None:
        """The step that was declared last."""
        return self._steps[-1] if self._steps else None

    @property
    def batches(self) -> list[str]:
        """The batches, by their names at the server."""
        return [batch.full_name for batch in self._batches.values()]

    # --- sending ------------------------------------------------------------------------------------------------------------

    def submit(self) -> Applied:
        """Sends the steps that were not sent yet, new ones in one request, all or none; what became of each, by (batch, name).

        Tasks of an earlier start of the script are found by their names: those that succeeded and are unchanged stay, changed
        ones are changed unless they run, failed and canceled ones are queued again. Raises InvalidRequest, naming the step.
        """
        if self.debug:
            raise InvalidRequest("a workflow with debug=True sends one task at a time: call run()")
        return self.send([step for step in self._steps if step.key not in self._ids])

    def send(self, steps: list[Step]) -> Applied:
        """Sends these steps; what they need is sent before, or among them."""
        if not steps:
            return Applied()
        declared = self.declared(steps)
        new = self._recruit()  # first: killed after it, no task is without
        try:
            applied = reconcile(self.server, declared)
        except InvalidRequest:
            self._dismiss(lambda row: row["id"] in new)
            raise
        self._untold.append(applied)
        self._ids.update(applied.ids)
        self._unsent["steps"] = sum(step.key not in self._ids for step in self._steps) if not self.debug else 0
        return applied

    def declared(self, steps: list[Step]) -> Declared:
        """The tasks that these steps are."""
        together = {step.key for step in steps}
        tasks = {step.key: {**step.spec, "require": [self._need(one, together) for one in step.needs]} for step in steps}
        return Declared(tasks, self.batches, lambda row: (row["batch"], row["name"]))

    def _need(self, need: Step | int, together: set[tuple[str, str]]) -> tuple[str, str] | int:
        if isinstance(need, int):
            return need
        return need.key if need.workflow is self and need.key in together else need.id

    def _recruit(self) -> set[int]:
        """Makes the recruiters of all batches, and takes away what an earlier start of the script made and this one does not.

        The ids of those that were not there.
        """
        left, wanted = self.max_workflow_workers, []
        for batch in self._batches.values():
            wanted += batch.crew.recruiters(batch.full_name, left)
            if left is not None and batch.crew.provider is not None:
                left -= batch.crew.deployed(left)
        ranks = {(one["batch"], one["rank"]) for one in wanted}
        before = {row["id"] for row in self._recruiters()}
        ids = {self.server.client.send("POST", "/recruiters", body)["id"] for body in wanted}
        self._dismiss(lambda row: row["rank"] in RANKS and (row["batch"], row["rank"]) not in ranks)
        return ids - before

    def _recruiters(self) -> list[dict]:
        return [row for name in self.batches for row in self.server.client.pages("/recruiters", batch=name)]

    def _dismiss(self, chosen: Callable[[dict], bool]) -> None:
        for row in filter(chosen, self._recruiters()):
            with contextlib.suppress(NotFound):  # somebody did it just now
                self.server.client.send("DELETE", f"/recruiters/{row['id']}")

    # --- what the server knows ------------------------------------------------------------------------------------------------

    def id_of(self, step: Step) -> int:
        """The id of a step's task; all steps are sent if it was not."""
        if step.key not in self._ids:
            self.submit()
        return self._ids[step.key]

    def adopt(self, step: Step, task_id: int) -> None:
        """A task that is there already is that of this step."""
        self._ids[step.key] = task_id

    def task_of(self, step: Step) -> Namespace:
        """The task of a step as the server has it now. Raises NotFound if somebody deleted it."""
        return shown(self.server.client.get(f"/tasks/{self.id_of(step)}"), "object", "task")

    def values(self, steps: list[Step], name: str) -> list:
        """What the server says of all these steps, asked at once."""
        ids = [self.id_of(step) for step in steps]
        rows = {row["id"]: shown(row, "object", "task") for row in tasks_of(self.server.client, ids)}
        missing = next((step for step, task_id in zip(steps, ids, strict=True) if task_id not in rows), None)
        if missing is not None:
            raise NotFound(f"the task of step {missing.label} was deleted")
        if rows and not hasattr(first := next(iter(rows.values())), name):
            raise InvalidRequest(f"gather({name!r}): a step has no such attribute{nearest(name, vars(first))}")
        return [getattr(rows[task_id], name) for task_id in ids]


def _plain(given: object, name: str) -> object:
    return given if given is UNSET else plain(given, name)


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not name.strip():
        raise InvalidRequest(f"a {what} needs a name, a text that is not empty, not {name!r:.80}")
    if any(category(letter) in _BREAKING for letter in name):
        raise InvalidRequest(f"the name of a {what} cannot hold a newline or another control character: {name!r:.80}")


def _tell_unsent(name: str, unsent: dict[str, int]) -> None:
    """At the end of a script: a `run()` that was forgotten is noticed."""
    if unsent["steps"] and sys.stderr is not None and not sys.stderr.closed:
        steps = f"{unsent['steps']} step{'s' * (unsent['steps'] > 1)}"
        print(f"workflow {safe(name)}: {steps} declared and not sent: submit() or run() sends them", file=sys.stderr)
