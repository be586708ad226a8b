"""Who is told when batches are done: where webhooks may go, what receivers may do, and that no message is lost."""

from __future__ import annotations

import email
import ipaddress
import json
import socket
import ssl
import subprocess
from email.policy import default
from pathlib import Path

import pytest
from hands import Hands, refused
from receivers import Mailbox, Receiver, wait_for
from scitq.errors import Conflict, InvalidRequest, NotAllowed, Unreachable
from scitq.mailing import MailServer, check_recipient, send
from scitq.notifying import ATTEMPTS, Notifying, mail_server, pause_after, sentence
from scitq.settings import Settings
from scitq.store import batches, events, notifiers, tasks
from scitq.webhook import check_host, check_url, is_public, masked, post

from scitq import batchfile

SECRET = "geheim-Abc"  # noqa: S105 - it is what must be seen nowhere
WHO = "ann"
HERE = ["127.0.0.1"]


@pytest.fixture
def receiver():
    made = []

    def make(*does, **more) -> Receiver:
        made.append(Receiver(*does, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def mailbox():
    made = []

    def make(**more) -> Mailbox:
        made.append(Mailbox(**more))
        return made[-1]

    yield make
    for one in made:
        one.close()


# --- where webhooks may go ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["", "hooks.example.org/x", "ftp://h/x", "file:///etc/passwd", "http://", "http:///x", "http://h:0/", "http://h:99999/",
    "http://[::1/",
     "http://h/a b", "http://h/a\r\nX: y", "http://h/\x00", "http://h/é", "http://ann:pw@h/x", "http://pw@h/", "http://h\\@i/",
     "gopher://h/", "https://h/..." , "http://h/" + "x" * 2000],
)  # fmt: skip
def test_what_is_no_webhook_is_refused_and_not_shown(url):
    with pytest.raises(InvalidRequest) as refusal:
        check_url(url)
    assert "pw" not in str(refusal.value) and (len(url) < 12 or url not in str(refusal.value))
    assert url in ("https://h/...",) or masked(url) in ("...", "http://h/...")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "198.18.0.1", "224.0.0.1",
     "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
     "64:ff9b::7f00:1",
     "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::", "2001:db8::1"],
)  # fmt: skip
def test_addresses_that_are_not_public(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_addresses_that_are_public(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url, allowed, good",
    [
        ("http://127.0.0.1/x", ["public"], False), ("http://[::1]/x", ["public"], False), ("http://1.1.1.1/x", ["public"], True),
        ("http://hooks.example.org/x", ["public"], True), ("http://hooks.example.org/x", ["other.org"], False),
        ("http://hooks.example.org./x", ["hooks.example.org"], True), ("http://HOOKS.example.org/x", ["*.example.org"], True),
        ("http://10.1.2.3/x", ["10.1.0.0/16"], True), ("http://10.2.2.3/x", ["10.1.0.0/16"], False),
        ("http://1.1.1.1/x", ["10.1.0.0/16"], False), ("http://chat.lab/x", ["10.1.0.0/16"], True),
        ("http://127.0.0.1/x", ["*"], True),
        ("http://[::ffff:10.1.2.3]/x", ["10.1.0.0/16"], True), ("http://chat.lab/x", [], False),
    ],
)  # fmt: skip
def test_hosts_that_are_allowed(url, allowed, good):
    if good:
        check_host(url, allowed)
    else:
        with pytest.raises(NotAllowed, match="webhooks may not go to"):
            check_host(url, allowed)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]"])
def test_names_that_lead_to_this_machine_are_found_out_when_it_is_sent(receiver, host):
    one = receiver()
    with pytest.raises((NotAllowed, Unreachable)):
        post(f"http://{host}:{one.port}/{SECRET}", b"{}", {}, ["public"])
    assert one.got == []


def test_the_address_that_was_looked_at_is_the_one_that_is_asked(receiver, monkeypatch):
    """A name that leads to a public address first and to this machine the next moment."""
    one, asked = receiver(), []

    def rebinding(host, port, *rest, **more):
        asked.append(host)
        address = "192.0.0.9" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket,
    "create_connection", lambda address, timeout: pytest.fail(f"asked {address}") if address[0] != "192.0.0.9"
                        else (_ for _ in ()).throw(ConnectionRefusedError(111, "refused")))  # fmt: skip
    with pytest.raises(Unreachable, match="rebind.example cannot be asked"):
        post(f"http://rebind.example:{one.port}/x", b"{}", {}, ["public"])
    assert asked == ["rebind.example"] and one.got == []


# --- what receivers do --------------------------------------------------------------------------------------------------------


def test_what_is_posted(receiver):
    one = receiver(204)
    post(one.url, b'{"a": 1}', {"Idempotency-Key": "k"}, HERE)
    (got,) = one.got
    assert got["path"] == f"/hooks/T0/{SECRET}?key={SECRET}" and got["body"] == {"a": 1}
    assert (got["headers"]["Content-Type"], got["headers"]["Idempotency-Key"]) == ("application/json", "k")
    assert got["headers"]["Host"] == f"127.0.0.1:{one.port}"


@pytest.mark.parametrize(
    "does, told",
    [
        (500, "answers 500 Internal Server Error"), (404, "answers 404"), (302, "a redirect, which is not followed"),
        (307, "a redirect"),
        ("close", "cannot be asked"), ("hang", "does not answer within 0.3 s"), ("drip", "took longer than 0.6 s"),
    ],
)  # fmt: skip
def test_what_is_no_success(receiver, does, told):
    one = receiver(does)
    with pytest.raises(Unreachable, match=told) as failure:
        post(one.url, b"{}", {}, HERE, wait_seconds=0.3, whole_seconds=0.6)
    assert SECRET not in str(failure.value) and len(one.got) == 1, "nothing is asked elsewhere"


def test_no_more_of_an_answer_is_read_than_it_takes(receiver):
    post(receiver("flood").url, b"{}", {}, HERE)


def test_nobody_there_and_no_name():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="refused"):
            post(f"http://127.0.0.1:{bound.getsockname()[1]}/{SECRET}", b"{}", {}, HERE)
    with pytest.raises(Unreachable, match="no-such-host.invalid has no address"):
        post("https://no-such-host.invalid/x", b"{}", {}, ["public"])


@pytest.fixture(scope="module")
def tls(tmp_path_factory) -> tuple[ssl.SSLContext, Path]:
    """A context of localhost, and the file of whom to trust for it."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext"]
    done = ["subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*words, *done], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert


def test_certificates_are_checked(receiver, tls, monkeypatch):
    one = receiver(200, tls=tls[0])
    with pytest.raises(Unreachable, match="certificate is not trusted"):
        post(one.url, b"{}", {}, ["localhost"])
    monkeypatch.setenv("SSL_CERT_FILE", str(tls[1]))
    with pytest.raises(Unreachable, match="certificate is not trusted"):
        post(one.url.replace("localhost", "127.0.0.1"), b"{}", {}, HERE)
    assert one.got == []
    post(one.url, b'{"a": 1}', {}, ["localhost"])
    assert one.bodies == [{"a": 1}]


# --- mail ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["", "ann", "ann@", "a@b\r\nBcc: x@y", "a b@c", "a@b, c@d", "<a@b>", "Ann <a@b>", "a@b;c",
"ä@b.org", "x" * 250 + "@b.org"])
def test_what_is_no_address(address):
    with pytest.raises(InvalidRequest):
        check_recipient(address)


def test_a_mail(mailbox):
    box = mailbox()
    send(MailServer("127.0.0.1", box.port, "scitq@lab.org", "me", SECRET), "ann@example.org", "a\r\nBcc: b\x00", "text\n", "k1")
    mail = email.message_from_bytes(box.mails[0], policy=default)
    assert (mail["To"], mail["From"], mail["Subject"], mail["Bcc"]) == ("ann@example.org", "scitq@lab.org", "a Bcc: b", None)
    assert mail["Message-ID"] == "<k1@lab.org>" and mail.get_content() == "text\r\n" and len(box.log) == 1
    assert SECRET not in repr(MailServer("h", 25, "s", "me", SECRET))


def test_a_password_is_not_sent_without_tls(mailbox, monkeypatch):
    box = mailbox()
    monkeypatch.setattr("scitq.mailing.is_loopback", lambda host: False)
    with pytest.raises(Unreachable, match="offers no TLS"):
        send(MailServer("127.0.0.1", box.port, "s@b", "me", SECRET), "a@b.org", "s", "t", "k")
    assert box.log == [] and box.mails == []


def test_a_password_goes_by_tls_to_who_can_be_trusted(mailbox, tls, monkeypatch):
    monkeypatch.setattr("scitq.mailing.is_loopback", lambda host: False)
    box = mailbox(tls=tls[0])
    server = MailServer("localhost", box.port, "s@b.org", "me", SECRET)
    with pytest.raises(Unreachable, match="cannot be asked.*certificate"):
        send(server, "a@b.org", "s", "t", "k")
    assert box.log == [] and box.mails == []
    monkeypatch.setenv("SSL_CERT_FILE", str(tls[1]))
    send(server, "a@b.org", "s", "t", "k")
    assert len(box.log) == len(box.mails) == 1


def test_where_mail_goes_by_the_settings(tmp_path):
    (tmp_path / "pw").write_text("geheim\n")
    assert mail_server(Settings()) is None
    made = mail_server(Settings(smtp="mail.lab:587", smtp_user="me", smtp_password_file=tmp_path / "pw"), {})
    assert (made.host, made.port, made.user, made.password) == ("mail.lab", 587, "me", "geheim")
    assert mail_server(Settings(smtp="h", smtp_user="u"), {"SCITQ_SMTP_PASSWORD": "p"}).password == "p"
    for wrong in ({"smtp": "h:x"}, {"smtp_user": "u"}, {"smtp_password_file": tmp_path / "none"}):
        with pytest.raises(InvalidRequest):
            mail_server(Settings(**{"smtp": "h", **wrong}), {})


# --- what is told, and when: by the store alone --------------------------------------------------------------------------


def put(house, batch="b", **more) -> dict:
    given = {"batch": batch, "kind": "webhook", "target": f"https://h/{SECRET}", "done": True, "failures": None, "origin": None}
    return house.write(notifiers.put, given | more, WHO)


def logged(house) -> list[dict]:
    return house.read(events.find, {"object": "notifier"}, 100, None, False)


class Told:
    """The looks of a server, one by one, with a clock that stands still; it sends nothing."""

    def __init__(self, house):
        self.house = house
        self.notifying = Notifying(house.store, lambda message: pytest.fail("nothing is sent here"), lambda: 0.0)

    def __call__(self, looks: int = 2) -> list[str]:
        """What there is to tell after so many looks, and was not before."""
        before = len(self.house.rows("message"))
        for _ in range(looks):
            self.notifying._look()
        return [row["event"] for row in sorted(self.house.rows("message"), key=lambda row: row["id"])[before:]]


def test_a_batch_is_told_of_once_each_time_it_is_done(house):
    told = Told(house)
    put(house)
    assert told() == [], "it has no tasks"
    worker = house.worker("w", "b", 4)
    one, two = house.add({"command": "a", "batch": "b"}, {"command": "b", "batch": "b"})
    assert told() == []
    house.end(worker, one)
    assert told() == []
    house.end(worker, two, "failed", 1)
    assert told(1) == [], "it may be between two requests"
    assert told(1) == ["done"] and told(5) == []
    assert Told(house)() == [], "another server knows it from the database"
    house.write(tasks.relaunch, [two], WHO)
    house.end(worker, two)
    assert told() == ["done"], "though nobody looked in between"
    (last,) = [row for row in house.rows("message") if row["id"] == 2]
    assert json.loads(last["counts"]) == {"succeeded": 2}


def test_what_waits_for_a_failed_one_is_done_with(house):
    told = Told(house)
    put(house)
    worker = house.worker("w", "b", 4)
    first, second, third, other = house.add(
        {"command": "a", "batch": "b"}, {"command": "b", "batch": "b", "require": ["#0"]},
        {"command": "c", "batch": "b", "require": ["#1"]}, {"command": "d", "batch": "elsewhere"},
    )  # fmt: skip
    (fourth,) = house.add({"command": "e", "batch": "b", "require": [other]})
    house.end(worker, first, "failed", 1)
    assert told() == [], "one of them waits for another batch"
    house.write(tasks.cancel, [fourth], WHO)
    assert told() == ["done"]
    house.write(tasks.relaunch, [first], WHO)
    house.end(worker, first)
    assert told() == []
    house.end(worker, second)
    house.end(worker, third)
    assert told() == ["done"]


def test_failures_are_told_once_until_there_are_fewer(house):
    told = Told(house)
    put(house, done=False, failures=1)
    worker = house.worker("w", "b", 4)
    ids = house.add(*[{"command": "a", "batch": "b"}] * 4)
    for task, expected in zip(ids, ([], ["failures"], [], [])):
        house.end(worker, task, "failed", 1)
        assert told() == expected
    house.write(tasks.relaunch, ids[:3], WHO)
    assert told() == []
    house.end(worker, ids[0], "failed", 1)
    assert told() == ["failures"]


def test_who_comes_late_is_told_of_what_comes(house):
    told = Told(house)
    worker = house.worker("w", "b", 4)
    (task,) = house.add({"command": "a", "batch": "b"})
    house.end(worker, task, "failed", 1)
    made = put(house, failures=0)
    assert told() == [] and put(house, failures=0) == made
    assert [e["action"] for e in logged(house)] == ["notifier.create"], "what changes nothing is no event"
    assert put(house, failures=3)["id"] == made["id"]
    house.write(tasks.relaunch, [task], WHO)
    assert told() == []
    house.end(worker, task, "failed", 1)
    assert told() == ["done"]
    house.write(batches.delete, "b", WHO)
    assert house.rows("notifier") == [] and len(house.rows("message")) == 1, "what it had to tell is still told"


def test_who_asks_late_for_more_is_told_of_what_comes(house):
    put(house, done=False, failures=5)
    worker = house.worker("w", "b", 4)
    (task,) = house.add({"command": "a", "batch": "b"})
    house.end(worker, task)
    assert Told(house)() == []
    put(house, failures=5)
    assert Told(house)() == [], "nor by a server that starts now"
    house.write(tasks.relaunch, [task], WHO)
    house.end(worker, task)
    assert Told(house)() == ["done"]


def test_a_batch_has_only_so_many(house):
    for number in range(notifiers.MOST):
        put(house, target=f"https://h/{number}")
    with pytest.raises(Conflict, match="50 notifiers, which is the most"):
        put(house)
    put(house, target="https://h/3", failures=1)


def test_messages_come_again_ever_later_for_a_day_and_are_given_up(house):
    assert [pause_after(n) for n in (1, 2, 3, 12, 13, 30)] == [1, 2, 4, 2048, 3600, 3600]
    assert 0.98 < sum(map(pause_after, range(1, ATTEMPTS))) / 86400 < 1.05
    told = Told(house)
    put(house)
    worker = house.worker("w", "b", 4)
    (task,) = house.add({"command": "a", "batch": "b"})
    house.end(worker, task)
    told()
    (message,) = house.read(notifiers.unsent, 7200.0, 10)
    assert sentence(message) == "Batch b is done: 1 succeeded"
    assert house.write(notifiers.attempt, message["id"], 5.0) and house.read(notifiers.unsent, 7200.0, 10) == []
    assert len(house.read(notifiers.unsent, 4.0, 10)) == 1, "a clock that was set back does not hold it up"
    house.write(notifiers.failed, message, "h answers 500", -1.0, False)
    assert len(house.read(notifiers.unsent, 7200.0, 10)) == 1
    house.write(notifiers.failed, message, "h answers 500", 1.0, True)
    assert house.read(notifiers.next_at) is None
    (event,) = [e for e in logged(house) if e["action"] == "notifier.give-up"]
    assert (event["who"], event["detail"]["target"], event["detail"]["error"]) == ("notifier", "https://h/...", "h answers 500")
    (row,) = house.read(notifiers.find, "b", 10, None, False)
    assert row["last"]["given_up_at"] and row["target"] == "https://h/..."


# --- from outside --------------------------------------------------------------------------------------------------------


def done(env, batch: str, *ends: str) -> None:
    """Tasks of a batch end so."""
    hands = Hands(env, f"w-{batch}", batch)
    tasks = env.create(*({"command": "true", "batch": batch} for _ in ends))
    hands.sync()
    for task, end in zip(tasks, ends):
        hands.end(task, end, int(end == "failed"))


def test_a_message_arrives_whatever_happens(env_on_each, receiver):
    """The receiver fails and leads elsewhere; the server is killed while it is asked, before it knows the answer."""
    env, one = env_on_each, receiver(503, 302, "hang", 200)
    server = env.server("--webhook-host", "127.0.0.1", "-v")
    made = env.api("POST", "/notifiers", {"batch": "b", "webhook": one.url, "failures": 0})
    assert env.api("POST", "/notifiers", {"batch": "b", "webhook": one.url, "failures": 0}) == made
    assert (made["target"], made["last"]) == (f"http://127.0.0.1:{one.port}/...", None)
    done(env, "b", "succeeded", "succeeded")
    assert "--smtp" in refused(env, "POST", "/notifiers", {"batch": "b", "mail": "a@b.org"})["message"]
    wait_for(lambda: len(one.got) == 3)
    server.kill9()
    one.release.set()
    server.start()
    wait_for(lambda: len(one.got) == 4)
    last = env.until(lambda: (row := env.items("/notifiers", batch="b")[0]["last"])["sent_at"] and row, what="it is noted")
    assert (last["event"], last["error"], last["attempts"]) == ("done", None, 4)
    assert len({body["id"] for body in one.bodies}) == 1
    assert {got["path"] for got in one.got} == {f"/hooks/T0/{SECRET}?key={SECRET}"}
    body = one.bodies[-1]
    assert (body["event"], body["batch"], body["counts"]) == ("done", "b", {"succeeded": 2})
    assert body["text"] == "Batch b is done: 2 succeeded" and one.got[-1]["headers"]["Idempotency-Key"] == body["id"]
    shown = server.output() + json.dumps(env.items("/events")) + json.dumps(env.items("/notifiers"))
    assert SECRET not in shown


@pytest.fixture(scope="module")
def telling(tmp_path_factory):
    """A server that may tell receivers of this machine, and has a mail server."""
    from env import Env

    made, box = Env(tmp_path_factory.mktemp("telling")), Mailbox(refuse=1)
    made.box = box
    made.server("--webhook-host", "127.0.0.1", "--smtp", f"127.0.0.1:{box.port}", "--smtp-sender", "scitq@lab.org")
    yield made
    made.close()
    box.close()


def test_a_mail_arrives_at_the_second_try(telling, batch):
    telling.api("POST", "/notifiers", {"batch": batch, "mail": "ann@example.org", "failures": 0, "done": False})
    done(telling, batch, "succeeded", "failed")
    mails = wait_for(lambda: len(telling.box.mails) == 2 and telling.box.mails)
    first, second = (email.message_from_bytes(mail, policy=default) for mail in mails)
    assert first["Message-ID"] == second["Message-ID"] and second["To"] == "ann@example.org"
    assert second["Subject"] == f"scitq: Batch {batch} has more than 0 failed tasks: 1 failed, 1 succeeded"


@pytest.mark.parametrize(
    "body, status, field, words",
    [
        ({"webhook": "http://10.0.0.1/geheim-Abc"}, 403, "webhook", "webhooks may not go to 10.0.0.1"),
        ({"webhook": "http://169.254.169.254/latest/geheim-Abc"}, 403, "webhook", "--webhook-host"),
        ({"webhook": "ftp://h/geheim-Abc"}, 400, "webhook", "is no URL such as"),
        ({"webhook": "http://127.0.0.1/..."}, 400, "webhook", "the whole URL"),
        ({}, 400, "webhook", "either a webhook or a mail"),
        ({"mail": "a@b.org", "webhook": "http://127.0.0.1/"}, 400, "webhook", "either"),
        ({"mail": "a b"}, 400, "mail", "is no mail address"), ({"mail": "a@b.org", "failures": -1}, 400, "failures", ""),
        ({"mail": "a@b.org", "done": False}, 400, "done", "nothing is ever told"),
        ({"mail": "a@b.org", "failure": 1}, 400, "failure", "did you mean"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_its_name(telling, batch, body, status, field, words):
    error = refused(telling, "POST", "/notifiers", {"batch": batch, **body}, status=status)
    assert error["field"] == field and words in error["message"] and SECRET not in error["message"]
    assert telling.items("/notifiers", batch=batch) == []


def test_the_verbs_of_manage(telling, batch, receiver):
    cli, one = telling.cli, receiver()
    (telling.directory / "hook").write_text(one.url + "\n")
    cli("manage", "notifier", "create", "-b", batch, "--webhook-file", "hook", "--failures", "2", code=0)
    made = cli("manage", "notifier", "create", "-b", batch, "--webhook-file", "-", input=one.url, code=0)
    assert SECRET not in made.stdout and f"http://127.0.0.1:{one.port}/..." in made.stdout
    (row,) = json.loads(cli("manage", "notifier", "list", "-b", batch, "-o", "json", code=0).stdout)
    assert (row["kind"], row["failures"], row["done"]) == ("webhook", None, True)
    done(telling, batch, "succeeded")
    wait_for(lambda: telling.items("/notifiers", batch=batch)[0]["last"]["sent_at"] if one.got else None)
    assert "done, sent" in cli("manage", "notifier", "list", "-b", batch, code=0).stdout
    assert "who should be told" in cli("manage", "notifier", "create", "-b", batch, code=2).stderr
    assert "--yes" in cli("manage", "notifier", "delete", str(row["id"]), code=2).stderr
    cli("manage", "notifier", "delete", str(row["id"]), "--yes", code=0)
    cli("manage", "notifier", "delete", str(row["id"]), "--yes", code=3)


# --- batch files ---------------------------------------------------------------------------------------------------------

FILE = """
batch: {batch}
params: {{n: {n}}}
recruit:
  - {{flavor: 'auto:cpu>=900', tasks_per_worker: '{{n}}', maximum_workers: 3, prefetch: ~}}
  {second}
notify: {notify}
tasks: ['true']
"""


def test_a_file_recruits_and_notifies_and_takes_back_what_it_made(telling, batch, tmp_path, receiver):
    one, env = receiver(), telling
    path = tmp_path / "f.yaml"

    def launch(*words, **parts) -> str:
        path.write_text(FILE.format(batch=batch, **{"n": 2, "second": "- {provider: lab}", "notify": "~", **parts}))
        done = env.cli("launch", "-f", path, *words, code=0)
        return done.stdout + done.stderr

    hook = f"{{webhook: '{one.url}', mail: a@b.org, failures: 5}}"
    assert "1 task, 2 recruiters, 2 notifiers, fine" in launch("--check", notify=hook)
    told = launch("--dry-run", notify=hook)
    assert f"notifies http://127.0.0.1:{one.port}/... when it is done and when more than 5 tasks failed" in told
    assert SECRET not in told
    assert "recruiter 1: flavor auto:cpu>=900, tasks_per_worker 2, maximum_workers 3\nrecruiter 2: provider lab" in told
    assert env.items("/recruiters", batch=batch) == [], "nothing was made yet"
    env.api("POST", "/recruiters", {"batch": batch, "rank": 7})
    launch(notify=hook)
    first, second, by_hand = env.items("/recruiters", batch=batch)[-2:] + env.items("/recruiters", batch=batch)[:1]
    assert (first["rank"], first["tasks_per_worker"], first["prefetch"], first["origin"]) == (1, 2, None, "f.yaml")
    assert (second["rank"], second["provider"], second["prefetch"], by_hand["origin"]) == (2, "lab", 0, None)
    assert [row["kind"] for row in env.items("/notifiers", batch=batch)] == ["webhook", "mail"]
    before = env.api("GET", "/events", order="-id", limit=1)["items"][0]["id"]
    launch(notify=hook)
    assert env.api("GET", "/events", after=before)["items"] == [], "launched again nothing changes"
    launch(n=4, second="", notify="{mail: [a@b.org], when: failures}")
    assert [(row["rank"], row["tasks_per_worker"]) for row in env.items("/recruiters", batch=batch)] == [(7, 1), (1, 4)]
    (left,) = env.items("/notifiers", batch=batch)
    assert (left["target"], left["done"], left["failures"]) == ("a@b.org", False, 0)
    again = tmp_path / "again.yaml"
    again.write_bytes(env.answer("GET", f"/batches/{batch}/file").body)
    file = batchfile.load(str(again))
    assert file.recruiters == [
        {"rank": 1, "flavor": "auto:cpu>=900", "tasks_per_worker": 4, "maximum_workers": 3, "prefetch": None},
        {"rank": 7, "tasks_per_worker": 1, "prefetch": 0},
    ]
    assert file.notifiers == [{"mail": "a@b.org", "done": False, "failures": 0}]


@pytest.mark.parametrize(
    "rules, told",
    [
        ("recruit: {flavour: big}", "b.yaml:2: unknown key 'flavour' (did you mean 'flavor'?)"),
        ("recruit: big", "b.yaml:2: `recruit` must be a mapping of keys such as `flavor: ...`"),
        ("recruit: {flavor: 'auto:cpuu>=8'}", "b.yaml:2: `flavor`: "),
        ("recruit: {concurrency: 0}", "`concurrency` must be 1 or more, not 0"),
        ("recruit: {maximum_workers: many}", "`maximum_workers` must be a whole number"),
        ("recruit: [{rank: 2}, {}]", "two recruiters have rank 2: the other is at line 2"),
        ("recruit: {flavor: '{big}'}", "`flavor`: there is no {big}"), ("notify: {failures: 2}", "does not say whom"),
        ("notify: {mail: ann}", "`mail` 'ann' is no mail address"),
        ("notify: {webhook: 'ftp://h/geheim-Abc'}", "`webhook` is no URL"),
        ("notify: {mail: a@b.org, when: finished}", "`when` is done or failures, not 'finished'"),
        ("notify: {mail: a@b.org, when: done, failures: 3}", "`when` leaves it out"),
        ("notify: {mail: a@b.org, failures: -1}", "must be 0 or more, not -1"),
        ("notify: [{mail: a@b.org, when: done}, {mail: a@b.org, when: failures}]", "b.yaml:2: `mail` 'a@b.org' is named twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_told_with_its_line(load, rules, told):
    with pytest.raises(InvalidRequest) as refusal:
        load(f"batch: b\n{rules}\ncommand: 'true'\n")
    assert told in str(refusal.value) and SECRET not in str(refusal.value)


def test_run_leaves_both_out_and_says_so(env, tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("recruit: {flavor: big}\nnotify: {mail: a@b.org}\ncommand: 'true'\n")
    told = env.cli("run", "-t", path, code=0)
    assert [line.partition(":")[2].split(",")[0] for line in told.stderr.splitlines()] == [
        " `recruit` is for servers", " `notify` is for servers",
    ]  # fmt: skip
    assert told.stdout == "f-1: true\n"
