"""The line with which somebody tries a task by hand, in an empty folder of a machine of their own."""

from __future__ import annotations

import shlex

from .container import MOUNTS

_FOLDERS = {"INPUT": "input", "OUTPUT": "output", "RESOURCE": "resource", "TEMP": "temp"}


def line(task: dict) -> str:
    """One line for a shell: folders, inputs, then the command as a worker would run it. `task` is a task as the API shows it."""
    run = _in_container(task) if task.get("container") else _plain(task)
    return " && ".join([f"mkdir -p {' '.join(_FOLDERS.values())}", *_fetches(task), run])


def _fetches(task: dict) -> list[str]:
    wanted = [(uri, "input") for uri in task["input"]] + [(uri, "resource") for uri in task["resource"]]
    return [f"scitq fetch get {shlex.quote(uri)} {folder}/" for uri, folder in wanted]


def _words(task: dict) -> str:
    command = task["command"]
    return f"{task['shell']} -c {shlex.quote(command)}" if task.get("shell") else command


def _variables(task: dict) -> dict[str, str]:
    own = {"SCITQ_TASK_ID": str(task["id"]), "SCITQ_TASK_NAME": task["name"] or "", "SCITQ_BATCH": task["batch"]}
    return {**own, **task["env"]}


def _pairs(task: dict) -> list[str]:
    return [shlex.quote(f"{name}={value}") for name, value in _variables(task).items()]


def _in_container(task: dict) -> str:
    words = ["docker run --rm -it"]
    for name, target in MOUNTS.items():
        words.append(f'-v "$PWD/{name}:{target}{":ro" if name == "resource" else ""}"')
    words += [f"-e {name}={MOUNTS[folder]}" for name, folder in _FOLDERS.items()]
    words += ['-e CPU="$(nproc)"', *(f"-e {pair}" for pair in _pairs(task))]
    if task["uid"] is not None or task["gid"] is not None:
        words.append(f"-u {'' if task['uid'] is None else task['uid']}{'' if task['gid'] is None else ':%d' % task['gid']}")
    if task["workdir"]:
        words.append(f"-w {shlex.quote(task['workdir'])}")
    return " ".join([*words, *filter(None, [task["container_options"]]), shlex.quote(task["container"]), _words(task)])


def _plain(task: dict) -> str:
    here = "$OLDPWD" if task["workdir"] else "$PWD"
    words = [f'{name}="{here}/{folder}"' for name, folder in _FOLDERS.items()]
    run = " ".join([*_as_user(task), "env", *words, 'CPU="$(nproc)"', *_pairs(task), _words(task)])
    return f"(cd {shlex.quote(task['workdir'])} && {run})" if task["workdir"] else run


def _as_user(task: dict) -> list[str]:
    found = ([] if task["uid"] is None else [f"-u '#{task['uid']}'"]) + ([] if task["gid"] is None else [f"-g '#{task['gid']}'"])
    return ["sudo", *found] if found else []
