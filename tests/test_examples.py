"""The worked examples of batch files run, and leave what they say."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from env import ROOT

PROGRAM = [sys.executable, str(ROOT / "scitq.py")]
EXAMPLES = {  # file: words, and what files then hold
    "params.yaml": (["--set", "words=3", "--set", "order=tac"], {"words.txt": "six five four\nthree two one\n"}),
    "rows.yaml": ([], {"p1.sum": "p1 2 200\n", "p2.sum": "p2 1 200\n"}),
    "glob.yaml": (["--set", "files=r*.csv"], {"rows.lines": "5\n"}),
    "lines.yaml": ([], {"alpha.hello": "hello alpha\n", "beta.hello": "hello beta\n"}),
    "matrix.yaml": ([], {"5-2-up.txt": "1 3 5\n", "7-1-down.txt": "7 6 5 4 3 2 1\n"}),
    "steps.yaml": (
        [],
        {
            "report.txt": "p1/p1.count 30\np2/p2.count 5\nA/check.txt make:A 10\nB/check.txt make:B 20\nC/check.txt make:C 5\n",
            "out/merge/p1/came.txt": "A:\nreads.txt\n\nB:\nreads.txt\n",
        },
    ),
    "recruit.yaml": ([], {"primes-1.txt": "5\n13\n17\n29\n", "primes-2.txt": "3\n7\n11\n19\n23\n"}),
    "samples.yaml": ([], {"gut1.count": "4\n", "gut2.count": "2\n"}),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the examples, with reads: two of each mate."""
    copy = Path(shutil.copytree(ROOT / "examples", tmp_path / "examples"))
    (copy / "reads").mkdir()
    for sample, count in (("gut1", 2), ("gut2", 1)):
        for mate in (1, 2):
            with gzip.open(copy / "reads" / f"{sample}_{mate}.fastq.gz", "wt") as file:
                file.write("@r\nACGT\n+\nFFFF\n" * count)
    return copy


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_runs(env, folder, name):
    words, expected = EXAMPLES[name]
    done = subprocess.run(
        [*PROGRAM, "run", "-q", name, *words], cwd=folder, env=env.variables, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {file: (folder / file).read_text() for file in expected} == expected
    assert not env.leftovers()


def test_each_is_run():
    assert {path.name for path in (ROOT / "examples").glob("*.yaml")} == {"first.yaml", *EXAMPLES}
