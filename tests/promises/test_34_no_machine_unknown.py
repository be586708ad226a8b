"""Promise 34: a machine is recorded before it is asked for; none is left running and unknown. Servers are killed at all steps."""

from __future__ import annotations

import pytest
from env import Env
from machines import Site
from scitq.cloud.provider import Order, Start

from scitq import cloud


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("clouds"))
    made = Site(env)
    yield made
    if made.server.alive:
        made.clear()
        assert made.folders() == set()
    env.close()


def machine_of(site, order: dict) -> tuple[str, str]:
    """Name and state, from the database itself."""
    return site.rows(f"SELECT name, state FROM machine WHERE id = {order['machine']}")[0]


def check_known(site) -> None:
    """Everything that runs, or has left anything, is in the list of machines, and those that are up do run."""
    site.until_quiet()
    machines = {machine["name"]: machine["state"] for machine in site.machines()}
    assert set(site.running()) | site.folders() == {name for name, state in machines.items()}
    assert set(machines.values()) <= {"up"}


def restart(site) -> None:
    site.server.kill9()
    site.server.start()


def test_killed_when_it_was_only_written_down(site):
    """The order was answered; whatever the server did with it in that moment, it is carried out once."""
    site.deploy(number=2)
    restart(site)
    site.until_online(2)
    check_known(site)
    site.clear()


def test_killed_while_the_provider_is_asked(site):
    """Asked, and nothing made yet: the provider answers later, to nobody."""
    site.here.mkdir(exist_ok=True)
    with site.holding(site.here / "lock"):
        (order,) = site.deploy(number=1)
        site.env.until(lambda: machine_of(site, order)[1] == "creating", what="the provider is asked")
        restart(site)
    site.until_online(1)
    check_known(site)
    assert len(site.running()) == 1
    site.clear()


def test_killed_when_something_is_there_and_nobody_was_told(site):
    (order,) = site.deploy(number=1)
    name, _ = machine_of(site, order)
    site.env.until(
        lambda: name in site.folders() or machine_of(site, order)[1] not in ("planned", "creating"), what="it begins"
    )
    restart(site)
    site.until_online(1)
    check_known(site)
    assert set(site.running()) == {name}
    site.clear()


def test_killed_while_the_worker_starts_and_then_forgotten(site):
    """It exists, its worker has not called: deleted by a person as soon as the server is back."""
    (order,) = site.deploy(number=1)
    name, _ = machine_of(site, order)
    site.env.until(lambda: machine_of(site, order)[1] != "creating" or name in site.running(), what="its process is there")
    site.server.kill9()
    site.server.start()
    site.env.answer("DELETE", f"/workers/{order['worker']}")
    site.until(lambda: not site.machines(), what="it is gone")
    check_known(site)
    assert site.running() == {} and site.folders() == set()


def test_killed_while_it_is_destroyed(site):
    """Ordered, begun, or done and not yet known: it goes on until nothing is left."""
    orders = site.deploy(number=2)
    site.until_online(2)
    names = [machine_of(site, order)[0] for order in orders]
    with site.holding(site.server.data / "asking" / f"{names[0]}.lock"):  # nobody can ask the provider about this one
        for order in orders:
            assert site.env.answer("DELETE", f"/workers/{order['worker']}").status in (202, 204)
        site.env.until(lambda: names[1] not in site.running(), what="the other one's process has ended")
        restart(site)
        assert names[0] in site.running()
    site.until(lambda: not site.machines(), what="both are gone")
    check_known(site)
    assert site.running() == {} and site.folders() == set()
    assert {row["state"] for row in site.jobs(kind="destroy")} == {"succeeded"}


def test_a_machine_that_nobody_here_asked_for_is_shown_then_destroyed(site):
    """Ours by its tag, in no row: of a database that was restored from a backup, say."""
    (server_id,) = site.rows("SELECT value FROM setting WHERE name = 'server_id'")[0]
    tag = f"scitq-{server_id}"

    def make(number: int) -> str:
        name = f"scitq-{server_id[:8]}-{number}"
        start = Start("http://127.0.0.1:9", "scitq_none", f"stray-{number}", "k" * 32, 1, 0, "Default", "", "1")
        config = {"kind": "local", "maximum": 20, "scratch": str(site.here)}
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in site.env.variables.items():
                patch.setenv(variable, value)
            cloud.provider("here", config, tag, lambda line: None).create(Order(name, tag, "local", "local", start))
        return name

    name = make(900_001)
    restart(site)
    (found,) = site.until(lambda: site.machines(unknown="true"), what="it is found")
    assert (found["name"], found["provider"], found["worker"]) == (name, "here", None)
    assert any(name in str(part) for part in site.env.api("GET", "/attention").values())
    assert name in site.running()  # it is for a person to say
    site.env.api("DELETE", f"/machines/{found['id']}")
    site.until(lambda: not site.machines(), what="it is gone")
    assert name not in site.folders()

    name = make(900_002)
    site.configure(destroy_unknown=True)
    restart(site)
    site.until(
        lambda: site.rows(f"SELECT 1 FROM machine WHERE name = '{name}' AND state = 'gone'"), what="it is destroyed unasked"
    )
    assert site.running() == {} and site.folders() == set()
