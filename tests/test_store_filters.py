"""Filters: what users write, what is refused and by which word, and that both databases find the same."""

from __future__ import annotations

import fnmatch
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scitq.errors import InvalidRequest
from scitq.store import executions, filters, tasks, workers
from scitq.store.filters import Filter


def found(house, **words) -> list[int]:
    return house.read(tasks.ids_of, Filter.of(words))


def attempts(house, **words) -> list[int]:
    return [row["id"] for row in house.read(executions.find, Filter.of(words), None, 100, None, False)]


# --- the grammar ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "wrong"), [
    ("state", "runing"), ("state", ""), ("state", " , "), ("state", "failed;lost"),
    ("ids", ""), ("ids", "a"), ("ids", "-3"), ("ids", "3-"), ("ids", "1,,2"), ("ids", "1.5"), ("ids", "9" * 19), ("ids", "²"),
    ("exit_code", ""), ("exit_code", "x"), ("exit_code", "1,"), ("exit_code", "1.0"), ("exit_code", str(2**31)),
    ("since", ""), ("since", "2"), ("since", "2 h"), ("since", "h"), ("since", "-2h"), ("since", "2y"), ("since", "noon"),
    ("since", "2026-13-01"), ("since", "1..5h"),
    ("name", "[z-a]"), ("name", "a[!c-b]"), ("name", "[a--]"),
])  # fmt: skip
def test_what_is_wrong_is_told_by_its_word(word, wrong):
    with pytest.raises(InvalidRequest) as refusal:
        Filter.of({word: wrong})
    assert refusal.value.field == word and str(refusal.value)


def test_the_nearest_state_is_told():
    with pytest.raises(InvalidRequest, match="did you mean 'running'"):
        Filter.of({"state": "succeeded,runing"})


def test_what_is_not_given_does_not_filter():
    assert Filter.of(dict.fromkeys(filters.NAMES)) == Filter()


@pytest.mark.parametrize(("text", "seconds_ago"), [
    ("90s", 90), ("2h", 7200), ("1d12h", 129_600), ("1.5h", 5400), ("2w", 1_209_600), ("0m", 0),
])  # fmt: skip
def test_an_age_is_a_moment(text, seconds_ago):
    assert filters.moment_of(text, 1e9) == 1e9 - seconds_ago


@pytest.mark.parametrize(
    "text", ["2026-11-21T10:00", "2026-11-21T10:00:00Z", "2026-11-21T12:00+02:00", "2026-11-21 10:00:00.000"]
)
def test_a_time_without_a_zone_is_utc(text):
    assert filters.moment_of(text, 0.0) == datetime(2026, 11, 21, 10, tzinfo=timezone.utc).timestamp()


# --- what they find ---------------------------------------------------------------------------------------------------------


def test_ids_of_any_number_and_order(house):
    ids = house.add(*["x"] * 3000)
    assert found(house, ids=f"{ids[7]},{ids[2]}-{ids[4]},{ids[3]},999999999999999999") == [*ids[2:5], ids[7]]
    assert found(house, ids=",".join(map(str, reversed(ids)))) == ids, "thousands of single ones"
    assert found(house, ids=f"{ids[0]}-{ids[-1]}") == ids, "one wide range"
    assert found(house, ids=f"0-{2**31 - 1}") == ids
    assert found(house, ids="9-3") == [] and found(house, ids="0") == []


def test_too_many_wide_ranges_are_refused(house):
    words = ",".join(f"{n * 10_000}-{n * 10_000 + 5000}" for n in range(filters._MOST_RANGES + 1))
    with pytest.raises(InvalidRequest) as refusal:
        found(house, ids=words)
    assert refusal.value.field == "ids"


def test_a_task_without_a_name_passes_the_star_alone(house):
    named, bare = house.add({"command": "x", "name": "n"}, {"command": "x"})
    assert (found(house, name="*"), found(house, name="**"), found(house, name="[!x]*")) == ([named, bare], [named], [named])


def test_all_that_is_given_must_hold(house):
    house.worker(concurrency=3)
    ids = house.add(*[{"command": "x", "name": name} for name in ("a1", "a2", "b1")])
    for task_id, code in zip(ids, (1, 2, 1)):
        house.end(1, task_id, "failed", code)
    assert found(house, name="a*", exit_code="1") == [ids[0]]
    assert found(house, name="a*", exit_code="1", state="succeeded") == []
    assert found(house, batch="Default", name="?1", exit_code="1,2", worker="w", since="1h", ids=f"{ids[1]}-{ids[2]}") == [ids[2]]


def test_the_state_of_a_task_and_that_of_an_attempt(house):
    house.worker()
    (task_id,) = house.add({"command": "x", "retry": 1})
    first = house.end(1, task_id, "failed", 1)
    second = house.run(1, task_id)
    assert (found(house, state="failed"), found(house, state="running")) == ([], [task_id])
    assert (attempts(house, state="failed"), attempts(house, state="running,failed")) == ([first], [first, second])
    assert (found(house, exit_code="1"), attempts(house, exit_code="1")) == ([], [first]), "a task's exit code is its latest"
    assert attempts(house, ids=str(second)) == [second]


def test_a_worker_by_name_and_by_id_also_when_it_is_gone(house):
    worker_id = house.worker("9000", batch="b")
    (task_id,) = house.add({"command": "x", "batch": "b"})
    house.end(worker_id, task_id)
    house.write(workers.delete, worker_id, "ann")
    assert found(house, worker="9000") == found(house, worker=str(worker_id)) == [task_id]
    assert found(house, worker="nobody") == found(house, worker="9" * 30) == found(house, worker="²") == []


def test_the_last_output_is_searched_as_it_stands(house):
    house.worker()
    for text in (b"all 50% of it\n", b"Memory_error", b"caf\xc3\xa9 \xff"):
        (task_id,) = house.add("x")
        house.end(1, task_id, "failed", 1, text)
    ids = found(house)
    searched = {"50%": 0, "y_e": 1, "yXe": None, "memory": None, "caf\u00e9": 2, "\ufffd": 2, "'": None, "\\": None}
    for text, index in searched.items():
        assert found(house, grep=text) == ([] if index is None else [ids[index]]), text


def test_since_is_the_last_change_of_a_task_and_the_last_of_an_attempt(house):
    house.worker()
    old, new = house.add("x", "x")
    execution_id = house.end(1, old)
    house.write(lambda tx: tx.run("UPDATE task SET state_at = state_at - 7200 WHERE id = ?", (old,)))
    house.write(lambda tx: tx.run("UPDATE execution SET finished_at = finished_at - 7200 WHERE id = ?", (execution_id,)))
    an_hour_ago = (datetime.now(timezone.utc) - timedelta(hours=1)).isoformat()
    for since in ("1h", an_hour_ago, an_hour_ago.replace("+00:00", "Z")):
        assert found(house, since=since) == [new] and execution_id not in attempts(house, since=since)
    assert found(house, since="3h") == [old, new] and execution_id in attempts(house, since="3h")


# --- globs ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def glob_holds(house):
    """Whether the database says that a glob holds for a name."""

    def holds(pattern: str, name: str) -> bool:
        def ask(tx) -> bool:
            test, params = filters.glob_test(tx, "CAST(? AS TEXT)", pattern)
            return bool(tx.value(f"SELECT {test}", [name, *params]))

        return house.store.read(ask)

    return holds


def legal(pattern: str) -> bool:
    try:
        return filters.checked_glob(pattern) == pattern
    except InvalidRequest:
        return False


_letters = "ab[]!^-*?\\.{}()|+$ \né"
_pieces = st.sampled_from(
    ["a", "b", "*", "?", "[ab]", "[!a]", "[a-c]", "[]a]", "[!]", "[^a]", "[", "]", "[\\]", "[a-]", "[--b]", "\\"]
)
_texts = st.text(st.sampled_from(_letters) | st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
_patterns = (st.lists(_pieces, max_size=5).map("".join) | _texts).filter(legal)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
)
@given(pattern=_patterns, name=st.text(_letters, max_size=6) | _texts)
@example(pattern="[!]", name="[!]")
@example(pattern="[]-a]", name="^")
@example(pattern="[^a]", name="^")
@example(pattern="[!^-]", name="-")
@example(pattern="a\nb*", name="a\nb\n")
@example(pattern="?", name="\U0001f9ec")
@example(pattern="a", name="A")
def test_a_glob_means_what_it_means_to_fnmatch(glob_holds, pattern, name):
    for text in (name, pattern):
        assert glob_holds(pattern, text) == fnmatch.fnmatchcase(text, pattern)


def test_a_glob_of_many_stars_is_quick(glob_holds):
    assert not glob_holds("*a" * 20 + "b", "a" * 400)
    assert not glob_holds("*[a]" * 20 + "b", "a" * 400)


def test_workers_are_found_by_the_same_globs(house):
    house.worker("node-1")
    house.worker("node-[x]")

    def names(glob: str) -> list[str]:
        return [row["name"] for row in house.read(workers.find, {"name": glob}, 10, None, False)]

    assert names("node-[0-9]") == ["node-1"] and names("node-[[]x]") == ["node-[x]"] and len(names("node-*")) == 2
    with pytest.raises(InvalidRequest) as refusal:
        names("node-[9-0]")
    assert refusal.value.field == "name"
