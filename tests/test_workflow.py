"""Workflows: declared lazily, sent whole, found again, watched until nothing can happen any more, tidied up."""

from __future__ import annotations

import inspect
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from env import ROOT, started
from scitq.errors import InvalidRequest, NotFound
from scitq.lib import Server
from scitq.workflow import Summary, Workflow, shell_code

PAGE = ROOT / "docs" / "workflows.md"
DOCUMENTED = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)


@pytest.fixture
def server(lab):
    with Server(lab.url, token=lab.token) as server:
        yield server


@pytest.fixture
def make(server, batch):
    """Makes the workflow of a test, as often as its script is started."""
    return lambda **options: Workflow(batch, server=server, **options)


def tasks(lab, batch: str) -> dict[str, dict]:
    """What the server has of a workflow, by batch and name."""
    return {
        f"{row['batch']}/{row['name']}".removeprefix(f"{batch}."): row
        for row in lab.items("/tasks")
        if row["batch"].startswith(f"{batch}.")
    }


def chain(wf: Workflow, names: str = "ab", command: str = "echo {}") -> None:
    for name in names:
        made = wf.step("make", command.replace("{}", name), name=name)
        used = wf.step("use", f"echo used {name}", name=name, required_tasks=made)
    wf.step("sum", "echo sum", required_tasks=used.gather())


# --- declared and sent ------------------------------------------------------------------------------------------------


def test_a_plain_worker_serves_all_steps(lab, make, batch, tmp_path, capfd):
    with make(shell=True, base_storage=f"{tmp_path}/store", retry=1) as wf:
        for name in ("a", "b"):
            made = wf.step(
                "make",
                f"echo {name} > $OUTPUT/x; mkdir $OUTPUT/sub; echo sub > $OUTPUT/sub/y",
                name=name,
                rel_output=f"make/{name}",
            )
            used = wf.step(
                "use", "cat $INPUT/x > $OUTPUT/used", name=name, input=made.output, rel_output=f"use/{name}", required_tasks=made
            )
        wf.step("sum", "cat $INPUT/*/used $INPUT/sub/y", input=used.gather("output|mv:{name}") + made.gather("output/sub|mv:sub"),
                required_tasks=[used.gather(), made])  # fmt: skip
        assert tasks(lab, batch) == {}, "nothing is sent before the end"
    summary = wf.run()
    assert summary and summary.ok and summary.counts == {"succeeded": 5}
    assert wf.steps[-1].get_output() == "a\nb\nsub\n" and wf.steps[-1].name == "sum #1"
    assert wf.steps[0].status == "succeeded" and wf.steps[0].retry == 1 and wf.steps[0].batch == f"{batch}.make"
    assert used.gather("state") == ["succeeded"] * 2 and used.gather("exit_code") == [0, 0]
    shown = capfd.readouterr()
    assert f"workflow {batch}: 5 tasks: 5 succeeded" in shown.out and "make  2 succeeded" in shown.out


def test_a_script_that_raises_half_way_queues_nothing(lab, make, batch):
    with pytest.raises(ZeroDivisionError), make() as wf:
        chain(wf)
        raise ZeroDivisionError
    assert tasks(lab, batch) == {} and not [row for row in lab.items("/batches") if row["name"].startswith(batch)]


def test_a_run_that_was_forgotten_is_told(lab, batch, tmp_path):
    (tmp_path / "script.py").write_text("from scitq.workflow import Workflow\nwf = Workflow('w')\nwf.step('a', 'true')\n")
    words, options = [sys.executable, "script.py"], {"cwd": tmp_path, "env": {**lab.variables, "PYTHONPATH": str(ROOT)}}
    done = subprocess.run(words, **options, timeout=100, capture_output=True, text=True, check=True)
    assert done.stderr == "workflow w: 1 step declared and not sent: submit() or run() sends them\n"


def test_asking_for_an_id_sends_all_that_was_declared(lab, make, batch):
    wf = make()
    chain(wf)
    assert wf.step("last", "true").id == max(row["id"] for row in tasks(lab, batch).values())
    assert set(tasks(lab, batch)) == {"make/a", "make/b", "use/a", "use/b", "sum/sum #1", "last/last #1"}
    assert wf.previous_step.name == "last #1" and wf.submit().ids == {}


def test_all_or_nothing(lab, make, batch):
    wf = make()
    chain(wf)
    wf.step("bad", "true", name="one", required_tasks=999_999_999)
    with pytest.raises(InvalidRequest, match=r"task 'one': require: there is no task 999999999") as raised:
        wf.submit()
    assert "\n" not in str(raised.value) and tasks(lab, batch) == {} and lab.items("/recruiters", batch=f"{batch}.make") == []
    wf = make()
    wf.step("made", "true", name="one")
    wf.step("bad", "true", region="a\nb")
    with pytest.raises(InvalidRequest, match="region: holds a newline"):
        wf.submit()
    assert tasks(lab, batch) == {}, "what has no workers is not queued"


def test_a_changed_step_that_is_refused_is_named(make):
    with make() as wf:
        wf.step("a", "true", name="one")
    wf = make()
    wf.step("a", "true", name="one", run_timeout=-1)
    with pytest.raises(InvalidRequest, match="task 'one': run_timeout: "):
        wf.submit()


def test_started_again_it_finds_what_it_sent(lab, make, batch):
    wf = make(shell=True)
    chain(wf)
    first = wf.run()
    again = make(shell=True)
    chain(again)
    kept = again.submit()
    assert first.ok and len(kept.kept) == 5 and again.steps[0].id == wf.steps[0].id
    grown = make(shell=True)
    chain(grown, "abc")
    applied = grown.submit()
    assert [name for _, name in applied.created] == ["c", "c"] and [name for _, name in applied.updated] == ["sum #1"]
    assert grown.run().ok
    changed = make(shell=True)
    chain(changed, "abc", "echo new {}")
    assert changed.run().ok
    assert {row["attempts"] for name, row in tasks(lab, batch).items() if name != "sum/sum #1"} == {2}
    assert tasks(lab, batch)["sum/sum #1"]["attempts"] == 3, "what needs changed ones is done again"


def test_what_is_secret_in_a_uri_is_no_change(lab, make, batch):
    [held] = lab.create({"command": "true", "batch": "nowhere"})

    def declare() -> Workflow:
        wf = make()
        wf.step("a", "true", input="https://me:secret@127.0.0.1/a", output="s3://b/c?X-Amz-Signature=abc", required_tasks=held)
        return wf

    assert len(declare().submit().created) == 1
    assert len(declare().submit().kept) == 1


def test_it_ends_when_what_is_left_waits_for_a_failure(lab, make, batch, capfd):
    wf = make(shell=True)
    chain(wf, "ab", "echo oh {} >&2; [ {} = a ]")
    summary = wf.run()
    assert not summary and summary.counts == {"succeeded": 2, "failed": 1, "waiting": 2}
    assert summary.failures == [("make/b", wf.steps[2].id, "exit code 1: oh b")]
    assert summary.blocked == [("use/b", "make/b is failed"), ("sum/sum #1", "make/b is failed")]
    shown = capfd.readouterr()
    assert "failed: make/b" in shown.err and "    | oh b" in shown.err, "as soon as it happens"
    assert "waits for ever: use/b, as make/b is failed" in shown.out and "start the script again" in shown.out
    mended = make(shell=True)
    chain(mended, "ab", "echo oh {}; true {}")
    assert mended.run().ok and tasks(lab, batch)["make/b"]["attempts"] == 2


def test_tasks_of_others_in_its_batches_are_not_its_own(lab, make, batch):
    [other] = lab.create({"command": "false", "batch": f"{batch}.make", "name": "foreign"})
    wf = make(shell=True)
    chain(wf)
    assert wf.run().counts == {"succeeded": 5}
    wf.clean(download_logs=False)
    assert [row["id"] for row in tasks(lab, batch).values()] == [other]


def test_two_workflows_of_one_name_share_nothing_in_this_process(make):
    one, two = make(), make()
    chain(one)
    assert two.steps == [] and len(two.step("make", "true", name="a").gather()) == 1


def test_a_killed_script_leaves_its_tasks_and_finds_them(lab, batch, tmp_path):
    (tmp_path / "script.py").write_text(
        "import sys\nfrom scitq.workflow import Workflow\nwf = Workflow(sys.argv[1], shell=True)\n"
        "held = wf.step('hold', 'while [ ! -e %s ]; do sleep 0.1; done', name='h')\n"
        "wf.step('then', 'echo then', required_tasks=held)\nsys.exit(0 if wf.run() else 10)\n" % (tmp_path / "gate")
    )  # fmt: skip
    words = [sys.executable, "script.py", batch]
    options = {"cwd": tmp_path, "env": {**lab.variables, "PYTHONPATH": str(ROOT)}, "stderr": subprocess.PIPE}
    script = subprocess.Popen(words, **options)
    lab.until(lambda: tasks(lab, batch).get("hold/h", {}).get("state") == "running", what="its task runs")
    script.send_signal(signal.SIGKILL)
    script.communicate()
    with started(words, **options, stdout=subprocess.PIPE) as script:
        assert b"2 tasks: 2 as they were" in script.stdout.readline()
        script.send_signal(signal.SIGINT)
        assert b"Traceback" not in script.stderr.read() and script.wait() == 130
    (tmp_path / "gate").touch()
    done = subprocess.run(words, **options, timeout=100)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    assert {row["attempts"] for row in tasks(lab, batch).values()} == {1} and len(tasks(lab, batch)) == 2


# --- recruiters -------------------------------------------------------------------------------------------------------


def recruiters(lab, batch: str) -> dict[str, dict]:
    """Those of a workflow, by batch and rank."""
    names = ("flavor", "provider", "region", "concurrency", "prefetch", "tasks_per_worker", "maximum_workers")
    return {
        f"{row['batch']} {row['rank']}".removeprefix(f"{batch}."): {name: row[name] for name in names if row[name] is not None}
        for row in lab.items("/recruiters") if row["batch"].startswith(f"{batch}.")
    }  # fmt: skip


def test_recruiters_of_its_batches(lab, make, batch):
    def declare(**options):
        wf = make(provider="nobody", flavor="auto:cpu>=8", max_workflow_workers=7, max_step_workers=5, rounds=3, **options)
        wf.step("a", "true", concurrency=4, prefetch=2)
        wf.step("b", "true", region="here", tasks_per_worker=9)
        wf.step("c", "true", rounds=None)
        wf.step("d", "true", provider=None, flavor=None, maximum_workers=None, rounds=None)
        return wf

    declare().submit()
    cloud = {"flavor": "auto:cpu>=8", "provider": "nobody", "region": "auto"}
    idle = {"flavor": "auto:cpu>=8", "maximum_workers": 5}
    assert recruiters(lab, batch) == {
        "a 1": {**cloud, "concurrency": 4, "prefetch": 2, "tasks_per_worker": 12, "maximum_workers": 5},
        "b 1": {**cloud, "region": "here", "tasks_per_worker": 9, "maximum_workers": 2},
        "b 2": {**idle, "tasks_per_worker": 9},
        "c 2": {**idle, "tasks_per_worker": 1},
        "d 1": {"tasks_per_worker": 1},
    }
    plain = make()
    for name in "abcd":
        plain.step(name, "true")
    plain.submit()
    assert recruiters(lab, batch) == {f"{name} 1": {"tasks_per_worker": 1} for name in "abcd"}
    plain.destroy()
    assert recruiters(lab, batch) == {}


# --- afterwards -------------------------------------------------------------------------------------------------------


def test_clean_saves_logs_and_keeps_what_failed(lab, make, batch, tmp_path):
    wf = make(shell=True)
    wf.step("say", "echo out; echo aside >&2", name="../a b")
    wf.step("say", "true", name="silent")
    wf.step("bad", "echo no; false", name="x")
    wf.run()
    wf.clean(log_destination=tmp_path / "logs")
    found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"logs/say/_a_b_output.log": "out\n", "logs/say/_a_b_error.log": "aside\n"}
    assert set(tasks(lab, batch)) == {"bad/x"} and recruiters(lab, batch) == {}
    wf.clean(force=True, download_logs=False)
    assert tasks(lab, batch) == {}


def test_download(lab, make, tmp_path):
    wf = make(shell=True, base_storage=str(tmp_path / "store"))
    one = wf.step("a", "echo 1 > $OUTPUT/one", rel_output="one")
    wf.step("a", "mkdir $OUTPUT/b; echo 2 > $OUTPUT/b/two", name="2", rel_output="two")
    wf.step("a", "echo 3 > $OUTPUT/three", name="a/1", rel_output="three")
    wf.step("z", "true")
    assert wf.run().ok
    wf.download(destination=tmp_path / "all")
    wf.download(f"{tmp_path}/store/two/b/two", tmp_path / "file")
    one.download(tmp_path / "one")
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} - {
        "store/one/one",
        "store/two/b/two",
        "store/three/three",
    }
    assert found == {"all/a/a_1/one", "all/a/a_1_2/three", "all/a/2/b/two", "file/two", "one/one"}


def test_paused_and_taken_up_again(lab, make, batch):
    wf = make()
    chain(wf)
    wf.pause()  # nothing is there yet
    wf.submit()
    wf.pause(suspend=True)
    assert all(row["stopped"] for row in lab.items("/batches") if row["name"] in wf.batches)
    wf.unpause()
    assert not any(row["stopped"] for row in lab.items("/batches") if row["name"] in wf.batches)
    wf.destroy()
    with pytest.raises(NotFound, match="batch"):
        lab.client.batch_get(wf.batches[0])


# --- what is wrong ----------------------------------------------------------------------------------------------------


def test_scripts():
    assert shell_code("\n    if true\n    then\n        echo 'it''s'\n    fi\n").text == "if true\nthen\n    echo 'it''s'\nfi"
    assert [shell_code(f"#!{line}\nx").shell for line in ("/bin/sh", "/usr/bin/env -S bash -e")] == ["sh", "bash"]
    assert shell_code("x").shell is None and shell_code("x", "bash").shell == "bash"


def test_a_script_is_a_command(server):
    wf = Workflow("scripts", server=server, shell=True)
    code = shell_code("[[ a == a ]]\necho b", "bash")
    assert (wf.step("a", code).shell, wf.step("a", shell_code("x")).shell, wf.step("a", code).command) == (
        "bash",
        "sh",
        "[[ a == a ]]\necho b",
    )
    assert (wf.step("a", "x", shell=None).shell, wf.step("a", "x", shell="bash").shell) == (None, "bash")


@pytest.mark.parametrize(
    "declare, message",
    [
        (lambda wf: [wf.step("a", "x", name="n") for _ in "12"],
         r"batch 'a' has two steps named 'n': give each a name of its own"),
        (lambda wf: wf.step("a", " "), r"command: must be a text that is not empty, or a shell_code"),
        (lambda wf: wf.step("", "x"), r"a batch needs a name, a text that is not empty, not ''"),
        (lambda wf: wf.step("a", "x", name=7), r"a step needs a name, a text that is not empty, not 7"),
        (lambda wf: wf.step("a", "x", required_tasks="b"), r"'b' has no id"),
        (lambda wf: wf.step("a", "x", concurrency=0), r"concurrency: must be a whole number from 1 on, not 0"),
        (lambda wf: wf.step("a", "x", flavor="auto:cpus>=8"), r"cpus"),
        (lambda wf: [wf.step("a", "x"), wf.step("a", "x", concurrency=2)],
         r"batch 'a' has concurrency=None since its first step, and this one says 2"),
        (lambda wf: wf.step("a", "x", provider="p", maximum_workers=1), r"batch 'a' has a provider and no flavor"),
        (lambda wf: wf.step("a", "x", provider="p", flavor="f"), r"batch 'a' has a provider and no limit"),
        (lambda wf: wf.step("a", "x", rel_output="o"), r"rel_output: the workflow has no base_storage"),
        (lambda wf: wf.step("a", "x", output="o", rel_output="o"), r"give `output` or `rel_output`, not both"),
        (lambda wf: wf.step("a", "x").gather("output"), r"step a/a #1 has no output that could be gathered"),
        (lambda wf: wf.step("a", "x").gather("name|mv:x"), r"a folder or an action is for 'output'"),
        (lambda wf: wf.step("a", "x").download("."), r"step a/a #1 has no output"),
        (lambda wf: shell_code("#!/usr/bin/env python3\nx"), r"'python3' is no shell: there are sh and bash"),
        (lambda wf: shell_code("x", "bsh"), r"'bsh' is no shell \(did you mean 'bash'\?\)"),
        (lambda wf: shell_code(" \n "), r"the script is empty"),
        (lambda wf: shell_code("x" * 200_000), r"a script holds at most 128 KiB"),
        (lambda wf: shell_code(None), r"shell_code: must be a text, not None"),
        (lambda wf: Workflow(""), r"a workflow needs a name"),
        (lambda wf: Workflow("w", server=5), r"server: 5 is not the address of a server \(it is no text\)"),
        (lambda wf: wf.step("a", "x", shell=["sh"]) and wf.submit(), r"task 'a #1': shell: is none"),
        (lambda wf: Workflow("a\nb"), r"the name of a workflow cannot hold a newline or another control character: 'a\\nb'"),
        (lambda wf: wf.step(["a"], "x"), r"a batch needs a name, a text that is not empty, not \['a'\]"),
        (lambda wf: wf.step("a", "x", flavor=5), r"flavor: must be a text that is not empty, or None, not 5"),
        (lambda wf: wf.step("a", "x", input=wf.step("b", "x")), r"input: wants a URI, and b/b #1 is a step: give its `output`"),
        (lambda wf: wf.step("a", "x", input=[None]), r"input: wants URIs, and one is None"),
        (lambda wf: wf.step("a", "x", output=5), r"output: wants a URI, a text, not 5"),
        (lambda wf: wf.step("a", "x", required_tasks=True), r"True has no id"),
        (lambda wf: wf.step("a", "x", env={"A": b"x"}), r"env.A: wants texts, .* not b'x', which are to be decoded"),
        (lambda wf: wf.step("a", "x", retry={1}), r"retry: wants texts, numbers, .* not \{1\}"),
        (lambda wf: wf.step("a", "x").gather("stat"), r"gather\('stat'\): a step has no such attribute .*'state'"),
        (lambda wf: wf.run(refresh=0), r"refresh: must be a number of seconds above 0, not 0"),
        (lambda wf: Workflow("w", max_workflow_workers=0), r"max_workflow_workers: must be a whole number from 1 on"),
        (lambda wf: Workflow("w", server=wf.server, debug=True).submit(), r"debug=True sends one task at a time"),
    ],
)  # fmt: skip
def test_one_sentence(server, declare, message):
    with pytest.raises(InvalidRequest, match=message) as raised:
        declare(Workflow("wrong", server=server))
    assert "\n" not in str(raised.value)


def test_failures_that_are_not_shown_are_counted():
    summary = Summary("w", {"a": {"failed": 25}, "b": {"failed": 1}}, [(f"a/{n}", n, "exit code 1") for n in range(21)])
    assert summary.lines()[-3:-1] == ["failed: a/19 (task 19): exit code 1", "... and 6 more failed"]


def test_a_step_tells_what_it_has_not(make):
    with pytest.raises(AttributeError, match=r"a step has no 'stat' \(did you mean 'state'\?\)"):
        _ = make().step("a", "x").stat


# --- what is shown to people ------------------------------------------------------------------------------------------


def run_script(lab, path: Path, cwd: Path) -> str:
    variables = {**lab.variables, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(path)], cwd=cwd, env=variables, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(DOCUMENTED)))
def test_what_the_page_shows_runs(lab, tmp_path, number):
    (tmp_path / "script.py").write_text(DOCUMENTED[number])
    shown = run_script(lab, tmp_path / "script.py", tmp_path)
    assert "workflow" in shown or "run()" not in DOCUMENTED[number]


def test_the_example(lab, tmp_path):
    example = ROOT / "examples" / "workflow.py"
    assert run_script(lab, example, tmp_path).endswith("p1 15\np2 4\np3 40\n")
    assert (tmp_path / "squares" / "report" / "report.txt").read_text() == "p1 15\np2 4\np3 40\n"
    assert "7 as they were" in run_script(lab, example, tmp_path)
    assert lab.items("/tasks", batch="squares.square")[0]["attempts"] == 1


def test_every_parameter_and_method_is_told():
    text = PAGE.read_text()
    names = {*inspect.signature(Workflow).parameters, *inspect.signature(Workflow.step).parameters} - {"self"}
    names |= {name for name in dir(Workflow) if not name.startswith("_")} - {
        "send",
        "declared",
        "id_of",
        "adopt",
        "task_of",
        "values",
    }
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()
