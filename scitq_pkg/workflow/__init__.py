"""Chains of tasks, written as a Python script: `from scitq.workflow import Workflow`.

    with Workflow("variants", container="lab/tools:1") as wf:
        for sample in samples:
            clean = wf.step("clean", f"fastp -i {sample}.fq.gz ...", name=sample, input=..., output=f"s3://lab/clean/{sample}")
            call = wf.step("call", "call ...", name=sample, input=clean.output, required_tasks=clean, output=...)
        wf.step("report", "report ...", input=call.gather("output|mv:{name}"), required_tasks=call.gather())
    wf.run()

Nothing is sent before `run`, `submit` or the end of `with`; then all of it is, or nothing.
"""

from __future__ import annotations

from .steps import Step, shell_code
from .summary import Summary
from .workflow import Workflow

__all__ = ["Step", "Summary", "Workflow", "shell_code"]
