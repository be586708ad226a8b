"""A step: one task of a workflow; and its batch, all steps that are alike."""

from __future__ import annotations

import os
import textwrap
from argparse import Namespace
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol

from .. import fetch
from ..errors import InvalidRequest, nearest
from ..lib import Server
from ..lib.objects import id_of
from ..lib.specs import task_spec
from ..protocol import TaskSpec
from ..uris import folder_names, uris
from .crew import Crew

_PLAIN = {known.name: getattr(TaskSpec(command=""), known.name) for known in fields(TaskSpec)}
_OWN = {*_PLAIN, "id", "key", "label"}  # attributes that need no question for each step
_SHELLS = {"sh": "sh", "dash": "sh", "bash": "bash"}
_LONGEST_BYTES = 131_071  # of one argument of a Linux process


@dataclass(frozen=True, slots=True)
class ShellCode:
    """A script and the shell that runs it."""

    text: str
    shell: str | None


def shell_code(text: str, shell: str | None = None) -> ShellCode:
    """A script of several lines as the command of a step; its common indentation goes.

    `shell` is 'sh' or 'bash'; without, the first line says it (`#!/bin/bash`), or the step, or it is sh. The script travels in
    the task itself: nothing is uploaded. Raises InvalidRequest for another interpreter, and for more than 128 KiB.
    """
    if not isinstance(text, str):
        raise InvalidRequest(f"must be a text, not {text!r:.80}", field="shell_code")
    script = textwrap.dedent(text).strip("\n")
    if not script.strip():
        raise InvalidRequest("the script is empty", field="shell_code")
    if len(script.encode()) > _LONGEST_BYTES:
        raise InvalidRequest("a script holds at most 128 KiB: give a larger one as a resource", field="shell_code")
    line = script.partition("\n")[0]
    if shell is None and line.startswith("#!"):
        words = [os.path.basename(word) for word in line[2:].split()]
        shell = next((word for word in words if word != "env" and not word.startswith("-")), "")
    if shell is not None and shell not in _SHELLS:
        raise InvalidRequest(f"{shell!r} is no shell{nearest(shell, _SHELLS)}: there are sh and bash", field="shell_code")
    return ShellCode(script, None if shell is None else _SHELLS[shell])


class Owner(Protocol):
    """What a step asks of its workflow."""

    name: str
    server: Server

    def id_of(self, step: Step) -> int: ...

    def task_of(self, step: Step) -> Namespace: ...

    def values(self, steps: list[Step], name: str) -> list: ...


@dataclass(slots=True, eq=False)
class Batch:
    """The steps of a workflow that are alike, by name, and who works for them. The server knows it by `full_name`."""

    name: str
    full_name: str
    crew: Crew
    steps: dict[str, Step] = field(default_factory=dict)


class Step:
    """A task of a workflow. Its attributes are those of the task: what was declared (`name`, `command`, `output`...), and what
    the server says of it at this moment (`id`, `state` or `status`, `exit_code`, `worker`...), for which it is queued first.

    `batch` is the name by which the server knows its batch. `output` ends in `/`: it is a folder.
    """

    def __init__(self, workflow: Owner, group: Batch, options: dict, required: object):
        self.workflow, self.group = workflow, group
        self.spec = task_spec(options | {"batch": group.full_name})
        if "?" not in self.spec.get("output", "?"):  # a URL that is signed stays as it is
            self.spec["output"] = self.spec["output"].rstrip("/") + "/"
        self.needs: list[Step | int] = list(dict.fromkeys(_flat(required)))

    def __repr__(self) -> str:
        return f"<step {self.group.name}/{self.spec['name']} of workflow {self.workflow.name}>"

    @property
    def key(self) -> tuple[str, str]:
        """Which task of the server it is."""
        return self.spec["batch"], self.spec["name"]

    @property
    def label(self) -> str:
        """What people read of it: `align/A`."""
        return f"{self.group.name}/{self.spec['name']}"

    @property
    def id(self) -> int:
        """The id of its task; it is queued, with all other steps, if it is not yet."""
        return self.workflow.id_of(self)

    @property
    def task(self):
        """The task as the server has it now."""
        return self.workflow.task_of(self)

    def refresh(self):
        """The task as the server has it now."""
        return self.task

    def __getattr__(self, name: str):
        if name.startswith("_") or "spec" not in vars(self):
            raise AttributeError(name)
        if name in _PLAIN:
            return copy(self.spec.get(name, _PLAIN[name]))
        task = vars(self.task)
        if name not in task:
            raise AttributeError(f"a step has no {name!r}{nearest(name, task)}")
        return task[name]

    def gather(self, attr: str = "step") -> list:
        """An attribute of all steps of its batch that are declared by now: themselves, or `'output'`, `'id'`...

        `'output/sub'` is a folder of each output. After a bar comes an action (docs/fetch.md): `'output|mv:x'` puts all that
        comes into the folder `x`, `'output|mv:{name}'` each into one of its own, `'output|only:*.bam'` takes some files.
        """
        if not isinstance(attr, str):
            raise InvalidRequest(f"gather wants the name of an attribute, such as 'output', not {attr!r:.80}")
        head, bar, action = attr.partition("|")
        name, slash, below = head.partition("/")
        steps = list(self.group.steps.values())
        if name == "output":
            return _outputs(steps, f"{below.strip('/')}/" if below.strip("/") else "", bar + action)
        if slash or bar:
            raise InvalidRequest(f"gather({attr!r}): a folder or an action is for 'output'")
        if name == "step":
            return steps
        return [getattr(step, name) for step in steps] if name in _OWN else self.workflow.values(steps, name)

    # --- what it left ---------------------------------------------------------------------------------------------------

    def get_output(self) -> str:
        """What its latest attempt wrote to stdout."""
        return self.workflow.server.task_output(self.id).decode("utf-8", "replace")

    def get_error(self) -> str:
        """What its latest attempt wrote to stderr."""
        return self.workflow.server.task_output(self.id, "stderr").decode("utf-8", "replace")

    def download(self, destination: str | Path) -> list[Path]:
        """Fetches its output into a folder; the files that are there now."""
        if "output" not in self.spec:
            raise InvalidRequest(f"step {self.label} has no output")
        return fetch.get(self.spec["output"], f"{str(destination).rstrip('/')}/")

    def clean(self) -> None:
        """Deletes its task, with what it wrote; a running one is stopped first."""
        self.workflow.server.task_delete(self.id)


def _outputs(steps: list[Step], below: str, action: str) -> list[str]:
    missing = next((step for step in steps if "output" not in step.spec), None)
    if missing is not None:
        raise InvalidRequest(f"step {missing.label} has no output that could be gathered")
    names = folder_names(step.spec["name"] for step in steps)
    found = (f"{step.spec['output']}{below}{action.replace('{name}', name)}" for step, name in zip(steps, names, strict=True))
    return list(dict.fromkeys(found))


def _flat(required: object) -> Iterable[Step | int]:
    """Steps, tasks, ids, and lists of them, as steps and ids."""
    if required is None:
        return
    if isinstance(required, (Step, str, bytes, int, dict)) or not isinstance(required, Iterable):
        yield required if isinstance(required, Step) else id_of(required)
        return
    for one in required:
        yield from _flat(one)


def command_of(command: object, shell: object) -> tuple[str, object]:
    """The text of a step's command, and its shell."""
    if isinstance(command, ShellCode):
        return command.text, command.shell or shell or "sh"
    if not isinstance(command, str) or not command.strip():
        raise InvalidRequest("must be a text that is not empty, or a shell_code", field="command")
    return command, shell


def beneath(base: str | Path | None, relative: object, what: str) -> list[str]:
    """The URIs of paths that are relative to `base_storage`."""
    if relative is None:
        return []
    if not base:
        raise InvalidRequest("the workflow has no base_storage that it could be relative to", field=what)
    return [f"{str(base).rstrip('/')}/{path.lstrip('/')}" for path in _places(relative, what)]


def listed(given: object, what: str) -> list[str]:
    """Inputs as people give them, as a list of URIs. Raises InvalidRequest for what is none: a step, say."""
    return [] if given is None else uris(given if isinstance(given, str) else _places(given, what))


def _places(given: object, what: str) -> list[str]:
    several = isinstance(given, Iterable) and not isinstance(given, (str, bytes, dict))
    places = list(given) if several else [given]
    if isinstance(given, (set, frozenset)):
        places.sort(key=str)  # the next start of the script must not find others
    for place in places:
        if place is None:
            raise InvalidRequest("wants URIs, and one is None: has the step that it comes from an output?", field=what)
        check_place(what, place)
    return [str(place) for place in places]


def check_place(what: str, place: object) -> None:
    """Raises InvalidRequest unless it is a URI or a path, or None."""
    if isinstance(place, Step):
        raise InvalidRequest(f"wants a URI, and {place.label} is a step: give its `output`", field=what)
    if not (place is None or isinstance(place, (str, Path))):
        raise InvalidRequest(f"wants a URI, a text, not {place!r:.80}", field=what)
