"""The web UI's files as a browser gets them, and how it signs in and out."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
import rjsmin
from doors import Doors, error
from env import Env
from scitq.api.ui import SCRIPTS
from scitq.transport import Connection
from scitq.ui.bundle import bundle

from scitq import ui

FOLDER = Path(__file__).resolve().parent.parent / "scitq_pkg" / "ui"
MODULES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("js/*.js"))}
FILES = [*(path.name for kind in ui.KINDS for path in FOLDER.glob(f"*.{kind}")), *(f"js/{name}.js" for name in SCRIPTS)]


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    env = Env(tmp_path_factory.mktemp("doors"))
    yield Doors(env)
    env.close()


@pytest.mark.parametrize("name", [name for name in FILES if name != "index.html"])
def test_every_file_is_served_with_its_kind_and_never_twice(doors, name):
    answer = doors.get(f"/ui/{name}")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == ui.KINDS[name.rpartition(".")[2]]
    again = doors.get(f"/ui/{name}", If_None_Match=answer.headers["ETag"])
    assert again.status == 304 and again.body == b""


def test_what_a_page_loads_are_these_files(doors):
    named = re.findall(r'(?:src|href)="\./([^"]+)"', doors.get("/ui/").body.decode())
    assert sorted(named) == sorted(name for name in FILES if name != "index.html")


# --- one script of all modules ----------------------------------------------------------------------------------------


def test_every_module_is_in_the_script_once():
    whole = bundle("main", MODULES.__getitem__)
    assert sorted(re.findall(r"^const \$(\w+) = ", whole, re.MULTILINE)) == sorted(set(MODULES) - {"theme"})


def test_modules_run_after_those_that_they_need():
    modules = {"a": 'import { x, y as z } from "./b.js";\nz(x);\n', "b": "export const x = 1;\nexport async function* y() {}\n"}
    assert bundle("a", modules.__getitem__) == (
        "const $b = (() => {\nconst x = 1;\nasync function* y() {}\n\nreturn { x, y };\n})();\n"
        "const $a = (() => {\nconst { x, y: z } = $b;\nz(x);\n\nreturn {  };\n})();\n"
    )


@pytest.mark.parametrize(
    "line, said",
    [("export let a = 1;", "a.js: export let"), ("export default 1;", "a.js: export default"),
     ('import x from "./b.js";', "a.js: import x"),
     ('import { x } from "./a.js";', "a.js imports itself"), ('import("./b.js");', "a.js: import")],
)  # fmt: skip
def test_what_cannot_be_put_into_one_is_refused(line, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        bundle("a", {"a": line, "b": ""}.__getitem__)


@pytest.mark.parametrize("name", MODULES)
def test_no_template_is_in_another(name):
    """The minifier takes the inner one for code, and its blanks for nothing."""
    templates = re.findall(r"`[^`\\]*(?:\\.[^`\\]*)*`", rjsmin.jsmin(MODULES[name]))
    assert [text for text in templates if re.search(r"\$\{[^}]*$", text)] == []


# --- how they travel --------------------------------------------------------------------------------------------------


def test_what_takes_gzip_gets_it(doors):
    plain, zipped = doors.get("/ui/"), doors.get("/ui/", Accept_Encoding="br, gzip")
    assert zipped.headers["Content-Encoding"] == "gzip" and gzip.decompress(zipped.body) == plain.body
    assert "Content-Encoding" not in plain.headers and plain.headers["ETag"] != zipped.headers["ETag"]
    assert zipped.headers["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in doors.get("/ui/", Accept_Encoding="gzip;q=0, br").headers


def test_all_of_it_is_small(doors):
    bodies = [doors.get(f"/ui/{'' if name == 'index.html' else name}", Accept_Encoding="gzip").body for name in FILES]
    assert sum(map(len, bodies)) < 90_000


@pytest.mark.parametrize(
    "path, up",
    [("/ui/", "./"), ("/ui/workers", "./"), ("/ui/tasks/5", "../"), ("/ui/tasks/5?attempt=a/b/c", "../"),
     ("/ui/batches/a%2Fb", "../"),
     ("/ui/batches/a/b", "../../"), ("/ui/batches/x.js", "../"), ("/ui/index.html", "./")],
)  # fmt: skip
def test_each_page_is_the_one_page_that_finds_its_files(doors, path, up):
    answer = doors.get(path)
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/html")
    assert f'src="{up}js/main.js"'.encode() in answer.body


def test_its_policy_lets_no_text_become_script(doors):
    for path in ("/ui/", "/ui/js/main.js"):
        policy = doors.get(path).headers["Content-Security-Policy"]
        assert "require-trusted-types-for 'script'" in policy and "trusted-types 'none'" in policy and "unsafe" not in policy
    assert "trusted-types" not in doors.get("/docs").headers["Content-Security-Policy"]  # where Swagger UI would break


@pytest.mark.parametrize(
    "name", ["js/none.js", "js/api.js", "none.css", "js/../index.html", "..%2fapi%2fui.py", "__init__.py", "js%2fmain.js"]
)
def test_no_other_file_is_served(doors, name):
    answer = doors.get(f"/ui/{name}")
    assert b"def " not in answer.body and (answer.status == 404) == name.endswith(("none.js", "api.js", "none.css"))


@pytest.mark.parametrize("path", ["/", "/ui"])
def test_where_a_person_begins(doors, path):
    answer = doors.get(path)
    assert answer.status == 303 and answer.headers["Location"] == "ui/"


# --- signing in and out -----------------------------------------------------------------------------------------------


def ask(doors: Doors, path: str, body: dict, **headers):
    with Connection(doors.server.url) as connection:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return connection.request("POST", path, body, headers=named)


def test_signing_in_and_out(doors):
    answer = ask(doors, "/login", {"token": doors.user}, Origin=doors.server.url)
    assert answer.status == 204 and answer.body == b""
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Secure" not in cookie
    assert doors.get("/api/v1/server", Cookie=cookie.partition(";")[0]).json()["you"] == {"name": "ursula", "role": "user"}
    out = ask(doors, "/logout", {}, Origin=doors.server.url).headers["Set-Cookie"]
    assert out.partition("=")[0] == cookie.partition("=")[0] and out.partition(";")[0].endswith("=") and "Max-Age=0" in out


def test_signing_in_with_what_is_no_users_token(doors):
    wrong = ask(doors, "/login", {"token": "scitq_wrong"}, Origin=doors.server.url)
    assert wrong.status == 401 and "not known" in error(wrong)["message"] and "Set-Cookie" not in wrong.headers
    for body in ({"token": doors.worker}, {"token": ""}, {"token": "\ud800"}, {"token": "a\r\nb"}, {}, {"token": 1}):
        answer = ask(doors, "/login", body, Origin=doors.server.url)
        assert answer.status == 400 and error(answer)["field"] == "token"


def test_no_other_page_signs_in_or_out(doors):
    for path, body in (("/login", {"token": doors.user}), ("/logout", {})):
        for headers in ({}, {"Sec_Fetch_Site": "same-site"}, {"Origin": "http://evil.example"}):
            answer = ask(doors, path, body, **headers)
            assert answer.status == 403 and "Set-Cookie" not in answer.headers


def test_without_tokens_anything_signs_in(tmp_path):
    env = Env(tmp_path)
    server = env.server("--no-auth")
    with Connection(server.url) as connection:
        answer = connection.request("POST", "/login", {"token": "x"}, headers={"Origin": server.url})
        assert answer.status == 204 and "x" not in answer.headers["Set-Cookie"].partition("=")[2].partition(";")[0]
    assert f"{server.url}/ui/" in server.output()
    env.close()
