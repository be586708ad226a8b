"""Tasks in containers, with real engines: docker and podman, each set up by the test itself."""

from __future__ import annotations

import os
import signal
import socket
import tarfile
from pathlib import Path

import pytest
from engines import IMAGE, REGISTRY_PASSWORD, Docker, Podman, Registry
from env import Env
from scitq.container import Engine, find, judged
from scitq.protocol import KILL_GRACE_SECONDS
from strikes import changed_program

HOST = "--network host"  # the tests' engines have no network of their own


@pytest.fixture(scope="module")
def docker(tmp_path_factory):
    made = Docker(tmp_path_factory.mktemp("docker"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    made = Podman()
    yield made
    made.close()


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    made = Registry(tmp_path_factory.mktemp("registry") / "it")
    yield made
    made.close()


@pytest.fixture(params=["docker", "podman"])
def engine(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def labs(tmp_path_factory):
    """One server and one worker an engine, for all tests that leave them as they were."""
    made: dict[str, Env] = {}

    def lab(engine) -> Env:
        if engine.kind not in made:
            env = made[engine.kind] = Env(tmp_path_factory.mktemp(f"lab-{engine.kind}"))
            worker(env, engine, 2)
        return made[engine.kind]

    yield lab
    for env in made.values():
        env.close()


@pytest.fixture
def lab(labs, engine):
    return labs(engine)


@pytest.fixture
def docker_lab(labs, docker):
    return labs(docker)


@pytest.fixture(scope="module")
def brisk(docker, tmp_path_factory):
    """As `docker_lab`, with a shorter grace, and more looks at what containers use."""
    env = Env(tmp_path_factory.mktemp("brisk"))
    quicker = {"protocol": {"KILL_GRACE_SECONDS": 2.0, "POLL_SECONDS": 1.0}, "worker/service": {"MEASURE_SECONDS": 1.0}}
    env.program = changed_program(env.directory / "copy", quicker)
    worker(env, docker)
    yield env
    env.close()


def worker(env, engine, slots: int = 2, **more):
    """A server and a worker that uses this engine."""
    env.server()
    env.variables |= engine.variables
    return env.worker(slots, "--engine", engine.program, **more)


def script(text: str, **more) -> dict:
    return {"command": text, "shell": "sh", "container": IMAGE, "container_options": HOST, **more}


def run(env, *specs: dict, state: str = "succeeded", seconds: float = 60.0) -> list[dict]:
    """Runs tasks to their end; the last execution of each."""
    tasks = env.create(*specs)
    env.wait_state(tasks, state, seconds=seconds)
    return [env.executions(task)[-1] for task in tasks]


def signal_task(env, task: int, action: str) -> None:
    env.api("POST", "/tasks/signal", {"ids": [task], "action": action})


def started(env, engine, *specs: dict) -> list[int]:
    """Tasks whose commands run: each says so by a file in its output."""
    tasks = env.create(*specs)
    env.until(lambda: all(env.state(t) == "running" and env.stdout(t) for t in tasks), what="all have said something")
    return tasks


def until_gone(env, engine) -> None:
    env.until(lambda: not engine.containers(), what="no container is left")


# --- there and back -----------------------------------------------------------------------------------------------------


def test_what_a_container_sees(lab, engine, tmp_path):
    text = 'echo $INPUT $OUTPUT $RESOURCE $TEMP $CPU "$SCITQ_TASK_NAME" $SCITQ_BATCH "$SECRET" "$ODD" $PWD; id -u; id -g; exit 7'
    [one] = run(
        lab,
        script(text, name="a b", env={"SECRET": " x=#'\"$y ", "ODD": "two\nlines"}, uid=65534, gid=1234, workdir="/tmp"),
        state="failed",
    )
    cpus = max(1, len(os.sched_getaffinity(0)) // 2)
    said = f"/input /output /resource /tmp {cpus} a b Default  x=#'\"$y  two\nlines /tmp\n65534\n1234\n"
    assert lab.stdout(one["task_id"]).decode() == said
    assert one["exit_code"] == 7 and one["reason"] is None


def test_its_streams_come_byte_for_byte(lab, engine):
    [one] = run(lab, script("printf 'a\\000b\\377'; seq 20000 >&2"))
    assert lab.stdout(one["task_id"]) == b"a\0b\xff"
    assert lab.stdout(one["task_id"], "stderr") == "".join(f"{n}\n" for n in range(1, 20001)).encode()


def test_data_comes_and_goes(lab, engine, tmp_path):
    """As a user would say it: launch with an image, inputs, a resource with an action, an output."""
    store = tmp_path / "store"
    (store / "in").mkdir(parents=True)
    (store / "in/reads").write_text("ACGT\n")
    with tarfile.open(store / "db.tgz", "w:gz") as tar:
        tar.add(store / "in/reads", "ref/seq")
    command = "cat /input/reads /resource/ref/seq > /output/all; touch /resource/ref/x || echo read-only"
    command += "; mkdir /output/d; echo x > /output/d/y"
    words = [
        "-d",
        IMAGE,
        "-O",
        HOST,
        "-i",
        f"file://{store}/in/reads",
        "-r",
        f"file://{store}/db.tgz|untar",
        "-o",
        f"file://{store}/out",
    ]
    task = lab.launch(*words, "--shell", command)
    lab.wait_state(task)
    assert (store / "out/all").read_text() == "ACGT\nACGT\n" and (store / "out/d/y").read_text() == "x\n"
    assert lab.stdout(task) == b"read-only\n"
    until_gone(lab, engine)


def test_an_image_with_a_user_of_its_own_writes_its_output(lab, engine, tmp_path):
    run(
        lab,
        script("echo x > $OUTPUT/y; echo z > $TEMP/z", output=f"file://{tmp_path}/out/", container_options=f"{HOST} -u nobody"),
    )
    assert (tmp_path / "out/y").read_text() == "x\n"


def test_links_to_the_machine_are_not_followed(docker_lab, docker, tmp_path):
    (tmp_path / "secret").write_text("of the machine")
    run(docker_lab, script(f"ln -s {tmp_path}/secret $OUTPUT/x; echo y > $OUTPUT/y", output=f"file://{tmp_path}/out/"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["y"]


def test_secrets_are_in_no_list_of_processes(docker_lab, docker):
    [task] = docker_lab.create(script("echo $TOKEN; sleep 100", env={"TOKEN": "s3cr3t-word"}))
    docker_lab.until(lambda: docker_lab.stdout(task) if docker_lab.state(task) == "running" else None)
    lines = [Path(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()]
    assert not [path for path in lines if path.exists() and b"s3cr3t-word" in path.read_bytes()]
    signal_task(docker_lab, task, "kill")
    docker_lab.wait_state(task, "failed")


def test_directories_go_with_what_root_made_in_them(docker_lab, docker):
    [one] = run(docker_lab, script("mkdir -p $OUTPUT/a/b; echo x > $OUTPUT/a/b/c; chmod 0 $OUTPUT/a; touch $INPUT/x $TEMP/y"))
    executions = docker_lab.processes[1].directory / "executions"
    docker_lab.until(lambda: not list(executions.glob(f"{one['id']}*")), what="nothing of it is left")


# --- stop, suspend, time limit ------------------------------------------------------------------------------------------

PLAIN = "echo on; while :; do sleep 0.1; done"
LOOP = (
    "trap 'exit 143' TERM; " + PLAIN
)  # a first process hears only what it asked for, and not every engine has an init before it
STUBBORN = "trap '' TERM; " + PLAIN


@pytest.mark.parametrize("action", ["kill", "term"])
def test_a_stopped_task_leaves_no_container(lab, engine, action):
    [task] = started(lab, engine, script(LOOP))
    signal_task(lab, task, action)
    lab.wait_state(task, "failed", seconds=KILL_GRACE_SECONDS - 1)
    assert lab.executions(task)[-1]["reason"].startswith(f"ended on request ({action})")
    until_gone(lab, engine)


def test_a_command_hears_the_signal(docker_lab, docker):
    [task] = started(docker_lab, docker, script("trap 'echo heard; exit 3' TERM; " + PLAIN))
    signal_task(docker_lab, task, "term")
    docker_lab.wait_state(task, "failed")
    assert docker_lab.stdout(task) == b"on\nheard\n" and docker_lab.executions(task)[-1]["exit_code"] == 3


@pytest.mark.slow
def test_who_does_not_heed_it_is_killed_after_the_grace(brisk, docker):
    [task] = started(brisk, docker, script(STUBBORN))
    signal_task(brisk, task, "term")
    brisk.wait_state(task, "failed")
    until_gone(brisk, docker)


def test_suspended_is_paused(lab, engine):
    [task] = started(lab, engine, script("trap 'exit 143' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"))
    signal_task(lab, task, "suspend")
    lab.until(lambda: engine.containers("--filter=status=paused"), what="it is paused")
    assert lab.task(task)["suspended"] and lab.state(task) == "running"
    signal_task(lab, task, "resume")
    lab.until(lambda: not engine.containers("--filter=status=paused"), what="it goes on")
    signal_task(lab, task, "suspend")
    lab.until(lambda: engine.containers("--filter=status=paused"), what="it is paused again")
    signal_task(lab, task, "term")
    lab.wait_state(task, "failed", seconds=KILL_GRACE_SECONDS - 1)
    until_gone(lab, engine)


def test_the_time_limit_ends_the_container(docker_lab, docker):
    [one] = run(docker_lab, script(PLAIN, run_timeout=1), state="failed")
    assert "time limit of 1 s" in one["reason"] and one["exit_code"] is not None
    until_gone(docker_lab, docker)


def test_stopped_before_it_is_there(docker_lab, docker):
    """The order comes while the engine still makes the container: it must not be forgotten."""
    for _ in range(3):
        [task] = docker_lab.create(script(LOOP))
        docker_lab.wait_state(task, "running")
        signal_task(docker_lab, task, "kill")
        docker_lab.wait_state(task, "failed")
        until_gone(docker_lab, docker)


# --- who dies -----------------------------------------------------------------------------------------------------------


def test_it_outlives_its_worker(env, engine):
    process = worker(env, engine)
    [task] = started(env, engine, script("echo one; while [ ! -e $TEMP/go ]; do sleep 0.1; done; echo two; exit 5"))
    process.kill9()
    process.start()
    [temp] = (process.directory / "executions").glob("*/temp")
    (temp / "go").touch()
    env.wait_state(task, "failed")
    assert env.stdout(task) == b"one\ntwo\n" and env.executions(task)[-1]["exit_code"] == 5
    assert len(env.executions(task)) == 1


def test_it_ends_with_its_keeper_and_runs_again(env, engine):
    env.orphans_expected = True
    worker(env, engine)
    [task] = started(env, engine, script(LOOP))
    [before] = engine.containers()
    [keeper] = [pid for pid, line in env.leftovers().items() if "keeper" in line.split()]
    os.kill(keeper, signal.SIGKILL)
    env.until(lambda: len(env.executions(task)) == 2 and env.state(task) == "running", what="it runs again")
    assert env.executions(task)[0]["state"] == "lost" and "was killed" in env.executions(task)[0]["reason"]
    env.until(lambda: engine.containers() and before not in engine.containers(), what="the first container is gone")
    signal_task(env, task, "kill")
    env.wait_state(task, "failed")
    until_gone(env, engine)


def test_both_die_and_the_next_worker_ends_what_runs(env, docker):
    env.orphans_expected = True
    process = worker(env, docker)
    [task] = started(env, docker, script(LOOP))
    [before] = docker.containers()
    [keeper] = [pid for pid, line in env.leftovers().items() if "keeper" in line.split()]
    process.kill9()
    os.kill(keeper, signal.SIGKILL)
    clients = [pid for pid, line in env.leftovers().items() if f"--name={before}" in line]
    for pid in clients:
        os.kill(pid, signal.SIGKILL)
    assert clients and docker.containers() == [before], "the container outlives its client"
    process.start()
    env.until(lambda: len(env.executions(task)) == 2 and env.state(task) == "running", what="it runs again")
    assert before not in docker.containers()
    signal_task(env, task, "kill")
    env.wait_state(task, "failed")


def test_a_client_that_is_killed_takes_its_container_along(lab, engine):
    [task] = started(lab, engine, script(LOOP))
    [client] = [pid for pid, line in lab.leftovers().items() if "--name=scitq-" in line and "conmon" not in line]
    os.kill(client, signal.SIGKILL)
    lab.until(lambda: len(lab.executions(task)) == 2 and lab.state(task) == "running", what="it runs again")
    assert "client of its container was killed" in lab.executions(task)[0]["reason"]
    assert len(engine.containers()) <= 1
    signal_task(lab, task, "kill")
    lab.wait_state(task, "failed")
    until_gone(lab, engine)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_dockerd_that_crashes_costs_no_retry(env, docker):
    worker(env, docker)
    [task] = started(env, docker, script(LOOP))
    docker.kill9()
    try:
        env.until(lambda: env.items("/workers")[0]["state"] == "unfit", what="the worker says so")
        assert "docker does not answer" in env.items("/workers")[0]["problem"]
        assert env.state(task) == "running", "its container may run still"
    finally:
        docker.start()
    runs_again = "it runs again"  # a dockerd can take minutes to find that a container is gone
    env.until(lambda: len(env.executions(task)) == 2 and env.state(task) == "running", seconds=200, what=runs_again)
    assert env.executions(task)[0]["state"] == "lost"
    env.until(lambda: len(docker.containers()) == 1, what="the first one's container is gone")
    signal_task(env, task, "kill")
    env.wait_state(task, "failed")


@pytest.mark.slow
def test_an_engine_that_is_stopped_costs_no_retry(env, docker):
    worker(env, docker)
    [task] = started(env, docker, script(LOOP))
    docker.process.send_signal(signal.SIGTERM)
    docker.process.wait(60)
    try:
        env.until(lambda: env.executions(task)[0]["state"] == "lost", what="it is lost")
    finally:
        docker.start()
    env.until(lambda: len(env.executions(task)) == 2 and env.state(task) == "running", what="it runs again")
    signal_task(env, task, "kill")
    env.wait_state(task, "failed")
    until_gone(env, docker)


# --- what is wrong ------------------------------------------------------------------------------------------------------


def test_an_engine_that_is_away_fails_nothing(env, docker, tmp_path):
    env.server()
    env.variables |= docker.variables | {"DOCKER_HOST": f"unix://{tmp_path}/socket"}
    env.worker(1, "--engine", docker.program)
    [task] = env.create(script("echo x"))
    env.until(lambda: env.items("/workers")[0]["state"] == "unfit", what="the worker says so")
    assert "docker does not answer" in env.items("/workers")[0]["problem"]
    env.until(lambda: env.state(task) == "pending", what="it is given back")
    (tmp_path / "socket").symlink_to(docker.socket)
    env.wait_state(task)


def test_without_an_engine_the_worker_says_what_to_install(env):
    env.server()
    env.worker(1, "--engine", "podman-of-nobody")
    [task] = env.create(script("true"))
    env.until(lambda: "install it there" in (env.items("/workers")[0]["problem"] or ""), what="the worker says so")
    env.until(lambda: env.state(task) == "pending", what="it is given back")


def test_an_engine_that_nobody_knows_is_refused(env):
    env.server()
    done = env.cli("worker", env.url, "1", "--engine", "dokcer", code=2)
    assert "did you mean 'docker'?" in done.stderr


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ({"command": "nowhere", "shell": None}, 127, "'nowhere' was not found in the image"),
        ({"command": "/etc", "shell": None}, 126, "'/etc' cannot be executed in the image"),
        ({"container_options": "--no-such-option"}, 125, "could not run its container: unknown flag: --no-such-option"),
        ({"container_options": "'open"}, None, "container options cannot be split"),
        ({"container": "-v/:/x"}, None, "is no container image"),
        ({"command": "exit 125"}, 125, None),
    ],
)
def test_what_cannot_run_fails_with_a_sentence(lab, engine, spec, code, words):
    [one] = run(lab, script("true") | spec, state="failed")
    assert one["exit_code"] == code
    assert words in one["reason"] if words else one["reason"] is None
    until_gone(lab, engine)


def test_options_cannot_take_a_container_away(docker_lab, docker):
    [one] = run(
        docker_lab,
        script("echo x; exit 3", container_options=f"{HOST} -d --name other --rm=false --label scitq.worker=x"),
        state="failed",
    )
    assert one["exit_code"] == 3 and docker_lab.stdout(one["task_id"]) == b"x\n"
    until_gone(docker_lab, docker)


def test_out_of_its_memory_is_said(docker_lab, docker):
    [one] = run(
        docker_lab,
        script("x=$(head -c 200000000 /dev/zero | tr '\\0' x)", container_options=f"{HOST} --memory 20m"),
        state="failed",
    )
    assert one["exit_code"] == 137 and "out of memory" in one["reason"]


@pytest.mark.slow
def test_what_a_container_uses_is_measured(brisk, docker):
    """After the first look, that is: memory and processor time are its own, not those of the engine's client."""
    text = "x=$(head -c 100000000 /dev/zero | tr '\\0' x); while [ ! -e $TEMP/end ]; do :; done"
    [task] = brisk.create(script(text))
    brisk.until(lambda: (brisk.executions(task)[-1]["peak_memory_bytes"] or 0) > 90e6, what="its memory is known")
    brisk.until(lambda: brisk.executions(task)[-1]["cpu_seconds"] > 0.5, what="its processor time is known")
    signal_task(brisk, task, "kill")
    brisk.wait_state(task, "failed")
    assert brisk.executions(task)[-1]["peak_memory_bytes"] > 90e6


# --- images -------------------------------------------------------------------------------------------------------------


def test_images_of_a_private_registry(docker_lab, docker, registry):
    """With the login of the worker's user the image comes before the start, without it the pull is refused."""
    image = registry.image("team/tool:1")
    docker.ask("tag", IMAGE, image)
    docker.ask("login", "-u", "ann", "-p", REGISTRY_PASSWORD, registry.image(""))
    docker.ask("push", image)
    docker.ask("rmi", image)
    [one, absent] = docker_lab.create(
        script("echo pulled", container=image), script("true", container=registry.image("team/none:1"))
    )
    docker_lab.wait_state(one)
    docker_lab.wait_state(absent, "failed")
    [execution] = docker_lab.executions(absent)
    assert "cannot be pulled by docker: manifest" in execution["reason"] and execution["started_at"] is None
    docker.ask("logout", registry.image(""))
    docker.ask("rmi", image)
    [refused] = run(docker_lab, script("true", container=image), state="failed")
    assert "cannot be pulled by docker" in refused["reason"] and "no basic auth" in refused["reason"]


def test_a_pull_that_does_not_come_ends_with_the_time_limit_of_downloads(docker_lab, docker):
    """A registry that says nothing at all; the task is accepted meanwhile, and another one runs."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/x:1"
        [task, other] = docker_lab.create(script("true", container=image, download_timeout=3), script("echo x"))
        docker_lab.wait_state(other)
        assert docker_lab.state(task) == "accepted"
        docker_lab.wait_state(task, "failed")
    assert "(download_timeout)" in docker_lab.executions(task)[-1]["reason"]


# --- apptainer, by its documentation --------------------------------------------------------------------------------------


def test_apptainer_is_told_what_its_manual_says(tmp_path):
    program = tmp_path / "apptainer"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    engine = find(None, "w", path=str(tmp_path))
    assert engine == Engine("apptainer", str(program), "w") and engine.verbs(1) is None and engine.has("x") is None
    task = {"container": "busybox", "container_options": "--nv", "workdir": "/output"}
    argv = engine.run(1, task, ["echo", "a b"], "/s/1", {})
    binds = [f"--bind=/s/1/{name}:{target}" for name, target in (("input", "/input"), ("output", "/output"), ("temp", "/tmp"))]
    assert argv[:5] == [str(program), "run", "--cleanenv", "--contain", "--no-home"] and set(binds) < set(argv)
    assert "--bind=/s/1/resource:/resource:ro" in argv and argv[-5:] == [
        "--pwd=/output",
        "--nv",
        "docker://busybox",
        "echo",
        "a b",
    ]
    assert engine.run(1, {"container": "/i/x.sif"}, ["true"], "/s/1", {})[-2:] == ["/i/x.sif", "true"]
    assert engine.environment({"A": "x\ny"}) == {"APPTAINERENV_A": "x\ny"}


def test_a_container_that_is_a_child_is_signaled_as_any_command(env, tmp_path):
    """What looks like apptainer runs the words behind the image, as apptainer does: below itself."""
    program = tmp_path / "apptainer"
    program.write_text('#!/bin/sh\nwhile [ "${1#docker://}" = "$1" ]; do shift; done; shift\nCPU=$APPTAINERENV_CPU; "$@"\n')
    program.chmod(0o755)
    env.server()
    env.worker(2, "--engine", str(program))
    [task] = env.create(script("echo on $APPTAINERENV_OUTPUT; sleep 100", container_options=None))
    env.until(lambda: env.stdout(task) == b"on /output\n" if env.state(task) == "running" else None)
    signal_task(env, task, "term")
    env.wait_state(task, "failed", seconds=KILL_GRACE_SECONDS - 1)


def test_a_program_that_the_engine_lacks_is_not_the_commands():
    """As podman without root says it."""
    said = (
        "Error: could not find slirp4netns, the network namespace can't be configured: "
        'exec: "slirp4netns": executable file not found in $PATH\n'
    )
    end = judged({"kind": "exited", "exit_code": 127}, "podman", IMAGE, said, False)
    assert end["message"].startswith("podman could not run its container: could not find slirp4netns")
