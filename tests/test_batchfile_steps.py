"""Steps of batch files: same rows, values of other steps, gathered outputs, canaries, what is wrong."""

from __future__ import annotations

import json

import jsonschema
import pytest
from scitq.errors import InvalidRequest

from scitq import batchfile

SHEET = "sample,patient\nA,p1\nB,p1\nC,p2\n"


@pytest.fixture
def load(load, tmp_path):
    (tmp_path / "s.csv").write_text(SHEET)
    return load


def needs(file) -> dict[str, list]:
    return {task["name"]: task.get("require", []) for task in file.tasks}


MAKE = "each: s.csv\nsteps:\n- {step: make, command: 'm {sample}', output: 's3://o/{sample}'}\n"


# --- rows and names ---------------------------------------------------------------------------------------------------


def test_the_same_row_and_all_rows(load):
    file = load(MAKE + "- {step: use, command: u, needs: make}\n- {step: sum, command: s, each: ~, needs: [make.*, use]}\n")
    assert needs(file) == {
        "make:A": [], "make:B": [], "make:C": [], "use:A": ["make:A"], "use:B": ["make:B"], "use:C": ["make:C"],
        "sum": ["make:A", "make:B", "make:C", "use:A", "use:B", "use:C"],
    }  # fmt: skip
    assert (file.steps, file.summary) == (3, "7 tasks in 3 steps")


def test_a_row_of_fewer_columns_is_the_same_row_of_all_that_agree(load):
    grouped = "each: {csv: s.csv, group: patient}"
    file = load(
        MAKE + f"- {{step: join, command: 'j {{sample}}', needs: make, {grouped}}}\n- {{step: split, command: s, needs: join}}\n"
    )
    assert needs(file)["join:p1"] == ["make:A", "make:B"] and needs(file)["split:B"] == ["join:p1"]
    assert [task["command"] for task in file.tasks][3:5] == ["j A B", "j C"]


def test_rows_are_known_by_their_columns_not_their_places(load):
    file = load("""
steps:
- {step: a, each: [{x: 1, y: 1}, {x: 2, y: 2}], command: a}
- {step: b, each: [{z: 9, x: 2}], command: b, needs: a}
""")
    assert needs(file)["b:9"] == ["a:2"]


def test_a_matrix_is_part_of_the_row(load):
    file = load("""
matrix: {tool: [bwa, star]}
each: [x, y]
steps:
- {step: a, command: 'a {tool}'}
- {step: b, command: b, needs: a}
- {step: c, command: c, needs: b, matrix: ~}
- {step: d, command: d, needs: b, each: ~}
""")
    assert needs(file) == {
        "a:x-bwa": [], "a:x-star": [], "a:y-bwa": [], "a:y-star": [],
        "b:x-bwa": ["a:x-bwa"], "b:x-star": ["a:x-star"], "b:y-bwa": ["a:y-bwa"], "b:y-star": ["a:y-star"],
        "c:x": ["b:x-bwa", "b:x-star"], "c:y": ["b:y-bwa", "b:y-star"],
        "d:bwa": ["b:x-bwa", "b:y-bwa"], "d:star": ["b:x-star", "b:y-star"],
    }  # fmt: skip


def test_names_of_tasks(load):
    file = load("""
steps:
- {step: first, command: x, each: [{a: 1, b: 2}, {a: 2, b: 2}]}
- {step: number, command: x, each: [{a: 1, b: 2}, {a: 1, b: 3}]}
- {step: named, command: 'x {name}', each: [{a: 1, b: 2}], name: '{a}+{b}'}
- {step: one, command: x}
""")
    assert [task["name"] for task in file.tasks] == ["first:1", "first:2", "number:1", "number:2", "named:1+2", "one"]
    assert file.tasks[4]["command"] == "x named:1+2"


def test_a_step_may_stand_before_what_it_needs(load):
    assert list(needs(load("steps:\n- {step: b, command: b, needs: a}\n- {step: a, command: a}\n")).items()) == [
        ("b", ["a"]), ("a", []),
    ]  # fmt: skip


# --- values -----------------------------------------------------------------------------------------------------------


def test_values_of_another_step(load):
    file = load(
        MAKE
        + "- {step: use, command: 'u {make.output} {make.name:q}', input: '{make.output}x', env: {A: '{make.output:stem}'}}\n"
        "- {step: all, each: ~, command: 'a {make.output:q}', input: '{make.output}', needs: make.*}\n"
    )
    assert file.tasks[3] == {
        "name": "use:A", "batch": "Default", "command": "u s3://o/A make:A", "input": ["s3://o/Ax"], "env": {"A": "A"},
        "require": ["make:A"],
    }  # fmt: skip
    assert file.tasks[-1]["command"] == "a s3://o/A s3://o/B s3://o/C" == "a " + " ".join(file.tasks[-1]["input"])


# --- gather -----------------------------------------------------------------------------------------------------------


def test_outputs_of_all_rows(load):
    file = load(MAKE + "- {step: sum, command: s, input: x, gather: {from: make, only: '*.bam'}}\n")
    assert file.tasks[-1]["input"] == ["x", *(f"s3://o/{row}/|only:*.bam|mv:{row}" for row in "ABC")]
    assert needs(file)["sum"] == ["make:A", "make:B", "make:C"]


def test_outputs_by_a_column(load):
    file = load(MAKE + "- {step: sum, command: 's {patient} {sample}', gather: {from: make, only: a/b.txt, by: patient}}\n")
    assert [(task["name"], task["command"], task["input"]) for task in file.tasks[3:]] == [
        ("sum:p1", "s p1 A B", ["s3://o/A/a/b.txt|mv:A", "s3://o/B/a/b.txt|mv:B"]),
        ("sum:p2", "s p2 C", ["s3://o/C/a/b.txt|mv:C"]),
    ]


def test_gathered_rows_are_rows_for_the_next(load):
    file = load(
        MAKE + "- {step: sum, command: s, output: 's3://p/{patient}', gather: {from: make, by: [patient]}}\n"
        "- {step: end, command: e, gather: [{from: sum}, {from: make, only: x}]}\n- {step: back, command: b, needs: sum}\n"
    )
    [end] = [task for task in file.tasks if task["name"] == "end"]
    assert end["input"][:3] == ["s3://p/p1/|mv:p1", "s3://p/p2/|mv:p2", "s3://o/A/x|mv:A"]
    assert needs(file)["end"] == ["sum:p1", "sum:p2", "make:A", "make:B", "make:C"]
    assert needs(file)["back:B"] == ["sum:p1"]


def test_folders_of_gathered_rows_never_meet(load):
    file = load("""
each: [a/b, a b, ../c]
steps:
- {step: make, command: m, output: 's3://o/{row}/'}
- {step: sum, command: s, gather: {from: make}}
""")
    assert [uri.partition("|mv:")[2] for uri in file.tasks[-1]["input"]] == ["a_b", "a_b_2", "_c"]


# --- canaries ---------------------------------------------------------------------------------------------------------


def test_the_first_tasks_go_first(load):
    file = load("canary: 2\n" + MAKE + "- {step: use, command: u, needs: make}\n")
    assert needs(file)["make:C"] == ["make:A", "make:B"] and needs(file)["make:B"] == []
    assert needs(file)["use:C"] == ["make:C"] and file.canaries == {"make:C": ["make:A", "make:B"]}
    named = load("canary: {use: 1}\n" + MAKE + "- {step: use, command: u, needs: make}\n")
    assert needs(named)["use:B"] == ["make:B", "use:A"] and needs(named)["make:B"] == []


@pytest.fixture
def apply(env, load):
    env.server()
    from scitq.lib import Server

    with Server(env.url, token=env.token) as server:
        yield lambda text: batchfile.apply(server, load(text))


def test_a_canary_that_comes_or_goes_does_nothing_anew(env, apply):
    text = "each: [a, b, c]\nbatch: x\nsteps:\n- {step: make, command: 'true'}\n- {step: use, command: 'true', needs: make}\n"
    first = apply("canary: 1\n" + text)
    assert env.task(first.ids["make:b"])["require"] == [first.ids["make:a"]]
    env.worker(2, batch="x")
    env.wait_state(first.ids.values())
    assert apply(text).kept == first.ids
    assert apply("canary: 2\n" + text).kept == first.ids
    assert apply("canary: 1\n" + text.replace("[a, ", "[new, ")).kept.keys() == first.ids.keys() - {"make:a", "use:a"}


def test_a_canary_that_fails_is_mended_alone(env, apply):
    text = (
        "canary: 1\neach: [a, b]\nbatch: x\nsteps:\n"
        "- {step: make, shell: true, command: 'CHECK {item}'}\n- {step: use, command: 'true', needs: make}\n"
    )
    env.worker(2, batch="x")
    ids = apply(text.replace("CHECK", "exit 3; :")).ids
    env.wait_state(ids["make:a"], "failed")
    assert env.task(ids["make:b"])["attempts"] == 0
    env.api("POST", "/batches/x/stop", {})  # else it may have released the others before they are changed
    mended = apply(text.replace("CHECK", "echo"))
    assert list(mended.updated) == ["make:a", "make:b"]
    env.api("POST", "/batches/x/go", {})
    env.wait_state(ids.values())
    again = apply(text.replace("CHECK {item}", "[ {item} = a ] && echo new || echo b"))
    env.wait_state(again.ids.values())
    assert env.task(ids["make:b"])["attempts"] == 2


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        ("- {command: x}\n", r"b.yaml:2: this step has no name: give it one, as step: align"),
        ("- {step: a.b, command: x}\n", r"b.yaml:2: 'a.b' cannot name a step"),
        ("- {step: a}\n", r"b.yaml:2: the step 'a' has no `command`"),
        ("- {step: a, command: x}\n- {step: a, command: y}\n", r"b.yaml:3: two steps are named 'a': the other is at line 2"),
        ("- {step: a, comand: x}\n", r"b.yaml:2: unknown key 'comand' \(did you mean 'command'\?\)"),
        ("- x\n", r"b.yaml:2: a step must be a mapping of keys"),
        ("- {step: a, command: x, each: [1, 2], name: n}\n", r"b.yaml:2: two tasks are named 'a:n': put a column into the name"),
        ("- {step: make, command: x}\n- {step: b, command: x, needs: mke}\n",
         r"b.yaml:3: no step is named 'mke' \(did you mean 'make'\?\)"),
        ("- {step: a, command: x, gather: a}\n",
         r"b.yaml:2: `gather` must be a mapping of keys such as `from: ...`, not the text 'a'"),
        ("- {step: a, command: x, needs: 'a*'}\n", r"b.yaml:2: no step is named 'a\*'.*: `needs` takes `step` or `step.\*`"),
        ("- {step: a, command: x, needs: b}\n- {step: b, command: x, gather: {from: a}, output: s3://o}\n",
         r"b.yaml:3: the step 'a' has no `output`"),
        ("- {step: a, command: x, needs: b}\n- {step: b, command: '{a.name}'}\n",
         r"b.yaml: steps need each other in a circle: (a needs b needs a|b needs a needs b)$"),
        ("- {step: a, command: x, needs: a}\n", r"b.yaml: steps need each other in a circle: a needs a$"),
        ("- {step: a, each: [{i: 1}], command: x}\n- {step: b, each: [{i: 2}], command: x, needs: a}\n",
         r"b.yaml:3: the step 'b' has a row \(i 2\) that the step 'a' has not"),
        ("- {step: make, command: x}\n- {step: b, command: '{make.output}'}\n",
         r"b.yaml:3: \{make.output\}: the step 'make' has no `output`"),
        ("- {step: make, command: x}\n- {step: b, command: '{make.outptu}'}\n",
         r"b.yaml:3: there is no \{make.outptu\} \(did you mean 'output'\?\)"),
        ("- {step: make, command: x}\n- {step: b, command: '{mkae.name}'}\n",
         r"b.yaml:3: there is no \{mkae.name\}: no step is named 'mkae' \(did you mean 'make'\?\)"),
        ("- {step: a, command: x, output: o}\n- {step: b, command: x, gather: {form: a}}\n",
         r"b.yaml:3: unknown key 'form' \(did you mean 'from'\?\)"),
        ("- {step: a, command: x}\n- {step: b, command: x, gather: {only: x}}\n",
         r"b.yaml:3: `gather` does not say from which step"),
        ("- {step: a, command: x}\n- {step: b, command: x, gather: {from: c}}\n", r"b.yaml:3: no step is named 'c'"),
        ("- {step: a, command: x, output: 's3://o', each: [1, 2]}\n- {step: b, command: x, gather: {from: a}}\n",
         r"b.yaml:3: tasks of the step 'a' have the same output s3://o/"),
        ("- {step: a, command: x, output: 's3://o/{item}', each: [1, 2]}\n- {step: b, command: x, gather: {from: a, by: itme}}\n",
         r"b.yaml:3: the rows of 'a' are not told apart by 'itme' \(did you mean 'item'\?\)"),
        ("- {step: a, command: x, output: 's3://o/{item}', each: [1, 2]}\n"
         "- {step: b, command: x, each: [1], gather: {from: a, by: item}}\n",
         r"b.yaml:3: a step that gathers `by` columns has a row for each of their values"),
        ("- {step: a, command: x, each: [{sample: 1}]}\n- {step: b, each: [{sample: 1}], command: '{smaple}'}\n",
         r"b.yaml:3: `command`: there is no \{smaple\}"),
        (" []\n", r"b.yaml:2: `steps` is empty: give at least one"),
        ("- {step: a, command: x}\ntasks: [x]\n", r"b.yaml:\d: a file has either `tasks` or `steps`"),
        ("- {step: a, command: x}\nretry: 1\n", r"b.yaml:3: beside `steps`, 'retry' belongs under `defaults`"),
        ("- {step: a, command: x}\ncanary: {b: 1}\n", r"b.yaml:3: no step is named 'b'"),
        ("- {step: a, command: x}\ncanary: -1\n", r"b.yaml:3: `canary` must be a number of tasks, not -1"),
        ("- {step: a, command: x}\ncanary: some\n", r"b.yaml:3: `canary` must be a whole number"),
    ],
)  # fmt: skip
def test_steps_that_are_wrong(load, text, message):
    with pytest.raises(InvalidRequest, match=message) as raised:
        load("steps:\n" + text)
    assert "\n" not in str(raised.value)


def test_a_canary_goes_with_steps(load):
    with pytest.raises(InvalidRequest, match=r"b.yaml:1: `canary` goes with `steps`"):
        load("canary: 1\ncommand: x\n")


@pytest.mark.parametrize(
    "document, good",
    [
        ({"steps": [{"step": "a", "command": "x"},
                    {"step": "b", "command": "y", "needs": "a", "gather": {"from": "a", "by": "p"}}],
          "canary": {"a": 1}, "params": {"n": 1, "m": {"type": "int", "choices": [1, 2]}},
          "matrix": {"k": [1], "include": [{"j": 2}]},
          "each": {"csv": "s.csv", "where": {"a": ["b", "c"]}, "limit": 3}}, True),
        ({"steps": [{"command": "x"}]}, False),
        ({"steps": [{"step": "a", "comand": "x"}]}, False),
        ({"steps": [{"step": "a", "gather": {"by": "p"}}]}, False),
        ({"command": "x", "params": {"n": {"typ": "int"}}}, False),
        ({"command": "x", "each": {"cvs": "x"}}, False),
    ],
)  # fmt: skip
def test_the_schema_tells_good_from_bad(document, good):
    assert jsonschema.Draft202012Validator(batchfile.schema()).is_valid(json.loads(json.dumps(document))) is good
