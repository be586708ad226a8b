"""Deployments that do not go as they should: a real server, real workers on this machine."""

from __future__ import annotations

from machines import Site


def test_where_there_is_no_room_the_next_place_is_taken(env):
    """What the provider told of its quota is old: it refuses, and the worker is deployed where it costs more.

    A batch may have any name.
    """
    site = Site(env, maximum=1)
    try:
        (first,) = site.deploy(number=1, provider="here")
        site.until_online(1)
        env.api("PATCH", f"/workers/{first['worker']}", {"concurrency": 0})  # it is there, and nobody's to take
        site.change("UPDATE flavor SET available = 9, updated_at = updated_at + 1000")
        env.api("POST", "/recruiters", {"batch": "-full", "rank": 1, "provider": "auto", "maximum_workers": 1})
        env.wait_state(env.create({"command": "true", "batch": "-full"}))
        (machine,) = [row for row in site.machines() if row["batch"] == "-full"]
        assert machine["provider"] == "there"
        (job,) = [row for row in site.jobs(kind="deploy") if row["batch"] == "-full"]
        lines = " ".join(row["line"] for row in env.api("GET", f"/jobs/{job['id']}/log")["items"])
        assert "has room for 0 more" in lines and "there instead" in lines and job["attempt"] == 1
        site.change("UPDATE flavor SET available = 9, updated_at = updated_at + 1000")
        (order,) = site.deploy(number=1, provider="auto", region="auto", flavor="auto")
        assert env.api("GET", f"/machines/{order['machine']}")["provider"] == "there"
        site.until_online(3)
    finally:
        site.clear()


def test_a_worker_that_never_calls(env):
    """Each attempt is cleaned up; after the last one nothing is left but a job that says why."""
    site = Site(env, url="url: http://127.0.0.1:9", boot_timeout="1s", retry=1)
    (order,) = site.deploy(number=1)
    site.until(lambda: site.jobs(state="failed", kind="deploy"), what="it is given up")
    job = env.api("GET", f"/jobs/{order['job']}")
    assert job["attempt"] == 2 and "has not called within 1 s" in job["message"]
    lines = [row["line"] for row in env.api("GET", f"/jobs/{order['job']}/log")["items"]]
    assert sum("removing what is left" in line for line in lines) == 2
    assert site.machines() == [] and site.running() == {} and site.folders() == set() and env.items("/workers") == []
    assert job["message"] in str(env.api("GET", "/attention")["jobs"])


def test_what_was_given_up_and_not_removed_is_removed_first(env):
    """The server was killed between the two: the machine that is there could never call, and nobody waits for it."""
    site = Site(env, url="url: http://127.0.0.1:9")
    try:
        (order,) = site.deploy(number=1)
        site.until(lambda: site.machines()[0]["state"] == "booting", what="it is there, and calls in vain")
        (first,) = site.until(site.running, what="its process has become the worker").values()
        site.server.kill9()
        site.change(f"UPDATE token SET revoked_at = 1 WHERE worker_id = {order['worker']}")
        columns = "id, kind, state, provider, attempt, retry, progress, asked_by, created_at, finished_at"
        site.change(f"INSERT INTO job ({columns}) VALUES (999, 'destroy', 'succeeded', 'here', 1, 0, 100, 'ann', 1, 1)")
        site.configure()
        site.server.start()
        site.until_online(1)
        site.until_quiet()
        (row,) = site.jobs(kind="deploy")
        assert (row["state"], row["attempt"], row["machine"]) == ("succeeded", 1, order["machine"])
        assert len(site.running()) == 1 and first not in site.running().values()
        site.until(lambda: 999 not in [row["id"] for row in site.jobs()], what="what ended long ago is forgotten")
    finally:
        site.clear()
