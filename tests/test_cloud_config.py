"""The providers and the deployment of a configuration file: what they mean, and what is wrong with them."""

from __future__ import annotations

import pytest
from scitq.cloud.config import checked
from scitq.errors import InvalidRequest

from scitq import settings

BOOTED = "{kind: openstack, cloud: ovh, regions: [GRA11, SBG5], image: Ubuntu 24.04, network: Ext-Net}"


def clouds(tmp_path, text: str, **given):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    return checked(settings.load({"data": str(tmp_path), **given}, str(file), {}))


def test_local_is_there_without_being_named(tmp_path):
    found = checked(settings.load({"data": str(tmp_path)}, None, {}))
    assert list(found.providers) == ["local"] and found.implied == {"local"}
    assert found.providers["local"]["scratch"] == str(tmp_path / "machines")
    assert clouds(tmp_path, "providers: {local: {maximum: 2}}").implied == frozenset()


def test_everything_is_read(tmp_path):
    found = clouds(
        tmp_path,
        "url: https://lab:5000\nproviders:\n  here: {kind: local, price: 1}\n  lab: {kind: ssh, hosts: [node1]}\n"
        "deployment: {concurrency: 4, retry: 0, boot_timeout: 10m, idle: 90, reconcile: 1m, destroy_unknown: true, swap: 0.2}\n",
    )
    plan = found.deployment
    assert (plan.concurrency, plan.retry, plan.boot_timeout, plan.idle, plan.reconcile) == (4, 0, 600.0, 90.0, 60.0)
    assert plan.destroy_unknown and plan.first_boot == {"swap": 0.2}
    assert [found.kind(name) for name in found.providers] == ["local", "ssh", "local"]
    assert found.address("lab", "http://127.0.0.1:5000") == "https://lab:5000"


@pytest.mark.parametrize(
    "text, told",
    [
        ("providers: [ovh]", "providers: cannot be"), ("providers: {ovh: text}", "providers.ovh: wants lines"),
        ("providers: {hto: {kind: opnstack}}", "providers.hto.kind: .*did you mean 'openstack'"),
        ("providers: {auto: {kind: local}}", "cannot be the name"), ("providers: {'a b': {kind: local}}", "cannot be the name"),
        ("providers: {here: {kind: local, maximun: 3}}", "providers.here.maximun: .*did you mean 'maximum'"),
        ("providers: {here: {kind: local, maximum: many}}", "here.maximum: a whole number of 1 or more is needed, not 'many'"),
        ("providers: {here: {kind: local, scratch: [a]}}", "providers.here.scratch: a text is needed"),
        ("providers: {here: {kind: [local]}}", "providers.here.kind: there is no kind of provider"),
        ("providers: {lab: {kind: slurm, flavors: {s: {gpus: -1}}}}", "lab.flavors.s.gpus: a whole number that is not neg"),
        ("providers: {here: {kind: local, price: -1}}", "providers.here.price: "),
        ("deployment: {concurency: 3}", "deployment.concurency: .*did you mean 'concurrency'.*there are concurrency, retry"),
        ("deployment: {concurrency: 0}", "deployment.concurrency: wants a whole number"),
        ("deployment: {idle: never}", "deployment.idle: wants a duration"),
        ("deployment: {destroy_unknown: maybe}", "deployment.destroy_unknown: wants true or false"), ("url: 'ftp://x'", "ftp"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, text, told):
    with pytest.raises(InvalidRequest, match=told):
        clouds(tmp_path, text)


def test_if_all_others_hang_one_question_is_left(tmp_path):
    many = ", ".join(f"p{n}: {{kind: local}}" for n in range(4))
    found = clouds(tmp_path, f"providers: {{{many}}}")
    assert found.per_provider * (len(found.providers) - 1) < found.deployment.concurrency
    assert clouds(tmp_path, "providers: {local: {}}").per_provider == 10


def test_machines_of_a_cloud_cannot_reach_a_loopback(tmp_path):
    found = clouds(tmp_path, f"providers: {{ovh: {BOOTED}, here: {{kind: local}}}}")
    with pytest.raises(InvalidRequest, match="--url"):
        found.address("ovh", "http://127.0.0.1:5000")
    assert found.address("here", "http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    for url, told in (("{}", False), ("{url: 'http://127.0.0.1:5000'}", True)):  # nodes of a cluster, unless a way is named
        cluster = clouds(tmp_path, f"providers: {{slurm: {url}}}")
        if told:
            cluster.address("slurm", "http://127.0.0.1:5000")
        else:
            with pytest.raises(InvalidRequest, match="machines of slurm cannot reach"):
                cluster.address("slurm", "http://127.0.0.1:5000")
    assert found.address("ovh", "https://lab.example:5000") == "https://lab.example:5000"
    assert list(found.regions("ovh")) == ["GRA11", "SBG5"] and found.regions("here") == []


def test_the_file_alone_says_them(tmp_path):
    assert settings.load({"data": str(tmp_path)}, None, {"SCITQ_PROVIDERS": "x", "SCITQ_DEPLOYMENT": "y"}).providers == {}
