"""Recruiters: protofilters and decisions as pure functions, then what becomes of them in a store, on each database."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scitq.errors import Conflict, InvalidRequest, NotFound
from scitq.protocol import Report
from scitq.protofilter import check_flavor, is_like, is_met, parse
from scitq.recruiting import Homesick, called_home, choose, idle, matches, send_home, wanted
from scitq.store import batches, events, recruiters, tasks, workers

from scitq import explain

WHO = "ann"

# --- protofilters -----------------------------------------------------------------------------------------------------


def test_a_protofilter_is_conditions_that_must_all_hold():
    text = "auto:cpu>=8:ram>=30:tags#G:eviction<=5:region~GRA%"
    assert [(c.item, c.comparison, c.value) for c in parse(text)] == [
        ("cpu", ">=", 8.0), ("ram", ">=", 30.0), ("tags", "#", "G"), ("eviction", "<=", 5.0), ("region", "~", "GRA%"),
    ]  # fmt: skip
    known = {"cpu": 8, "ram": 31, "tags": "GN", "region": "GRA11"}
    assert is_met(text, known), "what a machine costs is no matter once it is there"
    for item, value in (("cpu", 7), ("ram", 29), ("tags", "N"), ("region", "SBG5"), ("cpu", None), ("region", None)):
        assert not is_met(text, known | {item: value}), "what is not known passes nothing"
    assert is_met("auto", {})


@pytest.mark.parametrize(
    "condition, passing, refused",
    [
        ("cpu==8", 8, 9), ("cpu!=8", 9, 8), ("cpu<=8", 8, 9), ("cpu<8", 7, 8), ("cpu>8", 9, 8), ("ram>=0.5", 1, 0),
        ("tags!#G", "MN", "GM"), ("tags#GM", "MNG", "G"), ("tags==GM", "MG", "G"), ("tags!=GM", "G", "MG"),
        ("region==GRA11", "GRA11", "gra11"), ("region!=GRA11", "SBG", "GRA11"), ("region!~gra%", "SBG", "GRA9"),
        ("provider~_vh", "ovh", "oovh"),
    ],
)  # fmt: skip
def test_each_comparison(condition, passing, refused):
    item = parse(f"auto:{condition}")[0].item
    assert is_met(f"auto:{condition}", {item: passing}) and not is_met(f"auto:{condition}", {item: refused})


@pytest.mark.parametrize(
    "text, place, told",
    [
        ("auto:cpuu>=8", 6, "did you mean 'cpu'"), ("auto:cpu>=8:", 13, "there are cpu, ram"), ("auto:", 6, "there are cpu"),
        ("auto:cpu>=8:ram~30", 16, "ram is compared with ==, !="), ("auto:cpu>=eight", 11, "wants a number"),
        ("auto:ram>=1.2.3", 11, "wants a number"), ("auto:region==a b", 14, "wants letters"),
        ("auto:tags>G", 10, "tags is compared"),
        ("auto:cpu>=__import__('os')", 11, "wants a number"), ("auto:cpu", 9, "cpu is compared"),
        ("auto:region==", 14, "wants letters"),
    ],
)  # fmt: skip
def test_a_malformed_one_is_refused_with_the_place(text, place, told):
    with pytest.raises(InvalidRequest, match=f"at character {place}, ") as caught:
        check_flavor(text)
    assert told in caught.value.message and caught.value.field == "flavor"


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    for words in (text, f"auto:{text}", f"auto:cpu>={text}", f"auto:region~{text}"):
        try:
            check_flavor(words)
        except InvalidRequest:
            continue
        assert words == "auto" or words.startswith("auto:") or not set(":=<>~#!") & set(words)


def test_a_name_that_looks_like_a_protofilter_is_refused():
    check_flavor("Standard_D4s-v3.2")
    with pytest.raises(InvalidRequest, match="begins with 'auto:'"):
        check_flavor("cpu>=8")


@given(st.text("ab%_", max_size=8), st.text("abc", max_size=10))
def test_like_is_that_of_sql(pattern, text):
    import sqlite3

    with sqlite3.connect(":memory:") as database:
        assert is_like(text, pattern) == bool(database.execute("SELECT ? LIKE ?", (text, pattern)).fetchone()[0])


def test_like_takes_no_time_that_hurts():
    assert not is_like("a" * 1000, "%a" * 400 + "b")


# --- decisions --------------------------------------------------------------------------------------------------------


def rule(id=1, batch_id=1, rank=1, **other):
    none = dict.fromkeys(("flavor", "provider", "region", "minimum_tasks", "maximum_workers", "concurrency"))
    return {
        "id": id,
        "batch_id": batch_id,
        "batch": f"b{batch_id}",
        "rank": rank,
        "tasks_per_worker": 1,
        "prefetch": 0,
        **none,
        **other,
    }


def machine(id=1, batch_id=9, flavor=None, provider=None, region=None, **known):
    about = {"provider": provider, "region": region}
    return {"id": id, "batch_id": batch_id, "flavor": flavor, **about, "known": about | known, "kind": id, "unfit": set()}


def worker(id=1, batch_id=1, concurrency=1, busy=0, **other):
    closed = dict.fromkeys(("draining", "offline", "problem", "stopped"), False)
    return {"id": id, "batch_id": batch_id, "concurrency": concurrency, "busy": busy, "held": 0, "strange": 0, **closed, **other}


@pytest.mark.parametrize(
    "more, pending, workers, expected",
    [
        ({}, 0, 0, 0), ({}, 3, 0, 3), ({}, 3, 2, 1), ({}, 3, 5, 0), ({"tasks_per_worker": 10}, 11, 0, 2),
        ({"minimum_tasks": 5}, 4, 0, 0), ({"minimum_tasks": 5}, 5, 0, 5), ({"minimum_tasks": 0}, 0, 0, 0),
        ({"maximum_workers": 2}, 9, 0, 2), ({"maximum_workers": 2}, 9, 2, 0), ({"maximum_workers": 0}, 9, 0, 0),
    ],
)  # fmt: skip
def test_how_many_are_wanted(more, pending, workers, expected):
    assert wanted(rule(**more), pending, workers) == expected


def test_a_machine_of_no_flavor_is_for_those_who_ask_for_none():
    by_hand, known = machine(cpu=64), machine(flavor="b2-30", cpu=8, provider="ovh", region="GRA11")
    assert matches(rule(), by_hand) and matches(rule(), known)
    for flavor in ("b2-30", "auto", "auto:cpu>=8"):
        assert matches(rule(flavor=flavor), known) and not matches(rule(flavor=flavor), by_hand)
    assert not matches(rule(flavor="b2-60"), known) and not matches(rule(flavor="auto:cpu>8"), known)
    assert matches(rule(provider="ovh", region="auto"), known) and not matches(rule(provider="azure"), known)
    assert not matches(rule(region="GRA11"), by_hand)


def test_only_who_has_nothing_to_do_idles():
    busy = [
        worker(busy=1),
        worker(concurrency=0),
        *(worker(**{why: True}) for why in ("draining", "offline", "problem", "stopped")),
    ]
    assert idle(busy, set()) == [] and idle([worker(7)], {7}) == []
    assert [w["id"] for w in idle([worker(7), worker(8, batch_id=2)], set())] == [7, 8]
    keeper = worker(1, concurrency=1, busy=3, held=2)
    assert idle([keeper, worker(2)], set()) == [], "the other's prefetched tasks are about to be its own"
    assert idle([worker(1, busy=1, held=1, draining=True), worker(2)], set()) == []


def test_batches_take_turns_and_lower_ranks_go_first():
    rules = [rule(1, 1, 1, flavor="big"), rule(2, 1, 2, flavor="small"), rule(3, 2, 1)]
    machines = [machine(1, flavor="small"), machine(2, flavor="big"), machine(3, flavor="small"), machine(4, flavor="small")]
    pairs = [(recruiter["id"], one["id"]) for recruiter, one in choose(rules, {1: 9, 2: 9}, {}, machines)]
    assert pairs == [(1, 2), (3, 1), (2, 3), (3, 4)]


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(0, 9), st.none() | st.integers(0, 6)), max_size=6),
    st.dictionaries(st.integers(1, 3), st.integers(0, 12)), st.dictionaries(st.integers(1, 3), st.integers(0, 4)),
    st.integers(0, 12),
)  # fmt: skip
def test_choices_keep_every_limit(sizes, pending, present, count):
    rules = [
        rule(i, batch, i, tasks_per_worker=each, minimum_tasks=least, maximum_workers=most)
        for i, (batch, each, least, most) in enumerate(sizes)
    ]
    rules.sort(key=lambda r: (r["batch_id"], r["rank"]))
    machines = [machine(i, batch_id=9) for i in range(count)]
    pairs = choose(rules, pending, present, machines)
    taken = [one["id"] for _, one in pairs]
    assert len(taken) == len(set(taken))
    now = dict(present)
    for recruiter, _ in pairs:
        batch = recruiter["batch_id"]
        assert wanted(recruiter, pending.get(batch, 0), now.get(batch, 0)) > 0
        now[batch] = now.get(batch, 0) + 1
    for batch, count_now in now.items():
        assert count_now - present.get(batch, 0) <= pending.get(batch, 0), "none moves without a task for it"
    if len(taken) < count:
        assert not any(wanted(r, pending.get(r["batch_id"], 0), now.get(r["batch_id"], 0)) for r in rules)


def test_no_more_are_called_home_than_tasks_lack_slots():
    away = [worker(1, busy=1, home_concurrency=2), worker(2, home_concurrency=2), worker(3, busy=2, home_concurrency=2)]
    assert [w["id"] for w in called_home(away, 2)] == [2] and [w["id"] for w in called_home(away, 3)] == [2, 1]
    assert called_home(away, 0) == []
    prefetching = worker(4, concurrency=1, busy=3, held=2, home_concurrency=2)
    assert called_home([prefetching], 1) == [prefetching], "what has not started is given back"


def test_one_that_idles_goes_home_after_a_while():
    homesick = Homesick(60.0)
    assert homesick.due([1, 2], 0.0) == [] and homesick.due([1], 50.0) == []
    assert homesick.due([1, 2], 60.0) == [1], "the other had something to do meanwhile"
    assert homesick.due([2], 125.0) == [2] and homesick.due([], 200.0) == []


# --- in a store -------------------------------------------------------------------------------------------------------


def put(house, batch="b", **more):
    body = {"batch": batch, **{k: v for k, v in rule(**more).items() if k not in ("id", "batch_id", "batch")}}
    return house.write(recruiters.put, body, WHO)


def place(house, worker_id):
    row = house.read(workers.get, worker_id)
    return row["batch"], row["concurrency"], row["prefetch"]


def told(house, action):
    rows = house.read(events.find, {"object": "worker", "who": "scheduler"}, 5000, None, False)
    return [(row["ids"], row["detail"]) for row in rows if row["action"] == action]


def test_an_idle_worker_is_taken_and_given_a_task_at_once(house):
    worker_id = house.worker(concurrency=4)
    put(house, concurrency=2, prefetch=1, maximum_workers=3)
    house.rung.clear()
    tasks = house.add(*({"command": "x", "batch": "b"} for _ in range(4)))
    assert place(house, worker_id) == ("b", 2, 1) and house.states(*tasks) == ["assigned"] * 3 + ["pending"]
    assert house.rung and worker_id in house.rung[0], "it is told at once"
    assert told(house, "worker.recruit") == [
        ([worker_id], {"batch": "b", "rank": 1, "concurrency": 2, "prefetch": 1, "from": ["Default"]})
    ]
    answer = house.sync(worker_id)
    assert (answer.batch, answer.concurrency, answer.prefetch, len(answer.orders)) == ("b", 2, 1, 3)


def test_a_recruiter_made_later_takes_too_and_twice_is_once(house):
    worker_id = house.worker()
    (task,) = house.add({"command": "x", "batch": "b"})
    assert house.states(task) == ["pending"]
    first = put(house)
    assert place(house, worker_id)[0] == "b" and house.states(task) == ["assigned"]
    assert put(house) == first and len(house.read(recruiters.find, {}, 10, None, False)) == 1
    made = [e["action"] for e in house.read(events.find, {"object": "recruiter"}, 10, None, False)]
    assert made == ["recruiter.create"], "what changes nothing is no event"


def test_nobody_who_works_is_taken(house):
    busy = house.worker("busy")
    (theirs,) = house.add("x")
    house.run(busy, theirs)
    draining, unfit, off = house.worker("draining"), house.worker("unfit"), house.worker("off", concurrency=0)
    house.write(workers.update, draining, {"draining": True}, WHO)
    house.write(lambda tx: tx.run("UPDATE worker SET problem = 'disk' WHERE id = ?", (unfit,)))
    put(house)
    (task,) = house.add({"command": "y", "batch": "b"})
    assert {place(house, w)[0] for w in (busy, draining, unfit, off)} == {"Default"}
    assert house.states(theirs, task) == ["running", "pending"]


def test_who_uploads_is_not_taken_until_it_has_done(house):
    worker_id = house.worker()
    (theirs,) = house.add("x")
    execution_id = house.run(worker_id, theirs)
    house.sync(worker_id, Report(execution_id, "uploading", started_ago=2.0, ended_ago=0.1))
    put(house)
    (task,) = house.add({"command": "y", "batch": "b"})
    assert place(house, worker_id)[0] == "Default" and house.states(task) == ["pending"]
    house.end(worker_id, theirs)
    assert place(house, worker_id)[0] == "b" and house.states(task) == ["assigned"]


def test_own_tasks_come_first_and_the_worker_is_taken_when_they_are_done(house):
    worker_id = house.worker()
    put(house)
    (lent,) = house.add({"command": "y", "batch": "b"})
    house.run(worker_id, lent)
    own = house.add("x", "x")
    assert place(house, worker_id)[0] == "b" and house.states(*own) == ["pending", "pending"]
    house.end(worker_id, lent)
    assert place(house, worker_id) == ("Default", 1, 0), "its own batch has called it home"
    more = house.add({"command": "y", "batch": "b"})
    for task in own:
        assert house.states(*more) == ["pending"]
        house.end(worker_id, task)
    assert place(house, worker_id)[0] == "b" and house.states(*more) == ["assigned"]


def test_called_home_what_it_runs_goes_on_and_what_has_not_started_goes_back(house):
    worker_id = house.worker(concurrency=2)
    put(house, concurrency=1, prefetch=1)
    first, second = house.add({"command": "y", "batch": "b"}, {"command": "y", "batch": "b"})
    execution_id = house.run(worker_id, first)
    (own,) = house.add("x")
    assert place(house, worker_id) == ("Default", 2, 0)
    desired = {order.id: order.desired for order in house.sync(worker_id, Report(execution_id, "running")).orders}
    assert desired.pop(execution_id) == "run" and list(desired.values()) == ["return"]
    house.sync(worker_id, Report(execution_id, "running"), *(Report(i, "lost") for i in desired))
    assert house.states(first, second, own) == ["running", "pending", "assigned"]


def test_one_that_idles_where_it_was_taken_goes_home(house):
    worker_id = house.worker(concurrency=3, prefetch=2)
    put(house, concurrency=1)
    (task,) = house.add({"command": "y", "batch": "b"})
    assert house.read(recruiters.resting) == []
    house.write(send_home, [worker_id], "scheduler")
    assert place(house, worker_id) == ("b", 1, 0), "it has something to do"
    house.end(worker_id, task)
    assert place(house, worker_id) == ("b", 1, 0) and house.read(recruiters.resting) == [worker_id]
    for _ in range(2):
        house.write(send_home, [worker_id], "scheduler")
        assert place(house, worker_id) == ("Default", 3, 2)
    assert told(house, "worker.return") == [([worker_id], {"batch": "Default"})]


def test_one_that_is_not_permanent_stays(house):
    worker_id = house.worker(permanent=False)
    put(house)
    (task,) = house.add({"command": "y", "batch": "b"})
    house.end(worker_id, task)
    assert house.read(recruiters.resting) == [] and place(house, worker_id)[0] == "b"


def test_who_is_given_a_batch_by_a_person_is_at_home_there(house):
    worker_id = house.worker()
    put(house)
    house.add({"command": "y", "batch": "b"})
    assert house.read(workers.get, worker_id)["home"] == "Default"
    house.write(workers.update, worker_id, {"batch": "b"}, WHO)
    assert house.read(workers.get, worker_id)["home"] is None
    house.add("x")
    assert place(house, worker_id)[0] == "b"


def test_a_batch_that_is_deleted_gives_back_what_it_took(house):
    worker_id = house.worker(batch="own", concurrency=5)
    put(house, concurrency=1)
    house.add({"command": "y", "batch": "b"})
    assert place(house, worker_id) == ("b", 1, 0)
    house.write(batches.delete, "b", WHO)
    assert place(house, worker_id) == ("own", 5, 0)
    assert house.rows("recruiter") == []
    put(house, concurrency=1)
    house.add({"command": "y", "batch": "b"})
    house.write(batches.delete, "own", WHO)
    assert house.read(workers.get, worker_id)["home"] == "Default"


def test_a_stopped_batch_takes_nobody(house):
    worker_id = house.worker()
    put(house)
    house.write(batches.stop, "b", WHO)
    (task,) = house.add({"command": "y", "batch": "b"})
    assert place(house, worker_id)[0] == "Default"
    house.write(batches.go, "b", WHO)
    assert place(house, worker_id)[0] == "b" and house.states(task) == ["assigned"]


def test_who_becomes_unfit_where_it_was_taken_goes_home_and_is_not_taken_there_again_for_a_while(house):
    worker_id = house.worker()
    put(house, concurrency=3)
    (container,) = house.add({"command": "y", "batch": "b"})
    assert house.states(container) == ["assigned"]
    execution_id = house.read(tasks.get, container)["execution_id"]
    house.sync(worker_id, Report(execution_id, "lost", reason="no docker"), problem="there is no docker")
    assert place(house, worker_id) == ("Default", 1, 0) and house.states(container) == ["pending"]
    house.sync(worker_id)  # the problem is over
    assert place(house, worker_id)[0] == "Default" and house.states(container) == ["pending"]
    put(house, batch="c")
    (other,) = house.add({"command": "z", "batch": "c"})
    assert place(house, worker_id)[0] == "c" and house.states(other) == ["assigned"], "whom it does not trouble may have it"
    house.end(worker_id, other)
    house.write(lambda tx: tx.run("UPDATE worker SET unfit = REPLACE(unfit, ': ', ': -')"))  # long ago
    house.add({"command": "y", "batch": "b"})
    assert place(house, worker_id)[0] == "b" and house.states(container) == ["assigned"]


def test_one_bad_recruiter_stops_no_other(house):
    worker_id = house.worker(flavor="local")
    bad = put(house, "bad")
    house.write(lambda tx: tx.run("UPDATE recruiter SET flavor = 'auto:nonsense>>1' WHERE id = ?", (bad["id"],)))
    put(house, "good", flavor="auto:cpu>=4:ram<10")
    tasks = house.add({"command": "x", "batch": "bad"}, {"command": "x", "batch": "good"})
    assert house.states(*tasks) == ["pending", "assigned"] and place(house, worker_id)[0] == "good"


def test_disks_and_gpus_are_those_of_the_statistics(house):
    stats = (
        '{"disks": {"/": {"total": 9e12}, "/scratch": {"total": 5e11, "free": 1}}, "gpus": [{"index": 0, "memory_total": 24e9}]}'
    )
    ids = [house.worker(name, flavor="x") for name in ("none", "odd", "gpu")]
    for worker_id, text in zip(ids, (None, '{"disks": [], "gpus": 3}', stats)):
        house.write(lambda tx, w=worker_id, t=text: tx.run("UPDATE worker SET stats = ? WHERE id = ?", (t, w)))
    put(house, flavor="auto:tags#G:gpumem>=24:disk==500")
    (task,) = house.add({"command": "x", "batch": "b"})
    assert [place(house, w)[0] for w in ids] == ["Default", "Default", "b"] and house.states(task) == ["assigned"]


def test_moves_are_no_more_than_tasks_that_start(house):
    """Two batches that both recruit share one worker: each move comes with a task."""
    worker_id = house.worker(batch="home")
    put(house, "left")
    put(house, "right")
    tasks = house.add(*({"command": "x", "batch": side} for side in ("left", "right") * 3))
    for _ in tasks:
        (held,) = house.rows("execution", "state = 'assigned'")
        house.end(worker_id, held["task_id"])
    assert house.states(*tasks) == ["succeeded"] * 6
    assert sum(len(ids) for ids, _ in told(house, "worker.recruit")) == 2 and told(house, "worker.return") == []


def test_recruiters_are_changed_and_deleted(house):
    first, second = put(house), put(house, rank=2, flavor="auto:cpu>=8")
    assert house.write(recruiters.update, second["id"], {"flavor": None}, WHO)["flavor"] is None
    with pytest.raises(Conflict, match="has a recruiter of rank 1"):
        house.write(recruiters.update, second["id"], {"rank": 1}, WHO)
    house.write(recruiters.delete, first["id"], WHO)
    assert [r["id"] for r in house.read(recruiters.find, {"batch": "b"}, 10, None, False)] == [second["id"]]
    with pytest.raises(NotFound):
        house.write(recruiters.delete, first["id"], WHO)


def test_a_pending_task_says_what_its_recruiters_are_about(house):
    put(house, flavor="auto:cpu>=64", provider="ovh")
    put(house, rank=2, minimum_tasks=9)
    (task,) = house.add({"command": "x", "batch": "b"})
    sentence = house.read(explain.explain, task)["sentence"]
    assert sentence == (
        "It waits for a worker: recruiter 1 of batch b looks for a worker of flavor auto:cpu>=64, provider ovh, and none idles; "
        "it deploys one as soon as a provider has room: `scitq manage flavor list` shows what they have; "
        "recruiter 2 of batch b takes no worker for less than 9 pending tasks."
    )
    house.worker(batch="b")
    (task,) = house.add({"command": "x", "batch": "b"})
    sentence = house.read(explain.explain, task)["sentence"]
    assert (
        "All 1 slots of batch b are busy; it is the next. Recruiter 1 of batch b takes a worker for every pending task, "
        in sentence
    )


# --- whatever happens -------------------------------------------------------------------------------------------------

SIDES = ("a", "b", "c")


class Walk:
    """Anything that may happen, in any order; after each step what must always hold is looked at."""

    def __init__(self, house, seed: int):
        self.house, self.random = house, random.Random(seed)
        self.workers = [house.worker(f"w{i}", self.random.choice(SIDES), 2, i % 2, flavor=f"f{i % 2}") for i in range(4)]
        self.steps = (self.add, self.add, self.start, self.start, self.end, self.end, self.end, self.put, self.put, self.forget,
                      self.stop_or_go, self.change, self.rest, self.delete_batch)  # fmt: skip

    def step(self) -> None:
        running = {row["id"] for row in self.house.rows("execution", "state = 'running'")}
        act = self.random.choice(self.steps)
        act()
        self.check(running if act not in (self.end, self.delete_batch) else set())

    def add(self) -> None:
        self.house.add(*({"command": "x", "batch": self.random.choice(SIDES)} for _ in range(self.random.randrange(1, 6))))

    def held(self, state: str) -> dict | None:
        rows = self.house.rows("execution", "state = ? AND desired IN ('run', 'return') ORDER BY id", state)
        return self.random.choice(rows) if rows else None

    def say(self, report: Report, row: dict) -> None:
        others = self.house._others(row["worker_id"], row["id"])
        answer = self.house.sync(row["worker_id"], *others, report)
        returned = [Report(order.id, "lost") for order in answer.orders if order.desired == "return"]
        if returned:
            self.house.sync(row["worker_id"], *self.house._others(row["worker_id"], 0), *returned)

    def start(self) -> None:
        if row := self.held("assigned"):
            self.say(Report(row["id"], "running", started_ago=0.1), row)

    def end(self) -> None:
        if row := self.held("running"):
            self.say(
                Report(row["id"], "succeeded", exit_code=0, started_ago=1.0, ended_ago=0.1, stdout_size=0, stderr_size=0), row
            )

    def put(self) -> None:
        chance = self.random
        put(self.house, chance.choice(SIDES), rank=chance.randrange(2), tasks_per_worker=chance.randrange(1, 4),
            flavor=chance.choice((None, "f0", "auto:cpu>=2", "auto:cpu>=99")), maximum_workers=chance.choice((None, 0, 1, 3)),
            concurrency=chance.choice((None, 1, 3)), prefetch=chance.choice((None, 0, 2)))  # fmt: skip

    def forget(self) -> None:
        if rows := self.house.rows("recruiter"):
            self.house.write(recruiters.delete, self.random.choice(rows)["id"], WHO)

    def stop_or_go(self) -> None:
        if rows := self.house.rows("batch", "name IN ('a', 'b', 'c')"):
            self.house.write(self.random.choice((batches.stop, batches.go, batches.go)), self.random.choice(rows)["name"], WHO)

    def change(self) -> None:
        changes = self.random.choice(
            ({"draining": True}, {"draining": False}, {"batch": "a"}, {"permanent": False}, {"permanent": True})
        )
        self.house.write(workers.update, self.random.choice(self.workers), changes, WHO)

    def rest(self) -> None:
        self.house.write(send_home, self.workers, "scheduler")

    def delete_batch(self) -> None:
        if self.random.random() < 0.2 and (rows := self.house.rows("batch", "name IN ('a', 'b', 'c')")):
            self.house.write(batches.delete, self.random.choice(rows)["name"], WHO)

    def check(self, running: set[int]) -> None:
        executions = {row["id"]: row for row in self.house.rows("execution")}
        for execution_id in running:
            row = executions[execution_id]
            assert (row["state"], row["desired"]) == ("running", "run"), "a running task was disturbed"
        known = {row["id"]: row for row in self.house.rows("batch")}
        assert all(row["batch_id"] in known for row in self.house.rows("recruiter"))
        for row in self.house.rows("worker"):
            assert row["batch_id"] in known and row["home_batch_id"] in (None, *known)
            assert (row["home_batch_id"] is None) == (row["home_concurrency"] is None) == (row["home_prefetch"] is None)
            busy = sum(e["worker_id"] == row["id"] and e["state"] in ("assigned", "running") for e in executions.values())
            waits = self.house.rows("task", "state = 'pending' AND batch_id = ?", row["batch_id"])
            if waits and not row["draining"] and not known[row["batch_id"]]["stopped"]:
                assert busy >= row["concurrency"], "a slot is free and a task of its batch waits"
        moved = sum(count_of(ids) for ids, _ in told(self.house, "worker.recruit"))
        (given_out,) = self.house.rows("counter", "name = 'execution'")
        assert moved < given_out["next"], "more workers moved than tasks were given out"


def count_of(ids: list) -> int:
    """How many ids there are, ranges of them too."""
    return sum(int(word.partition("-")[2]) - int(word.partition("-")[0]) + 1 if isinstance(word, str) else 1 for word in ids)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_nothing_is_disturbed_and_nothing_moves_for_nothing(house, seed):
    walk = Walk(house, seed)
    for _ in range(150):
        walk.step()
