"""Promise 35: one provider's trouble stops neither scheduling nor the others."""

from __future__ import annotations

import pytest
from machines import Site


@pytest.fixture
def site(env):
    made = Site(env)
    yield made
    made.clear()
    assert made.running() == {} and made.folders() == set()


def test_a_provider_that_hangs(site):
    """More is asked of it than may be asked at once, and it answers nothing: the other one makes machines, and tasks run."""
    env = site.env
    env.worker(batch="lab")
    site.here.mkdir(parents=True, exist_ok=True)
    with site.holding(site.here / "lock"):
        site.deploy(number=12, provider="here")
        site.until(
            lambda: site.rows("SELECT 1 FROM machine WHERE provider = 'here' AND state = 'creating'"), what="it is asked"
        )
        site.deploy(number=1, provider="there", batch="cloud")
        site.until_online(1)
        env.wait_state(env.create({"command": "true", "batch": "cloud"}, {"command": "true", "batch": "lab"}))
        assert {row["provider"] for row in site.online()} == {"there"}
        for row in site.machines(provider="here"):  # nobody has to wait for it to be rid of what was ordered
            env.answer("DELETE", f"/machines/{row['id']}")
        site.until(
            lambda: {row["state"] for row in site.jobs(kind="deploy", provider="here")} == {"canceled"}, what="all are canceled"
        )


def test_a_provider_that_fails(site):
    """What it says is told; nothing is left of what it failed to make; the other one goes on."""
    env = site.env
    site.deploy(number=1, provider="here")
    site.until_online(1)
    site.clear()
    away = site.here.with_name("away")
    site.here.rename(away)
    site.here.write_text("a file where it wants its folder")
    answer = env.answer("POST", "/workers/deploy", {"provider": "here", "flavor": "local", "region": "local"}, timeout=60)
    told = answer.json()["error"]["message"] if answer.status != 202 else failed(site)["message"]
    assert str(site.here) in told and "\n" not in told
    site.deploy(number=1, provider="there")
    site.until_online(1)
    assert [row["provider"] for row in site.machines()] == ["there"]
    site.here.unlink()
    away.rename(site.here)


def failed(site) -> dict:
    return site.until(lambda: site.jobs(kind="deploy", state="failed"), what="it has failed")[0]
