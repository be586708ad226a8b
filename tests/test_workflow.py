"""Workflows: declared lazily, sent whole, found again, watched until nothing can happen any more, tidied up."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from env import ROOT
from scitq.errors import InvalidRequest, NotFound
from scitq.lib import Server
from scitq.workflow import Workflow, shell_code


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
    return {f"{row['batch']}/{row['name']}".removeprefix(f"{batch}."): row for row in lab.items("/tasks") if row["batch"].startswith(f"{batch}.")}


def chain(wf: Workflow, names: str = "ab", command: str = "echo {}") -> None:
    for name in names:
        made = wf.step("make", command.format(name), name=name)
        used = wf.step("use", f"echo used {name}", name=name, required_tasks=made)
    wf.step("sum", "echo sum", required_tasks=used.gather())


# --- declared and sent ----------------------------------------------------------------------------------------------------


def test_a_plain_worker_serves_all_steps(lab, make, batch, tmp_path, capfd):
    with make(shell=True, base_storage=f"{tmp_path}/store", retry=1) as wf:
        for name in ("a", "b"):
            made = wf.step("make", f"echo {name} > $OUTPUT/x; mkdir $OUTPUT/sub; echo sub > $OUTPUT/sub/y", name=name, rel_output=f"make/{name}")
            used = wf.step("use", "cat $INPUT/x > $OUTPUT/used", name=name, input=made.output, rel_output=f"use/{name}", required_tasks=made)
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
