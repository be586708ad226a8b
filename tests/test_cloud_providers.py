"""What every provider does alike: one suite for all of them, on something that is really there (`clouds/<kind>.py`)."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest
from clouds.rig import KEY, TOKEN, command_lines
from scitq.cloud import KINDS
from scitq.cloud.calls import Call
from scitq.cloud.provider import BROKEN, CREATING, EVICTED, UP, CloudRefused, CloudTrouble, Machine, NoRoom
from scitq.errors import ScitqError

OURS, THEIRS = "scitq-00000000aaaaaaaa", "scitq-11111111bbbbbbbb"
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module", params=KINDS)
def rig(request, tmp_path_factory):
    made = importlib.import_module(f"clouds.{request.param}").Rig(tmp_path_factory.mktemp(request.param))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environ.items():
            patch.setenv(name, value)
        yield made
        for tag in (OURS, THEIRS):
            remove_all(made, tag)
    left = made.things()
    made.close()
    assert left == set(), "something is left behind"


@pytest.fixture(autouse=True)
def empty_after(request, rig):
    """Each test begins with nothing there."""
    yield
    for tag in (OURS, THEIRS):
        remove_all(rig, tag)


def remove_all(rig, tag: str) -> None:
    provider = rig.provider(tag)
    for machine in list(provider.list()):
        provider.delete(machine)


def until(condition, what: str):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:g} s: {what}"
        time.sleep(0.01)
    return value


def is_a_sentence(error: ScitqError) -> bool:
    text = str(error)
    return 10 < len(text) < 600 and "\n" not in text and "Traceback" not in text and TOKEN not in text


def test_a_machine_comes_is_listed_and_goes(rig):
    provider, order, before = rig.provider(), rig.order(), rig.things()
    made = provider.create(order)
    assert (made.name, made.region) == (order.name, rig.region)
    found = until(lambda: [m for m in provider.list() if m.state == UP], "it is up")
    assert [(m.name, m.region, m.flavor) for m in found] == [(order.name, rig.region, rig.flavor)]
    assert made.id in (None, found[0].id)
    assert rig.things() > before
    provider.delete(found[0])
    assert rig.names() == [] and rig.things() == before


def test_asked_twice_it_is_one_machine(rig):
    order = rig.order()
    first = rig.provider().create(order)
    there = until(lambda: rig.machine(order.name).state == UP and rig.things(), "it is up")
    again = replace(order, start=replace(order.start, token=TOKEN + "-another"))  # a new attempt has a new token
    second = rig.provider().create(again)
    assert (first.name, first.id) == (second.name, second.id)
    assert rig.names() == [order.name] and rig.things() == there


def test_deleted_twice_and_never_there(rig):
    provider, order = rig.provider(), rig.order()
    made = provider.create(order)
    provider.delete(made)
    provider.delete(made)
    provider.delete(
        Machine(f"{order.name[:-3]}xyz", rig.region, CREATING)
    )  # an order that never arrived: only the name is known
    assert rig.names() == []


def test_deleted_by_its_name_alone(rig):
    """The server was killed before it heard the provider's own id."""
    order = rig.order()
    rig.provider().create(order)
    rig.provider().delete(Machine(order.name, rig.region, CREATING))
    assert rig.names() == [] and rig.things() == set()


@pytest.mark.parametrize("then", ["asked again", "removed"])
def test_killed_between_the_question_and_its_answer(rig, then):
    """Whatever is there by then is listed, goes on by the same order, and goes with the machine."""
    order = rig.order()
    call = rig.call("create", order=asdict(order))
    ended = []

    def ask():
        try:
            ended.append(call.answer())
        except CloudTrouble as error:
            ended.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: rig.things() or ended, "something is there")
    call.stop()
    asking.join()
    assert rig.names() == [order.name]
    if then == "asked again":
        rig.provider().create(order)
        until(lambda: rig.machine(order.name).state == UP, "it is up")
        assert rig.names() == [order.name]
    rig.provider().delete(rig.machine(order.name))
    assert rig.names() == []
    until(lambda: rig.things() == set(), "what was about to be made has found out")


@pytest.mark.parametrize("then", ["asked again", "removed"])
def test_killed_before_it_was_written_down_whose_it_is(rig, then):
    """The folder of a machine is there, its record is not, or in part only: its name tells whose it is."""
    ours, theirs = rig.order(), rig.order(THEIRS)
    if rig.half_made(ours.name) is None:
        pytest.skip("nothing of it is made in two steps")
    for order in (ours, theirs):
        record = rig.half_made(order.name)
        record.parent.mkdir(parents=True)
        record.with_name("machine.json.1").write_text('{"na')
    assert (rig.names(OURS), rig.names(THEIRS)) == ([ours.name], [theirs.name])
    if then == "asked again":
        rig.provider().create(ours)
        until(lambda: rig.machine(ours.name).state == UP, "it is up")
    rig.provider().delete(rig.machine(ours.name))
    assert rig.names() == [] and rig.names(THEIRS) == [theirs.name]
    rig.provider(THEIRS).delete(rig.machine(theirs.name, THEIRS))
    assert rig.things() == set()


def test_deleted_while_it_is_made(rig):
    order = rig.order()
    made = rig.provider().create(order)
    assert rig.machine(order.name).state in (CREATING, UP)
    rig.provider().delete(made)
    assert rig.things() == set()


def test_a_flavor_or_region_that_is_not_there_is_refused(rig):
    provider = rig.provider()
    for flavor, region, named in ((rig.flavor + "x", rig.region, rig.flavor), (rig.flavor, rig.region + "x", rig.region)):
        with pytest.raises(CloudRefused) as refused:
            provider.check(flavor, region, 1)
        assert (
            is_a_sentence(refused.value)
            and named + "x" in str(refused.value)
            and named in str(refused.value).replace(named + "x", "")
        )
        with pytest.raises(CloudRefused) as refused:
            provider.create(rig.order(flavor=flavor, region=region))
        assert is_a_sentence(refused.value)
    assert rig.names() == [] and rig.things() == set()


def test_what_can_be_made_is_not_refused(rig):
    rig.provider().check(rig.flavor, rig.region, 1)
    assert rig.things() == set()


def test_more_than_there_is_room_for(rig):
    with pytest.raises((NoRoom, CloudRefused)) as refused:
        rig.provider().check(rig.flavor, rig.region, 1_000_000)
    assert is_a_sentence(refused.value)


def test_flavors(rig):
    found = list(rig.provider().flavors())
    assert (rig.flavor, rig.region) in {(flavor.name, flavor.region) for flavor in found}
    assert len({(flavor.name, flavor.region) for flavor in found}) == len(found)
    for flavor in found:
        for name in ("cpu", "gpus", "available"):
            assert getattr(flavor, name) is None or type(getattr(flavor, name)) is int, name
        for name in ("ram", "disk", "gpumem", "price", "eviction"):
            assert getattr(flavor, name) is None or getattr(flavor, name) >= 0, name
        assert set(flavor.tags) <= set("GMN")
        assert flavor.price in (None, 0) or flavor.currency


def test_machines_of_another_server_are_never_touched(rig):
    ours, theirs = rig.order(OURS), rig.order(THEIRS)
    rig.provider(OURS).create(ours)
    their_machine = rig.provider(THEIRS).create(theirs)
    assert (rig.names(OURS), rig.names(THEIRS)) == ([ours.name], [theirs.name])
    try:
        rig.provider(OURS).delete(their_machine)
    except ScitqError as error:
        assert is_a_sentence(error)
    assert rig.names(THEIRS) == [theirs.name]
    rig.provider(OURS).delete(rig.machine(ours.name, OURS))
    assert (rig.names(OURS), rig.names(THEIRS)) == ([], [theirs.name])
    assert rig.machine(theirs.name, THEIRS).state not in (BROKEN, EVICTED)


def test_secrets_are_in_no_command_line_and_no_log(rig, capfd):
    seen, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            seen.append(command_lines())
            stop.wait(0.02)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        order = rig.order()
        made = rig.call("create", order=asdict(order)).answer()
        heard = list(rig.heard)
        rig.call("delete", machine=made).answer()
    finally:
        stop.set()
        looking.join()
    told = "\n".join([*seen, *heard, *rig.heard, *capfd.readouterr()])
    assert order.name in told or made["name"] == order.name
    for secret in (TOKEN, KEY, *rig.secrets):
        assert secret not in told


def test_who_does_not_answer_is_trouble(rig):
    if rig.unreachable is None:
        pytest.skip("this one is always there")
    provider = rig.provider(config=rig.unreachable)
    for ask in (
        lambda: list(provider.list()),
        lambda: provider.create(rig.order()),
        lambda: provider.check(rig.flavor, rig.region, 1),
    ):
        with pytest.raises(CloudTrouble) as trouble:
            ask()
        assert is_a_sentence(trouble.value)


def test_a_wrong_key_of_the_configuration_is_named(rig):
    with pytest.raises(ScitqError, match="providers.it.imagge"):
        rig.provider(config={**rig.config, "imagge": "x"})


def test_killed_amid_a_long_answer(monkeypatch):
    half = "import sys, time; sys.stdout.write('{\"result\": [' + '1, ' * 100_000); sys.stdout.flush(); time.sleep(99)"
    monkeypatch.setattr("scitq.program.command", lambda *words: [sys.executable, "-c", half])
    with pytest.raises(CloudTrouble, match="did not answer list within 1 s"):
        Call({"provider": "it", "call": "list"}, print, seconds=1).answer()
