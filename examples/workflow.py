"""A workflow of three linked steps. With a server and a worker there (`scitq server`, `scitq worker 127.0.0.1 4`):

    PYTHONPATH=dist/scitq.pyz python3 examples/workflow.py

Start it again: what succeeded is not done again. Change a command, and that step and what needs it are.
"""

import os

from scitq.workflow import Workflow, shell_code

SAMPLES = {"p1": (3, 17), "p2": (5, 8), "p3": (1, 40)}

with Workflow("squares", shell=True, retry=1, base_storage=os.path.abspath("squares")) as wf:
    for name, (first, last) in SAMPLES.items():
        numbers = wf.step("numbers", f"seq {first} {last} > $OUTPUT/numbers.txt", name=name, rel_output=f"numbers/{name}")
        square = wf.step(
            "square",
            shell_code("""
                while read number; do
                    echo $((number * number))
                done < $INPUT/numbers.txt > $OUTPUT/squares.txt
            """),
            name=name, input=numbers.output, rel_output=f"square/{name}", required_tasks=numbers,
        )  # fmt: skip
    report = wf.step(
        "report",
        "for file in $INPUT/*/squares.txt; do echo $(basename $(dirname $file)) $(wc -l < $file); done | tee $OUTPUT/report.txt",
        input=square.gather("output|mv:{name}"), rel_output="report", required_tasks=square.gather(),
    )  # fmt: skip

if wf.run():
    print(report.get_output(), end="")
