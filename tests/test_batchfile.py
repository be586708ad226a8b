"""Batch files: what a file means, what is wrong with it and where, and a server brought in line with it."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import jsonschema
import pytest
from scitq.errors import Conflict, InvalidRequest
from scitq.lib import Server
from scitq.protocol import TaskSpec
from scitq.reconcile import Declared, Plan
from scitq.substitution import MODIFIERS, read_table, substitute
from scitq.yamlvalues import Value

from scitq import batchfile


def commands(file) -> list[str]:
    return [task["command"] for task in file.tasks]


# --- substitution ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("wc {file}", "wc data/a b.fastq.gz"),
        ("wc {file:q}", "wc 'data/a b.fastq.gz'"),
        ("{file:name} {file:stem} {file:dir}", "a b.fastq.gz a b data"),
        ("{file:stem:q}.txt", "'a b'.txt"),
        ("echo ${file} ${HOME} {unknown} {unknown:q}", "echo ${file} ${HOME} {unknown} {unknown:q}"),
        ("awk '{print $1}' {{file}}", "awk '{print $1}' {data/a b.fastq.gz}"),
        ("{sample name}-{n}", "S 1-007"),
        ("{}{ file }{file", "{}{ file }{file"),
    ],
)
def test_only_known_names_are_replaced(text, expected):
    assert substitute(text, {"file": "data/a b.fastq.gz", "sample name": "S 1", "n": "007"}) == expected


def test_a_replaced_value_is_not_replaced_again():
    assert substitute("{a}{b}", {"a": "{b}", "b": "{a}"}) == "{b}{a}"


@pytest.mark.parametrize(
    "value, stem", [("x.tar.gz", "x"), ("a/b.v1.fq.gz", "b.v1"), ("x", "x"), (".bashrc", ".bashrc"), ("a.gz", "a"), ("a.d/", "")]
)
def test_stem(value, stem):
    assert MODIFIERS["stem"](value) == stem


def test_an_unknown_modifier_of_a_known_name_is_an_error():
    with pytest.raises(InvalidRequest, match=r"\{x:stm\} has no modifier 'stm' \(did you mean 'stem'\?\)"):
        substitute("{x:stm}", {"x": "1"})


@pytest.mark.parametrize(
    "name, content, rows",
    [
        ("t.csv", 'a,b\n1,"x,y"\n\n2,z\n', [{"a": "1", "b": "x,y"}, {"a": "2", "b": "z"}]),
        ("t.tsv", "a\tb\r\n1\tx, y\r\n", [{"a": "1", "b": "x, y"}]),
        ("t.csv", "\ufeffa\n1\n", [{"a": "1"}]),
        ("t.csv", " a , b c \n 1 ,\n", [{"a": " 1 ", "b c": ""}]),
    ],
)
def test_tables(tmp_path, name, content, rows):
    (tmp_path / name).write_text(content, newline="")
    assert read_table(str(tmp_path / name)) == rows


@pytest.mark.parametrize(
    "content, message",
    [
        (b"a,b\n1\n", r"t.csv:2: 1 values for 2 columns"),
        (b"a,a\n1,2\n", r"t.csv:1: two columns are named 'a'"),
        (b"a,\n1,2\n", r"t.csv:1: '' cannot name a column"),
        (b"a,x:y\n1,2\n", r"t.csv:1: 'x:y' cannot name a column"),
        (b"a,b\n", r"has no rows"),
        (b"", r"has no rows"),
        (b"a\n\xff\n", r"not UTF-8"),
        (b'a\n"x\n', r"t.csv:2: unexpected end of data"),
    ],
)
def test_a_bad_table_is_told_with_its_line(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InvalidRequest, match=message):
        read_table(str(tmp_path / "t.csv"))


# --- what a file means ------------------------------------------------------------------------------------------------


def test_the_simplest_file(load):
    file = load("tasks:\n- echo 1\n- echo 2\n")
    assert file.batch == "Default"
    assert file.tasks == [
        {"name": "b-1", "batch": "Default", "command": "echo 1"},
        {"name": "b-2", "batch": "Default", "command": "echo 2"},
    ]


def test_every_option_is_a_key(load):
    file = load("""
batch: x
command: run me
name: n
shell: bash
container: alpine
container_options: --cpus 2
input: [a, b]
resource: c
output: file:///tmp/o
env: {A: 1, B: "two words"}
workdir: /data
uid: 1000
gid: 1000
priority: -3
retry: 2
download-timeout: 90
run-timeout: 1h30m
use-cache: yes
require: [3, 4]
""")
    assert file.tasks == [{
        "name": "n", "batch": "x", "command": "run me", "shell": "bash", "container": "alpine", "container_options": "--cpus 2",
        "input": ["a", "b"], "resource": ["c"], "output": "file:///tmp/o", "env": {"A": "1", "B": "two words"},
        "workdir": "/data",
        "uid": 1000, "gid": 1000, "priority": -3, "retry": 2, "download_timeout": 90.0, "run_timeout": 5400.0, "use_cache": True,
        "require": [3, 4],
    }]  # fmt: skip


def test_rows_of_a_table_make_a_task_each(load, tmp_path):
    (tmp_path / "samples.csv").write_text("sample,reads\nA,a.fq.gz\nB,b.fq.gz\n")
    file = load(
        "name: count-{sample}\ncommand: wc {reads} > {reads:stem}.txt; {name} {row} {batch}\neach: samples.csv\nretry: '{row}'\n"
    )
    assert commands(file) == ["wc a.fq.gz > a.txt; count-A 1 Default", "wc b.fq.gz > b.txt; count-B 2 Default"]
    assert [task["retry"] for task in file.tasks] == [1, 2]


def test_inline_rows_keep_their_values_as_written(load):
    file = load("command: echo {a} {b}\neach:\n- {a: 007, b: 1.10}\n- {a: yes, b: ~}\n")
    assert commands(file) == ["echo 007 1.10", "echo yes "]


def test_plain_values_are_the_item(load):
    assert commands(load("command: echo {item}\neach: [x, 2]\n")) == ["echo x", "echo 2"]


def test_each_beside_tasks_is_for_all_that_have_no_other(load):
    file = load("each: [x, y]\ntasks:\n- echo {item}\n- {command: sum, each: ~}\n- {command: 'say {item}', each: [z]}\n")
    assert commands(file) == ["echo x", "echo y", "sum", "say z"]


def test_defaults_and_their_env(load):
    file = load("defaults: {retry: 2, env: {A: 1, B: 2}}\ntasks:\n- one\n- {command: two, retry: 0, env: {B: 3}}\n")
    assert [(task["retry"], task["env"]) for task in file.tasks] == [(2, {"A": "1", "B": "2"}), (0, {"A": "1", "B": "3"})]


def test_tasks_without_name_keep_theirs_when_rows_are_added(load):
    before = load("each: [x, y]\ntasks: [a, b]\n")
    after = load("each: [new, x, y]\ntasks: [a, b, c]\n")
    assert [task["name"] for task in before.tasks] == ["b-1-x", "b-1-y", "b-2-x", "b-2-y"]
    assert {task["name"] for task in before.tasks} < {task["name"] for task in after.tasks}


def test_rows_that_start_alike_are_told_apart_by_number(load):
    assert [task["name"] for task in load("command: x\neach: [{a: 1, b: 1}, {a: 1, b: 2}]\n").tasks] == ["b-1-1", "b-1-2"]


def test_needs_by_name_same_row_and_pattern(load):
    file = load("""
each: [x, y]
tasks:
- {name: 'make-{item}', command: m}
- {name: 'use-{item}', command: u, needs: 'make-{item}', require: 12}
- {name: all, command: a, each: ~, needs: '*'}
""")
    assert [task.get("require") for task in file.tasks] == [
        None,
        None,
        [12, "make-x"],
        [12, "make-y"],
        ["make-x", "make-y", "use-x", "use-y"],
    ]


def test_workdir_of_run_is_where_relative_ones_start(load):
    file = load("tasks:\n- a\n- {command: b, workdir: sub/../deep}\n- {command: c, workdir: /abs}\n", workdir="/here")
    assert [task["workdir"] for task in file.tasks] == ["/here", "/here/deep", "/abs"]


def test_a_batch_from_outside_wins(load):
    file = load("batch: inside\ncommand: echo {batch}\n", batch="outside")
    assert (file.batch, commands(file)) == ("outside", ["echo outside"])


def test_ten_thousand_rows_are_read_in_seconds(load, tmp_path):
    (tmp_path / "t.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(10_000)))
    file = load(
        "tasks:\n- {name: 'a-{n}', command: 'x {n}', each: t.csv}\n- {name: 'b-{n}', command: y, each: t.csv, needs: 'a-{n}'}\n"
    )
    assert file.tasks[-1]["require"] == ["a-9999"]


# --- what is wrong, and where -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        ("tasks:\n- comand: x\n", r"b.yaml:2: unknown key 'comand' \(did you mean 'command'\?\)"),
        ("tsks: []\n", r"b.yaml:1: unknown key 'tsks' \(did you mean 'tasks'\?\)"),
        ("command: x\n\nretry: many\n", r"b.yaml:3: `retry` must be a whole number, not 'many'"),
        ("command: x\nrun_timeout: soon\n",
         r"b.yaml:2: `run_timeout` must be a duration such as 90, 90s, 5m, 2h, 3d or 1h30m, not 'soon'"),
        ("command: x\nuse_cache: 7\n", r"b.yaml:2: `use_cache` must be true or false, not '7'"),
        ("command: x\nshell: fish\n", r"b.yaml:2: `shell` must be true, false, sh or bash, not 'fish'"),
        ("command: [x]\n", r"b.yaml:1: `command` must be text, not a list"),
        ("command: {x}\n", r"b.yaml:1: `command` must be text, not a mapping: a value that starts with \{ needs quotes"),
        ("command: x\nenv: [A]\n", r"b.yaml:2: `env` must be a mapping of names to values, not a list"),
        ("command: x\nenv: {A: [1]}\n", r"b.yaml:2: `env: A` must be text, not a list"),
        ("command: x\neach: {a: 1}\n", r"b.yaml:2: `each` must be a list of rows, or the path of a csv or tsv file"),
        ("command: x\neach: []\n", r"b.yaml:2: `each` has no rows"),
        ("command: x\neach:\n- {a: 1}\n- {b: 1}\n", r"b.yaml:4: this row has the columns b, the first one a"),
        ("command: x\neach: no.csv\n", r"b.yaml:2: the table .*/no.csv cannot be read: No such file or directory"),
        ("command: ' '\n", r"b.yaml:1: the command is empty"),
        ("command: x\ncommand: y\n", r"b.yaml:2: 'command' is given twice"),
        ("command: x\ninput: !!python/object/apply:os.system [id]\n", r"b.yaml:2: tags such as .* mean nothing here"),
        ("command: !!python/name:os.system x\n", r"b.yaml:1: tags such as .* mean nothing here"),
        ("command: !mine x\n", r"b.yaml:1: tags such as '!mine' mean nothing here"),
        ("tasks: []\n", r"b.yaml:1: `tasks` is empty: give at least one$"),
        ("tasks: x\n", r"b.yaml:1: `tasks` must be a list of tasks, not the text 'x'"),
        ("tasks:\n- [x]\n", r"b.yaml:2: a task must be a mapping of keys such as `command: ...`, not a list"),
        ("tasks:\n- {retry: 1}\n", r"b.yaml:2: this task has no `command`"),
        ("tasks: [x]\nretry: 1\n", r"b.yaml:2: beside `tasks`, 'retry' belongs under `defaults`"),
        ("batch: x\n", r"b.yaml: the file has no `command` and no `tasks`"),
        ("- x\n", r"b.yaml:1: the file must be a mapping"),
        ("", r"b.yaml: the file is empty"),
        ("tasks:\n- {name: a, command: x}\n- {name: a, command: y}\n",
         r"b.yaml:3: two tasks are named 'a': the other is at line 2"),
        ("name: a\ncommand: x\neach: [1, 2]\n", r"b.yaml:1: two tasks are named 'a': put a column into the name"),
        ("tasks:\n- {name: make, command: x}\n- {command: y, needs: mke}\n",
         r"b.yaml:3: no task of this file is named 'mke' \(did you mean 'make'\?\)"),
        ("tasks:\n- {name: a, command: x, needs: c}\n- {name: b, command: x, needs: a}\n- {name: c, command: x, needs: b}\n",
         r"b.yaml: tasks need each other in a circle: "
         r"(a needs c needs b needs a|b needs a needs c needs b|c needs b needs a needs c)$"),
        ("name: a\ncommand: x\nneeds: a\n", r"in a circle: a needs a$"),
        ("command: '{item:stm}'\neach: [1]\n", r"b.yaml:1: \{item:stm\} has no modifier 'stm'"),
        ("command: x\n  retry: 1\n", r"b.yaml:2: mapping values are not allowed here$"),
        ("command: x\nneeds: [a-{item}]\n",
         r"b.yaml:2: expected ',' or ']', but got '\{': inside \[ \] a value with \{ \} needs quotes$"),
        ("command: 'x\n", r"b.yaml:2: found unexpected end of stream$"),
        ("command: x\n---\ncommand: y\n", r"b.yaml:2: expected a single document in the stream, but found another document$"),
        ("a: *b\n", r"b.yaml:1: found undefined alias 'b'$"),
        ("command: x\x00\n", r"b.yaml: this is not YAML text"),
        ("[" * 5000, r"b.yaml: lists and mappings are nested too deeply"),
        ("command: x\ninput: &a [*a, y]\n", r"b.yaml:2: an alias stands within its own anchor$"),
        ("command: x\nenv: &a {x: *a}\n", r"b.yaml:2: an alias stands within its own anchor$"),
        ("command: x\ninput:\n- &a0 [x]\n" + "".join(f"- &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)),
         r"b.yaml:\d+: with its aliases this means more than 20,000,000 values$"),
        ("tasks:\n- &a {command: x}\n- {<<: *a, retry: 1}\n", r"b.yaml:3: mappings are not merged \(<<\) here"),
        (f"command: x\nretry: {'9' * 5000}\n", r"b.yaml:2: `retry` must be (a whole number|2,147,483,647 or less).{0,80}$"),
        ("command: x\nretry: -1\n", r"b.yaml:2: `retry` must be 0 or more$"),
        ("command: x\nrun_timeout: 99999d\n", r"b.yaml:2: `run_timeout` must be 1,000,000,000 or less$"),
        ("command: x\nrequire: [3, -5]\n", r"b.yaml:2: `require` holds -5, which is no id of a task$"),
        ("command: x\nenv: {A=B: 1}\n", r"b.yaml:2: `env` holds 'A=B', which is no name of a variable$"),
        ('command: "a\\0b"\n', r"b.yaml:1: `command` holds a NUL"),
        ('name: "a\\nb"\ncommand: x\n', r"b.yaml:1: `name` holds a newline"),
        ('batch: "a\\nb"\ncommand: x\n', r"b.yaml:1: `batch` holds a newline"),
        (f"command: x\nname: '{{item}}'\neach: [{'n' * 1001}]\n", r"b.yaml:2: `name` is longer than 1000 characters$"),
        ("command: x\nworkdir: out\n", r"b.yaml:2: `workdir` must be an absolute path: only `scitq run`"),
        ("command: x\noutput: ''\n", r"b.yaml:2: `output` holds an empty URI$"),
        ("command: x\nrecruit: {maximum_workers: 99999999999}\n",
         r"b.yaml:2: `maximum_workers` must be 2,147,483,647 or less, not 99999999999$"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(load, text, message):
    with pytest.raises(InvalidRequest, match=message) as raised:
        load(text)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidRequest, match="nope.yaml cannot be read: No such file or directory"):
        batchfile.load(str(tmp_path / "nope.yaml"))


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "b.yaml").write_bytes(b"command: \xff\xfe\n")
    with pytest.raises(InvalidRequest, match="not YAML text"):
        batchfile.load(str(tmp_path / "b.yaml"))


def test_what_windows_writes_is_read_as_well(load, tmp_path):
    text = "batch: x\r\ncommand: |\r\n  echo {item}\r\n  echo b\r\neach: [1]\r\n"
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert commands(batchfile.load(str(tmp_path / "c.yaml"))) == ["echo 1\necho b\n"]


# --- the schema -------------------------------------------------------------------------------------------------------


def test_the_schema_names_every_option_and_every_kind_is_read():
    keys = batchfile.schema()["$defs"]["task"]["properties"]
    assert set(keys) == {f.name for f in fields(TaskSpec)} - {"batch"} | {"each", "matrix", "needs"}
    assert all(
        callable(getattr(Value, described["$ref"].rpartition("/")[2]))
        for name, described in keys.items()
        if name not in ("each", "matrix")
    )


@pytest.mark.parametrize(
    "document, good",
    [
        ({"tasks": ["a", {"command": "b", "retry": 2, "run_timeout": "2h", "each": [{"x": 1}]}]}, True),
        ({"command": "x", "batch": "b", "defaults": {"env": {"A": 1}}}, True),
        ({"command": "x", "retri": 1}, False),
        ({"tasks": [{"comand": "x"}]}, False),
        ({"batch": "x"}, False),
        ({"command": ["x"]}, False),
    ],
)
def test_the_schema_tells_good_from_bad(document, good):
    validator = jsonschema.Draft202012Validator(batchfile.schema())
    assert validator.is_valid(json.loads(json.dumps(document))) is good


# --- a server brought in line -----------------------------------------------------------------------------------------

CHAIN = """
batch: x
tasks:
- {name: 'part-{item}', command: 'true', each: [a, b]}
- {name: sum, command: 'true', needs: part-*}
- {name: last, command: 'true', needs: sum}
"""


@pytest.fixture
def apply(env, load):
    """Applies a file's text to a server; what became of the tasks, by name."""
    env.server()
    with Server(env.url, token=env.token) as server:
        yield lambda text, **more: batchfile.apply(server, load(text, **more))


def states(env) -> dict[str, str]:
    return {row["name"]: row["state"] for row in env.items("/tasks")}


def attempts(env) -> dict[str, int]:
    return {row["name"]: row["attempts"] for row in env.items("/tasks")}


def test_applied_twice_it_is_there_once(env, apply):
    first, second = apply(CHAIN), apply(CHAIN)
    assert list(first.created) == ["part-a", "part-b", "sum", "last"]
    assert (second.created, second.kept) == ({}, first.ids)
    assert len(env.items("/tasks")) == 4
    assert env.task(first.ids["sum"])["require"] == [first.ids["part-a"], first.ids["part-b"]]
    assert states(env) == {"part-a": "pending", "part-b": "pending", "sum": "waiting", "last": "waiting"}


def test_launched_several_times_at_once_it_is_there_once(env, load):
    env.server()
    file = load(CHAIN.replace("[a, b]", "[" + ",".join(f"p{number}" for number in range(300)) + "]"))
    clients, start = [Server(env.url, token=env.token) for _ in range(4)], threading.Barrier(4)

    def launch(server: Server) -> batchfile.Applied:
        with server:
            start.wait(60)
            return batchfile.apply(server, file)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(launch, clients))
    assert sorted(len(one.created) for one in done) == [0, 0, 0, 302] and all(one.ids == done[0].ids for one in done)
    assert len(env.items("/tasks")) == 302


def test_who_looked_before_another_launched_looks_again(env, apply, load):
    file = load(CHAIN)
    tasks = {task["name"]: task for task in file.tasks}
    with Server(env.url, token=env.token) as server:
        slow = Plan(server, Declared(tasks, [file.batch], lambda row: row["name"]))
        ids = apply(CHAIN).ids
        with pytest.raises(Conflict, match=f"task {ids['part-a']} of batch 'x' .* name 'part-a'"):
            slow.carry_out()
    assert apply(CHAIN).kept == ids and len(env.items("/tasks")) == 4


def test_all_or_nothing_is_created(env, apply):
    with pytest.raises(InvalidRequest, match="12345"):
        apply("tasks:\n- good\n- {command: bad, require: 12345}\n")
    assert env.items("/tasks") == []


def test_waiting_tasks_are_changed_in_place(env, apply):
    ids = apply(CHAIN).ids
    changed = apply(CHAIN.replace("name: sum, command: 'true'", "name: sum, command: 'false', retry: 2"))
    assert list(changed.updated) == ["sum"] and changed.ids == ids
    assert (env.task(ids["sum"])["command"], env.task(ids["sum"])["retry"], env.state(ids["sum"])) == ("false", 2, "waiting")
    back = apply(CHAIN)
    assert list(back.updated) == ["sum"] and env.task(ids["sum"])["retry"] == 0


def test_tasks_of_other_names_and_batches_are_left_alone(env, apply):
    other = env.create({"command": "other", "batch": "x", "name": "mine"}, {"command": "z", "name": "sum"})
    apply(CHAIN)
    assert [env.task(task)["command"] for task in other] == ["other", "z"]


def test_new_rows_come_in_and_what_needs_them_waits_for_them(env, apply):
    env.worker(2, batch="x")
    ids = apply(CHAIN).ids
    env.wait_state(ids.values())
    grown = apply(CHAIN.replace("[a, b]", "[a, b, c]"))
    assert (list(grown.created), list(grown.updated), list(grown.relaunched)) == (["part-c"], ["sum"], ["last"])
    env.wait_state(grown.ids.values())
    assert attempts(env) == {"part-a": 1, "part-b": 1, "part-c": 1, "sum": 2, "last": 2}


def test_what_needs_a_changed_task_is_done_again_after_it(env, apply):
    env.worker(4, batch="x")
    ids = apply(CHAIN).ids
    env.wait_state(ids.values())
    text = CHAIN.replace("'true', each", "'echo {item}', each")
    env.wait_state(apply(text).ids.values())
    assert attempts(env) == {"part-a": 2, "part-b": 2, "sum": 2, "last": 2}
    latest = {row["name"]: row["execution_id"] for row in env.items("/tasks")}
    assert max(latest["part-a"], latest["part-b"]) < latest["sum"] < latest["last"]
    assert apply(text).kept == ids


def test_killed_between_two_steps_the_next_time_ends_the_same(env, apply):
    """A needed task that was done again, and nothing that needs it yet: as a launch that was killed leaves it."""
    env.worker(4, batch="x")
    ids = apply(CHAIN).ids
    env.wait_state(ids.values())
    env.api("POST", "/tasks/relaunch", {"ids": [ids["part-a"]]})
    env.until(lambda: env.task(ids["part-a"])["attempts"] == 2 and env.state(ids["part-a"]) == "succeeded", what="done again")
    again = apply(CHAIN)
    assert (list(again.kept), list(again.relaunched)) == (["part-a", "part-b"], ["sum", "last"])
    env.wait_state(ids.values())


def test_failed_and_canceled_tasks_are_queued_again(env, apply):
    env.worker(2, batch="x")
    text = "{batch: x, name: f, command: 'false'}"
    ids = apply(text).ids
    env.wait_state(ids["f"], "failed")
    assert list(apply(text).relaunched) == ["f"]
    env.wait_state(ids["f"], "failed")
    fixed = apply(text.replace("false", "true"))
    assert list(fixed.updated) == ["f"]
    env.wait_state(ids["f"])
    assert env.task(ids["f"])["attempts"] == 3


def test_a_running_task_is_left_alone_and_told(env, apply):
    env.worker(1, batch="x")
    text = "{batch: x, name: long, command: sleep 100}"
    ids = apply(text).ids
    env.wait_state(ids["long"], "running")
    changed = apply(text.replace("100", "50"))
    assert list(changed.skipped) == ["long"] and "run" in changed.skipped["long"]
    assert env.task(ids["long"])["command"] == "sleep 100"
    assert apply(text).kept == ids


def test_many_alike_changes_are_few_requests(env, apply):
    text = "{command: 'x {item}', retry: 1, each: [" + ",".join(map(str, range(500))) + "]}"
    apply(text)
    before = len(env.items("/events"))
    assert len(apply(text.replace("retry: 1", "retry: 2")).updated) == 500
    assert len(env.items("/events")) - before <= 2
