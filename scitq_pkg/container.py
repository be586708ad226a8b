"""The command lines of container engines, and what their failures mean. Pure: nothing here starts a process.

docker and podman answer to the same words. Their client is a process like any command; the container itself belongs to the
engine, outlives its client, and is found again by its labels. apptainer has no such split: its container is a child of its
client, and signals reach it as they reach any process. Written after docs.docker.com/reference/cli, docs.podman.io and
apptainer.org/docs.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import InvalidRequest, ScitqError, nearest
from .keeper import command as ends

DOCKER, PODMAN, APPTAINER = ENGINES = ("docker", "podman", "apptainer")  # in the order of preference
VARIABLE = "SCITQ_CONTAINER_ENGINE"
EXECUTION_LABEL, WORKER_LABEL = "scitq.execution", "scitq.worker"
ENV_FILE = "container.env"  # in the execution's directory, 0600
MOUNTS = {"input": "/input", "output": "/output", "resource": "/resource", "temp": "/tmp"}
ENGINE_FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127  # exit codes of `run` beside those of the command
_DOUBTFUL = (ENGINE_FAILED, NOT_EXECUTABLE, NOT_FOUND, 128 + 9, 128 + 15)
_DATA = "/data"  # of the machine, when there is one
_LONGEST_LINE = 60_000  # bytes; the engines read the file of variables in lines of at most 64 KiB
_INIT_PROGRAMS = {
    DOCKER: ("docker-init", "/usr/libexec/docker/docker-init", "/usr/local/libexec/docker/docker-init"),
    PODMAN: ("catatonit", "/usr/libexec/podman/catatonit", "/usr/lib/podman/catatonit"),
}
# `stop` waits for the grace; the second argument is the engine, the third the container. What is paused hears no signal.
_STOP = '"$1" unpause "$2"; exec "$1" stop -t "$GRACE" "$2"'


class EngineAway(ScitqError):
    """There is no engine, or it does not answer: no container can run on this machine now."""


@dataclass(frozen=True)
class Engine:
    """A container engine of this machine, as one worker uses it."""

    kind: str  # one of ENGINES
    program: str  # absolute path of its client
    worker: str  # a name of the worker that no other worker has

    @property
    def owns_containers(self) -> bool:
        """Whether containers outlive the client, so that it is the engine that must be asked to end them."""
        return self.kind != APPTAINER

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self, execution: int, task: Mapping, words: list[str], directory: str, variables: Mapping[str, str]) -> list[str]:
        """The argv that runs a task's command; its ENV_FILE and folders are there.

        Raises ValueError for a bad image or option.
        """
        image, options = _image(task["container"]), _options(task.get("container_options"))
        if self.kind == APPTAINER:
            return [self.program, "run", *self._apptainer_options(task, directory), *options, apptainer_image(image), *words]
        ours = ["--rm", "--detach=false", "--pull=never", f"--name={self.name(execution)}"]  # the last one counts
        ours += [f"--label={EXECUTION_LABEL}={execution}", f"--label={WORKER_LABEL}={self.worker}"]
        return [self.program, "run", *self._options(task, directory, variables), *options, *ours, image, *words]

    def _options(self, task: Mapping, directory: str, variables: Mapping[str, str]) -> list[str]:
        found = ["--init"] if any(map(shutil.which, _INIT_PROGRAMS[self.kind])) else []
        found += [f"--mount={_mount(source, target)}" for source, target in _mounts(directory)]
        found.append(f"--env-file={os.path.join(directory, ENV_FILE)}")
        found += [f"--env={name}" for name in sorted(odd_variables(variables))]
        uid, gid = task.get("uid"), task.get("gid")
        if uid is not None or gid is not None:
            found.append(f"--user={'' if uid is None else uid}{'' if gid is None else f':{gid}'}")
        return found + ([f"--workdir={task['workdir']}"] if task.get("workdir") else [])

    def _apptainer_options(self, task: Mapping, directory: str) -> list[str]:
        found = ["--cleanenv", "--contain", "--no-home"]
        for source, target in _mounts(directory):
            found.append(f"--bind={source}:{target}{':ro' if target == MOUNTS['resource'] else ''}")
        return found + ([f"--pwd={task['workdir']}"] if task.get("workdir") else [])

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """What the client's own environment must have beside the worker's, so that the container gets these variables."""
        if self.kind == APPTAINER:
            return {f"APPTAINERENV_{name}": value for name, value in variables.items()}
        return odd_variables(variables)

    # --- what runs ------------------------------------------------------------------------------------------------------

    def name(self, execution: int) -> str:
        """The name of an execution's container."""
        return f"scitq-{self.worker}-{execution}"

    def verbs(self, execution: int) -> dict[str, list[str]] | None:
        """What to run instead of signals: suspend, resume, term (`GRACE` in its environment: seconds), kill. None: signals do."""
        if not self.owns_containers:
            return None
        name = self.name(execution)
        return {
            "suspend": [self.program, "pause", name], "resume": [self.program, "unpause", name],
            "term": ["/bin/sh", "-c", _STOP, "stop", self.program, name], "kill": [self.program, "kill", name],
        }  # fmt: skip

    def list(self, execution: int | None = None) -> list[str]:
        """The argv that tells the containers of the worker, or of one execution: a line each, the id and the execution."""
        chosen = [f"--filter=label={WORKER_LABEL}={self.worker}"]
        if execution is not None:
            chosen.append(f"--filter=label={EXECUTION_LABEL}={execution}")
        label = f'{{{{.Label "{EXECUTION_LABEL}"}}}}' if self.kind == DOCKER else f'{{{{index .Labels "{EXECUTION_LABEL}"}}}}'
        return [self.program, "ps", "--all", "--no-trunc", *chosen, "--format", "{{.ID}} " + label]

    def remove(self, ids: list[str]) -> list[str]:
        """The argv that ends containers, whatever they do, and removes them."""
        return [self.program, "rm", "--force", *ids]

    def main_process(self, execution: int) -> list[str]:
        """The argv that tells the pid of a container's main process."""
        return [self.program, "inspect", "--format", "{{.State.Pid}}", self.name(execution)]

    def short_of_memory(self, execution: int, since: float) -> list[str] | None:
        """The argv that writes a line if a container ran out of its memory since then (seconds since the epoch)."""
        if self.kind != DOCKER:  # podman keeps no such event
            return None
        chosen = ["--filter=event=oom", f"--filter=container={self.name(execution)}"]
        return [self.program, "events", f"--since={since:.0f}", "--until=0s", *chosen, "--format={{.Action}}"]

    def clear(self, image: str, directory: str) -> list[str]:
        """The argv that removes what containers made in a directory and this user may not touch."""
        mount = f"--mount={_mount(directory, '/scitq')}"
        inside = [f"/scitq/{name}" for name in MOUNTS]
        return [
            self.program, "run", "--rm", "--pull=never", "--network=none", "--user=0:0", mount, "--entrypoint=rm", _image(image),
            "-rf", *inside,
        ]  # fmt: skip

    # --- images ---------------------------------------------------------------------------------------------------------

    def has(self, image: str) -> list[str] | None:
        """The argv that succeeds if an image is here; None if the engine fetches images itself when it runs them."""
        return [self.program, "image", "inspect", "--format={{.Id}}", _image(image)] if self.owns_containers else None

    def pull(self, image: str) -> list[str]:
        """The argv that fetches an image, with the logins of the user's own file."""
        return [self.program, "pull", "--quiet", _image(image)]


def find(asked: str | None, worker: str, path: str | None = None) -> Engine:
    """The engine asked for (by kind or path of its program), else the first there is. Raises EngineAway, InvalidRequest."""
    if asked:
        kind = kind_of(asked)
        program = shutil.which(asked, path=path)
        if program is None:
            raise EngineAway(
                f"the container engine {asked} is not installed on the worker's machine: install it there, or name another one"
            )
        return Engine(kind, os.path.abspath(program), worker)
    for kind in ENGINES:
        if program := shutil.which(kind, path=path):
            return Engine(kind, os.path.abspath(program), worker)
    raise EngineAway("no container engine is installed on the worker's machine: install docker, podman or apptainer there")


def kind_of(asked: str) -> str:
    """The kind of engine that a name or path means. Raises InvalidRequest naming those known."""
    name = os.path.basename(asked)
    for kind in ENGINES:
        if name.startswith(kind):
            return kind
    raise InvalidRequest(
        f"{asked!r} is no container engine{nearest(name, ENGINES)}: {', '.join(ENGINES)} are known", field="engine"
    )


def apptainer_image(image: str) -> str:
    """An image as apptainer names it: a file, or a URI; what docker would take comes from a registry."""
    return image if "://" in image or image.startswith(("/", "./")) or image.endswith(".sif") else f"docker://{image}"


# --- its words ----------------------------------------------------------------------------------------------------------


def _image(image: str) -> str:
    if image.startswith("-") or not image.split():
        raise ValueError(f"{image!r:.200} is no container image")
    return image


def _options(text: str | None) -> list[str]:
    try:
        return shlex.split(text or "")
    except ValueError as error:
        raise ValueError(f"the container options cannot be split into words ({error}): check their quotes") from None


def _mounts(directory: str) -> list[tuple[str, str]]:
    found = [(os.path.join(directory, name), target) for name, target in MOUNTS.items()]
    return found + ([(_DATA, _DATA)] if os.path.isdir(_DATA) else [])


def _mount(source: str, target: str) -> str:
    """The value of `--mount`: a line of CSV, so that a path may have any character."""
    text = f"source={source}".replace('"', '""')
    return f'type=bind,"{text}",target={target}{",readonly" if target == MOUNTS["resource"] else ""}'


# --- variables ----------------------------------------------------------------------------------------------------------


def variables_file(variables: Mapping[str, str]) -> bytes:
    """The content of ENV_FILE. Secrets come this way: neither in the words of a command nor in the client's environment."""
    odd = odd_variables(variables)
    return "".join(f"{name}={value}\n" for name, value in variables.items() if name not in odd).encode()


def odd_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Those that a file of lines cannot hold: the client inherits them and passes them on."""
    return {name: value for name, value in variables.items() if not _is_plain(name, value)}


def _is_plain(name: str, value: str) -> bool:
    try:
        size = len(f"{name}={value}".encode())
    except UnicodeEncodeError:  # bytes of no text
        return False
    return size < _LONGEST_LINE and not re.search(r"[\r\n]", value) and not name.startswith("#") and not name.endswith("*")


# --- what failures mean -------------------------------------------------------------------------------------------------

_AWAY = re.compile(
    r"cannot connect to (the docker daemon|podman)|is the docker daemon running|error during connect|error waiting for container"
    r"|permission denied while trying to connect|docker\.sock: connect: |unexpected EOF|server is shutting down",
    re.I,
)
_PASSES = re.compile(
    r"no such host|timeout|timed out|connection re(fused|set)|temporary failure|network is unreachable|too ?many ?requests"
    r"|i/o error|\b50[0234]\b|service unavailable|\bEOF\b|no route to host|server misbehaving",
    re.I,
)
_NOT_A_PROGRAM = re.compile(  # as runc says it, and as docker's init does
    r'exec: "(.*?)": (?:stat .*: )?(executable file not found|no such file|permission denied)'
    r"|^\[FATAL tini \(\d+\)\] exec (.*) failed: (no such file|permission denied)",
    re.I | re.M,
)
_PREFIX = re.compile(r'^(docker: |podman: |error: |error response from daemon: |fatal: +|time="[^"]*" level=\w+ msg=)+', re.I)
_IS_ITS_OWN = re.compile(r"^(docker|podman|Error): |(Run|See) '(docker|podman) run --help'", re.M)
# Podman, of a program of its own: its exit code is that of the command then.
_LACKS = re.compile(r"^Error: could not find \S+, ", re.M)
_NOISE = re.compile(r"^(run '.*--help'|see '.*--help'|usage:|\s|warning|using default tag|trying to pull)", re.I)


def is_away(text: str) -> bool:
    """Whether the words of a client say that its engine does not answer."""
    return bool(_AWAY.search(text))


def passes(text: str) -> bool:
    """Whether a failed pull may succeed later."""
    return bool(_PASSES.search(text))


def sentence(text: str) -> str:
    """The one line of a client's words that says what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not _NOISE.match(line)]
    marked = [line for line in lines if _PREFIX.match(line)]
    found = (marked or lines or ["it did not say why"])[-1]
    return _PREFIX.sub("", found).strip('"').strip()[:500]


def away_sentence(kind: str, text: str) -> str:
    """That an engine does not answer, for the state of the worker."""
    return f"{kind} does not answer on the worker's machine ({sentence(text)}): start it there, or let the worker's user reach it"


def is_doubtful(end: Mapping) -> bool:
    """Whether the end of a client says too little of its container."""
    return end["kind"] not in (ends.EXITED, ends.UNSTARTABLE) or end["exit_code"] in _DOUBTFUL


def judged(end: Mapping, kind: str, image: str, said: str, short_of_memory: bool) -> dict:
    """The end of a container, from that of its client and what this wrote last."""
    code = end.get("exit_code")
    if end["kind"] == ends.SIGNALED:
        return {**end, "kind": ends.INTERRUPTED, "message": f"the {kind} client of its container was killed"}
    if end["kind"] != ends.EXITED:
        return dict(end)
    if code == ENGINE_FAILED and is_away(said):
        return {**end, "kind": ends.INTERRUPTED, "message": f"{kind} does not answer or was stopped: {sentence(said)}"}
    if (code == ENGINE_FAILED and _IS_ITS_OWN.search(said)) or (code == NOT_FOUND and _LACKS.search(said)):
        return {**end, "message": f"{kind} could not run its container: {sentence(said)}"}
    if short_of_memory:
        return {**end, "message": "its container ran out of memory"}
    fault = command_fault(said, code or 0, image)
    return {**end, "message": fault} if fault else dict(end)


def command_fault(text: str, code: int, image: str) -> str | None:
    """Why the command of a container could not start (exit codes 126 and 127), if it is the engine that says so."""
    found = _NOT_A_PROGRAM.search(text) if code in (NOT_EXECUTABLE, NOT_FOUND) else None
    if found is None:
        return None
    what = "cannot be executed" if "denied" in (found[2] or found[4]).lower() else "was not found"
    return f"the command {found[1] or found[3]!r} {what} in the image {image}"
