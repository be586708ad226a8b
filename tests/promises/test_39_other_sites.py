"""Promise 39: DNS rebinding, requests that other sites make a browser send, and framing fail, at every door."""

from __future__ import annotations

import socket

import pytest
from doors import EVERY, TABLE, Doors, body_of, error, raw
from env import Env

CROSS_SITE = [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Origin": "http://localhost.evil"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, {"Sec-Fetch-Site": "nonsense"},
]  # fmt: skip
MARKS = {
    "Content-Security-Policy": "frame-ancestors 'none'", "X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store", "Server": "scitq/",
}  # fmt: skip
FOREIGN = ["evil.example", "evil.example:5000", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "a b"]
CHANGES = [route for route in TABLE if route.writes and "worker" not in route.roles]
OWN = ["localhost", "LOCALHOST:5000", "localhost.", "127.0.0.1:1", "[::1]:5000", "10.1.2.3", socket.gethostname()]


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("doors"))
    yield Doors(env)
    env.close()


@pytest.fixture(scope="module")
def cookie(doors) -> str:
    """What a browser that is signed in sends by itself."""
    given = doors.get(f"/login?token={doors.admin}").headers["Set-Cookie"]
    assert "HttpOnly" in given and "SameSite=Strict" in given and "Path=/" in given and "Domain" not in given
    return given.partition(";")[0]


# --- other names (DNS rebinding) --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", TABLE, ids=EVERY)
def test_a_rebound_name_is_refused_at_every_door(doors, route):
    request = f"{route.method} {doors.path(route)} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n"
    told = raw(doors.server.url, request + f"Authorization: Bearer {doors.admin}\r\nContent-Length: 0\r\n\r\n")
    assert told.startswith("HTTP/1.1 403 ") and "--allowed-host evil.example" in told


@pytest.mark.parametrize("host", FOREIGN)
def test_foreign_names(doors, host):
    assert raw(doors.server.url, f"GET /docs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").startswith("HTTP/1.1 403 ")


def test_a_request_without_a_name(doors):
    assert raw(doors.server.url, "GET /docs HTTP/1.0\r\n\r\n").startswith("HTTP/1.0 403 ")


@pytest.mark.parametrize("host", OWN)
def test_names_of_this_machine_are_its_own(doors, host):
    assert raw(doors.server.url, f"GET /docs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").startswith("HTTP/1.1 200 ")


def test_an_allowed_name_is_let_in_and_no_other(tmp_path):
    env = Env(tmp_path)
    server = env.server("--allowed-host", "queue.example.org")
    for host, status in (("queue.example.org", 200), ("QUEUE.example.org:80", 200), ("x.queue.example.org", 403)):
        told = raw(server.url, f"GET /docs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        assert told.startswith(f"HTTP/1.1 {status} "), host
    env.close()


# --- requests from pages of other sites ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", TABLE, ids=EVERY)
def test_what_another_site_sends_is_refused_at_every_door(doors, cookie, route):
    """Whether or not the browser sends the cookie along, and even with the token itself."""
    for headers in CROSS_SITE:
        for token, more in ((doors.admin, {}), (None, {"Cookie": cookie})):
            answer = doors.knock(route, token, headers | more, body=body_of(route))
            assert answer.status == 403 and error(answer)["code"] == "not_allowed", headers
            assert not any(name.lower().startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("route", CHANGES, ids=lambda route: f"{route.method} {route.path}")
def test_a_change_by_cookie_comes_from_a_page_of_ours(doors, cookie, route):
    """A server at another port of this machine counts as the same site, and gets the cookie: it must not be enough."""
    for headers in ({}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-site"}, {"Referer": doors.server.url + "/docs"}):
        assert doors.knock(route, None, {"Cookie": cookie, **headers}, body=body_of(route)).status == 403, headers
    for headers in ({"Origin": doors.server.url}, {"Sec-Fetch-Site": "same-origin"}):
        wrong = {"there is no such field": 1}
        answer = doors.knock(route, None, {"Cookie": cookie, **headers}, number=2**31 - 1, body=wrong)
        assert answer.status not in (401, 403), headers


def test_what_other_sites_asked_for_left_nothing_behind(doors, cookie):
    before = doors.picture()
    for route in TABLE:
        for headers in (*CROSS_SITE, {}, {"Sec-Fetch-Site": "same-site"}):
            doors.knock(route, None, {"Cookie": cookie, **headers}, body=body_of(route))
    assert doors.picture() == before


def test_a_form_is_no_json(doors):
    """What a page can send without asking first: the three kinds of a form, and none at all."""
    (create,) = [route for route in TABLE if (route.method, route.path) == ("POST", "/api/v1/tasks")]
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = doors.knock(create, doors.admin, {"Content-Type": kind}, body=body_of(create))
        assert answer.status == 400 and error(answer)["field"] == "Content-Type"


def test_a_preflight_permits_nothing(doors):
    request = "OPTIONS /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nConnection: close\r\n"
    asked = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n\r\n"
    told = raw(doors.server.url, request + asked)
    assert int(told.split()[1]) >= 400 and "access-control" not in told.lower()


def test_navigation_from_elsewhere_shows_pages_and_no_data(doors, cookie):
    """A link on another site may lead to a page of ours; not to the API, and SameSite keeps the cookie from coming along."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    (docs,) = [route for route in TABLE if route.path == "/docs"]
    assert doors.knock(docs, None, headers).status == 200
    for route in TABLE:
        if route.path.startswith("/api/"):
            assert doors.knock(route, None, {"Cookie": cookie, **headers}).status == 403


# --- framing -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", TABLE, ids=EVERY)
def test_every_answer_forbids_framing_and_sniffing(doors, route):
    for token in (None, doors.user):
        headers = doors.knock(route, token, number=2**31 - 1, body={"there is no such field": 1}).headers
        for name, value in MARKS.items():
            assert value in headers[name] or name == "Cache-Control" and route.path.startswith(("/docs/", "/ui/")), name
        assert "unsafe" not in headers["Content-Security-Policy"] and "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("line", ["GET /nowhere HTTP/1.1", "PUT /api/v1/tasks HTTP/1.1", "NONSENSE"])
def test_refusals_are_marked_too(doors, line):
    told = raw(doors.server.url, f"{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert "\r\nServer: scitq/" in told and '"error"' in told and "\r\nContent-Type: application/json" in told
