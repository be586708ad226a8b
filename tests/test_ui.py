"""The web UI's frame in a real browser: coming in and out, news, a server that dies, rows that stay, keys, addresses."""

from __future__ import annotations

import re

from browser import Tab, row
from hands import Hands
from playwright.sync_api import Page, expect

LINE_LOST = r"ERR_CONNECTION|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY_RESPONSE|ERR_SOCKET|ERR_NETWORK"


def failures(env, batch: str, names: list[str], exit_code: int = 3) -> list[int]:
    """Tasks that failed, all but the last one; that one succeeded. The oldest first."""
    ids = env.create(*({"command": f"echo {name}", "name": name, "batch": batch} for name in names))
    hands = Hands(env, batch, batch, len(ids))
    env.until(lambda: hands.sync() and len(hands.held) == len(ids))
    for task in ids[:-1]:
        hands.end(task, "failed", exit_code, f"{task} went wrong\n".encode())
    hands.end(ids[-1])
    return ids


def names(page: Page) -> list[str]:
    """The first cells of the rows of a list of tasks: their ids."""
    return page.locator("main tbody tr .id").all_inner_texts()


def is_live(page: Page) -> None:
    expect(page.locator("header [data-line=live]")).to_be_visible()


# --- in and out ---------------------------------------------------------------------------------------------------------


def test_a_token_signs_in_and_is_kept_from_scripts(tabs, lab):
    tab = tabs(lab, signed_in=False)
    tab.allow("401")
    page = tab.visit("workers?state=online")
    expect(page.get_by_role("heading", name="Sign in to scitq")).to_be_visible()
    assert not page.locator("header nav").is_visible()
    page.get_by_label("Token").fill("scitq_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("token")
    page.get_by_label("Token").fill(f" {lab.token}\n")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Workers", exact=True)).to_be_visible()
    assert tab.where == "/ui/workers?state=online", "one stays where one wanted to be"
    (cookie,) = tab.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    kept = page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state])"
    )
    assert lab.token not in kept


def test_sign_out_forgets_the_cookie(own_tab):
    own_tab.allow("401")
    page = own_tab.visit()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in to scitq")).to_be_visible()
    assert own_tab.context.cookies() == []
    page.reload()
    expect(page.get_by_role("heading", name="Sign in to scitq")).to_be_visible()


def test_the_link_that_the_server_prints_signs_in(tabs, lab):
    tab = tabs(lab, signed_in=False)
    tab.page.goto(f"{lab.url}/login?token={lab.token}")
    expect(tab.page.get_by_role("heading", name="Overview")).to_be_visible()
    assert lab.token not in tab.page.url


def test_a_revoked_token_is_asked_for_anew(tabs, lab):
    tab = tabs(lab, signed_in=False)
    tab.allow("401")
    made = lab.api("POST", "/tokens", {"name": "gone soon"})
    tab.sign_in(made["token"])
    page = tab.visit("tasks")
    lab.api("DELETE", f"/tokens/{made['id']}")
    page.get_by_role("button", name="failed").click()
    expect(page.get_by_role("heading", name="Sign in to scitq")).to_be_visible()


# --- news ---------------------------------------------------------------------------------------------------------------


def test_news_come_by_themselves(tab, lab, batch):
    page = tab.visit()
    is_live(page)
    loaded = tab.was_loaded
    line = row(page, batch)
    hands = Hands(lab, batch, batch)
    ids = lab.create(*[{"command": "true", "batch": batch}] * 2)
    expect(line.get_by_role("img", name=re.compile("2 (assigned|pending)"))).to_be_visible()
    lab.until(lambda: hands.sync() and len(hands.held) == 2)
    hands.end(ids[0])
    hands.end(ids[1], "failed", 1)
    expect(line.get_by_role("img", name="1 succeeded, 1 failed")).to_be_visible()
    lab.api("DELETE", f"/batches/{batch}")
    expect(line).to_have_count(0)
    assert tab.was_loaded == loaded, "the page was not loaded again"


def test_polling_where_no_stream_comes_through(own_tab, lab, batch):
    own_tab.allow("ERR_FAILED")
    own_tab.page.route("**/api/v1/stream*", lambda route: route.abort())
    page = own_tab.visit()
    expect(page.locator("header [data-line=polling]")).to_be_visible()
    loaded = own_tab.was_loaded
    lab.create({"command": "true", "batch": batch})
    expect(page.get_by_role("link", name=batch, exact=True)).to_be_visible()
    assert own_tab.was_loaded == loaded


def test_a_server_that_was_killed_is_found_again(tabs, env):
    server = env.server()
    tab = tabs(env)
    tab.allow(rf"{LINE_LOST}|503")  # a server that starts says so
    page = tab.visit()
    is_live(page)
    loaded = tab.was_loaded
    server.kill9()
    expect(page.get_by_text("Connection lost, trying again.")).to_be_visible()
    server.start()
    env.create({"command": "true", "batch": "after"})
    expect(page.get_by_role("link", name="after", exact=True)).to_be_visible()
    expect(page.get_by_text("Connection lost, trying again.")).to_be_hidden()
    is_live(page)
    assert tab.was_loaded == loaded


def test_a_row_under_the_pointer_never_moves(tab, lab, batch):
    ids = failures(lab, batch, ["a", "b", "c"])
    page = tab.visit(f"tasks?batch={batch}")
    is_live(page)
    held = row(page, ids[1])
    held.hover()
    before = held.bounding_box()
    (new,) = lab.create({"command": "true", "batch": batch})
    lab.api("POST", "/tasks/delete", {"ids": [ids[2]]})
    news = page.get_by_role("button", name="1 new, 1 gone: show")
    expect(news).to_be_visible()
    assert held.bounding_box() == before
    assert names(page) == [str(task) for task in reversed(ids)]
    lab.api("PATCH", f"/tasks/{ids[1]}", {"name": "renamed"})
    expect(held.get_by_text("renamed")).to_be_visible()  # what it says goes on
    assert held.bounding_box() == before
    page.mouse.move(1, 1)
    expect(news).to_be_hidden()
    expect(row(page, new)).to_be_visible()
    assert names(page) == [str(new), str(ids[1]), str(ids[0])]


# --- addresses ----------------------------------------------------------------------------------------------------------


def test_the_filter_is_in_the_address_and_back_goes_back(tab, lab, batch):
    ids = failures(lab, batch, ["align:1", "align:2", "sort:1"])
    page = tab.visit(f"tasks?batch={batch}")
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_role("group", name="States").get_by_role("button", name="failed").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    assert "state=failed" in page.url
    page.get_by_label("Name", exact=True).fill("align:2")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_label("Name", exact=True)).to_have_value("align:2")
    page.get_by_role("link", name=str(ids[1]), exact=True).click()
    expect(page.get_by_role("heading", name=f"Task {ids[1]}")).to_be_visible()
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(1)
    assert "name=align%3A2" in page.url
    page.go_back()
    expect(page.locator("tbody tr")).to_have_count(3)


def test_a_filter_that_is_none_is_told_in_the_words_of_the_api(tab):
    tab.allow("400")
    page = tab.visit("tasks?since=never")
    expect(page.get_by_role("alert")).to_contain_text("Changed since:")


def test_what_is_not_there_is_told(tab, lab):
    tab.allow("404")
    page = tab.visit("tasks/999999")
    expect(page.get_by_role("heading", name="Not found")).to_be_visible()
    expect(page.locator("main")).to_contain_text("999999")
    page = tab.visit("nowhere/at/all")
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()


# --- keys ---------------------------------------------------------------------------------------------------------------


def test_all_can_be_done_by_keys(tab, lab, batch):
    ids = failures(lab, batch, ["a", "b"])
    page = tab.visit(f"tasks?batch={batch}")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.keyboard.press("?")
    help = page.get_by_role("dialog", name="Keys")
    expect(help).to_contain_text("Go to workers")
    expect(help).to_contain_text("Select the row")
    page.keyboard.press("Escape")
    expect(help).to_be_hidden()
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator("tbody tr").nth(1)).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("x")
    expect(page.get_by_role("checkbox", name=f"Select {ids[1]}")).to_be_checked()
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=f"Task {ids[1]}")).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("w")
    expect(page.get_by_role("heading", name="Workers", exact=True)).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("g o?")
    expect(page.get_by_label("Name", exact=True)).to_have_value("g o?")
    assert page.get_by_role("dialog").count() == 0, "keys do nothing where somebody types"


def test_the_theme_that_was_chosen_stays(own_tab):
    page = own_tab.visit()
    light = _background(page)
    page.get_by_role("button", name=re.compile("Theme")).click()
    page.get_by_role("button", name=re.compile("Theme: light")).click()
    dark = _background(page)
    assert sum(dark) < 200 and sum(light) > 500
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert _background(page) == dark


def _background(page: Page) -> list[int]:
    color = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return [int(number) for number in re.findall(r"\d+", color)[:3]]


def test_two_tabs_see_what_each_other_does(tabs, lab, batch):
    one, other = tabs(lab), tabs(lab)
    lab.create({"command": "true", "batch": batch})
    for tab in (one, other):
        expect(tab.visit().get_by_role("link", name=batch, exact=True)).to_be_visible()
    row(one.page, batch).get_by_role("button", name=f"Stop {batch}").click()
    one.page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(row(other.page, batch).get_by_role("button", name=f"Go {batch}")).to_be_visible()


def test_the_tab_itself_notices_what_goes_wrong(tabs, lab):
    """The watch that every test here relies on."""
    tab: Tab = tabs(lab)
    page = tab.visit()
    page.evaluate("setTimeout(() => { throw new Error('a script error'); })")
    page.evaluate("fetch('/api/v1/tasks/999999')")
    page.evaluate("document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:1/elsewhere.png'}))")
    page.evaluate("try { document.body.innerHTML = '<img src=x onerror=alert(1)>'; } catch {}")
    lab.until(lambda: page.evaluate("1") and len({trouble.split(":")[0] for trouble in tab.troubles}) >= 3)
    told = "\n".join(tab.troubles)
    assert "a script error" in told and "answer: 404" in told and "content security policy: img-src" in told
    assert "content security policy: require-trusted-types-for" in told
    tab.troubles.clear()
