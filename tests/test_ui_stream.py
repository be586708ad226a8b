"""News of batches and workers, as one stream with ids and replay, and by polling."""

from __future__ import annotations

import contextlib

import pytest
from env import Env
from hands import Hands
from listener import Listener
from scitq.api.feed import difference


def user(env: Env) -> str:
    return env.api("POST", "/tokens", {"name": "ursula"})["token"]


@contextlib.contextmanager
def listening(env: Env, token: str | None = None, last: str | None = None, url: str | None = None, **query):
    listener = Listener(url or env.url, token or env.token, last, **query)
    yield listener
    listener.close()


def counts(batch: str, **wanted):
    """Whether an event says so of a batch."""
    return lambda told: any(row["name"] == batch and row["counts"] == wanted for row in told.data["batches"])


def test_first_all_there_is_then_what_changes(served, batch):
    env = served
    env.create({"command": "true", "batch": batch})
    with listening(env, user(env)) as listener:
        first = listener.next()
        assert listener.status == 200 and listener.kind.startswith("text/event-stream") and listener.retry == 1000
        assert first.kind == "snapshot" and counts(batch, pending=1)(first)
        assert (
            first.data["server"]["you"] == {"name": "ursula", "role": "user"} and first.data["server"]["counts"]["pending"] >= 1
        )
        env.create({"command": "true", "batch": batch})
        second = listener.until(counts(batch, pending=2))
        assert second.kind == "changes" and second.data["version"] != first.data["version"]
        assert "you" not in second.data["server"] and second.data["batches_gone"] == []
        hands = Hands(env, f"w-{batch}", batch)
        row = listener.until(lambda told: told.data["workers"]).data["workers"][0]
        assert row["name"] == f"w-{batch}" and row["stats"] is None
        env.api("DELETE", f"/workers/{hands.row['id']}")
        listener.until(lambda told: hands.row["id"] in told.data["workers_gone"])
        env.api("DELETE", f"/batches/{batch}")
        listener.until(lambda told: batch in told.data["batches_gone"])


def test_what_was_missed_is_told_again(served, batch):
    env = served
    with listening(env) as listener:
        first = listener.next()
        env.create({"command": "true", "batch": batch})
        seen = [listener.until(counts(batch, pending=1))]
    with listening(env, last=first.id) as again:
        missed = again.until(counts(batch, pending=1))
        assert (missed.id, missed.kind, missed.data) == (seen[0].id, "changes", seen[0].data)
    with listening(env, after=seen[0].id) as again:
        env.create({"command": "true", "batch": batch})
        assert again.next().kind == "changes"
    with listening(env, last=seen[0].id, after=first.id) as again:
        assert again.next().id not in (first.id, seen[0].id), "what a browser heard last wins over where it once began"


@pytest.mark.parametrize("last", ["nonsense", "00000000-1", "-1", "a-b", "0-99999999999999999999"])
def test_an_id_that_is_not_known_begins_anew(served, last):
    with listening(served, last=last) as listener:
        assert listener.next().kind == "snapshot"


def test_an_id_of_the_future_begins_anew(served):
    with listening(served) as listener:
        name = listener.next().id.partition("-")[0]
    with listening(served, last=f"{name}-123456") as listener:
        assert listener.next().kind == "snapshot"


def test_a_stream_ends_when_it_should(served):
    with listening(served, wait=0) as listener:
        assert [told.kind for told in listener.rest()] == ["snapshot"]


def test_asking_again_and_again_tells_the_same(served, batch):
    env = served
    first = env.api("GET", "/changes")
    assert [event["event"] for event in first["events"]] == ["snapshot"] and first["next"] == first["events"][0]["id"]
    env.create({"command": "true", "batch": batch})
    place, found = first["next"], []

    def is_told() -> bool:
        nonlocal place
        told = env.api("GET", "/changes", after=place, wait=5)
        found.extend(told["events"])
        place = told["next"]
        return any(row["name"] == batch for event in found for row in event["data"]["batches"])

    env.until(is_told, what="the new batch is told")
    with listening(env, last=first["next"]) as listener:
        assert listener.until(lambda told: told.id == found[-1]["id"]).data == found[-1]["data"]
    assert env.api("GET", "/changes", after="00000000-7")["events"][0]["event"] == "snapshot"


def test_a_revoked_token_hears_no_more(served, batch):
    made = served.api("POST", "/tokens", {"name": "gone"})
    with listening(served, made["token"]) as listener:
        listener.next()
        served.api("DELETE", f"/tokens/{made['id']}")
        served.create({"command": "true", "batch": batch})
        listener.rest()
        assert listener.ended


def test_a_server_that_stops_ends_its_streams_and_a_new_one_begins_anew(env):
    server = env.server()
    with listening(env) as listener:
        first = listener.next()
        assert server.stop() == 0
        listener.rest()
    server.start()
    with listening(env, last=first.id) as listener:
        assert listener.next().kind == "snapshot"


def test_without_a_free_seat_it_sends_what_it_has_and_ends(env):
    """Whoever goes away leaves the seat to others, as soon as the server has tried to tell something twice."""
    env.server("--threads", "8")
    with contextlib.ExitStack() as stack:
        seated = [stack.enter_context(listening(env)) for _ in range(6)]
        assert [listener.next().kind for listener in seated] == ["snapshot"] * 6
        with listening(env) as listener:
            assert [told.kind for told in listener.rest()] == ["snapshot"] and listener.retry == 5000
        assert env.api("GET", "/changes", after=None, wait=20)["events"]  # at once
    env.until(lambda: _is_seated(env), what="a seat is free again")


def _is_seated(env: Env) -> bool:
    env.create({"command": "true"})
    with listening(env, wait=0) as listener:
        listener.rest()
        return listener.retry == 1000


def test_servers_of_one_database_tell_the_same(tmp_path, postgres):
    env = Env(tmp_path, postgres.new_database())
    env.server()
    other = env.server(name="other")
    with listening(env) as here, listening(env, url=other.url) as there:
        first = here.next()
        assert there.next().kind == "snapshot"
        env.create({"command": "true", "batch": "b"})
        for listener in (here, there):
            listener.until(counts("b", pending=1))
    with listening(env, url=other.url, last=first.id) as moved:
        assert moved.next().kind == "snapshot"
    env.close()


# --- what is news -----------------------------------------------------------------------------------------------------


def picture(version=1, batches=None, workers=None, jobs=None, decides=True, **counts) -> dict:
    return {
        "version": version,
        "batches": batches or {},
        "workers": workers or {},
        "jobs": jobs or {},
        "server": {"counts": counts, "decides": decides},
    }


@pytest.mark.parametrize(
    "before, after, news",
    [
        (picture(), picture(), None),
        (picture(1), picture(2), {"version": 2, "batches": [], "batches_gone": [], "workers": [], "workers_gone": []}),
        (picture(batches={"a": 1, "b": 1}), picture(batches={"b": 2, "c": 1}), {"batches": [2, 1], "batches_gone": ["a"]}),
        (picture(workers={1: "x", 2: "y"}), picture(workers={1: "x"}), {"workers": [], "workers_gone": [2]}),
        (picture(jobs={1: "x"}), picture(jobs={1: "y", 2: "x"}), {"jobs": ["y", "x"], "jobs_gone": []}),
        (picture(pending=1), picture(pending=2), {"server": {"counts": {"pending": 2}, "decides": True}}),
    ],
)
def test_only_what_differs_is_told(before, after, news):
    found = difference(before, after)
    assert (found is None) == (news is None) and (news or {}).items() <= (found or {}).items()
