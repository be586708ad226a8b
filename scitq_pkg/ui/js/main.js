/** The frame of all pages: who am I, where am I, is the line alive. */

import { get, root, send, session } from "./api.js";
import { page as batch } from "./batch.js";
import { failed } from "./dialogs.js";
import { el, replace, show } from "./dom.js";
import { duration } from "./format.js";
import { page as job } from "./job.js";
import { page as jobs } from "./jobs.js";
import { help, keys } from "./keys.js";
import { live } from "./live.js";
import { page as overview } from "./overview.js";
import { go, leave, link, route, start } from "./router.js";
import { page as settings } from "./settings.js";
import { page as task } from "./task.js";
import { page as tasks } from "./tasks.js";
import { page as worker } from "./worker.js";
import { page as workers } from "./workers.js";

const PAGES = {
  "/": overview,
  "/batches/*name": batch,
  "/tasks": tasks,
  "/tasks/:id": task,
  "/workers": workers,
  "/workers/:id": worker,
  "/jobs": jobs,
  "/jobs/:id": job,
  "/settings": settings,
};
const NAVIGATION = [
  ["/", "Overview", "o"],
  ["/tasks", "Tasks", "t"],
  ["/workers", "Workers", "w"],
  ["/jobs", "Jobs", "j"],
  ["/settings", "Settings", "s"],
];
const THEMES = { auto: "light", light: "dark", dark: "auto" };
const LINE = { live: "live", polling: "live, by polling", lost: "connection lost" };

const main = document.getElementById("main");
const header = document.getElementById("header");
const bar = el("div", { class: "line-bar", role: "status", hidden: true });
const line = el("span", { class: "line" });
const who = el("span", { class: "who" });
const nav = el("nav", { "aria-label": "Pages" }, NAVIGATION.map(([url, word]) => link(url, word)));
let version = null; // of the server that these files came from
let started = false;

for (const [pattern, page] of Object.entries(PAGES)) route(pattern, page);
document.querySelector("link[rel=icon]").href = new URL("ui/icon.svg", root); // whatever the address becomes
buildHeader();
bindKeys();
live.on("connection", showLine);
live.on("batches", showLine);
live.on("workers", showLine);
setInterval(showLine, 1000);
session.addEventListener("signed-out", signIn);
begin();

async function begin() {
  try {
    const server = await get("/server");
    live.server ??= server;
    version = server.version;
    show(header, true);
    showWho(server.you);
    live.start();
    if (started) return await go(location.href, { replace: true });
    started = true;
    await start(main, moved);
  } catch (error) {
    if (error.status !== 401) unreachable(error);
  }
}

function moved(now) {
  for (const [index, [url]] of NAVIGATION.entries()) {
    const here = url === "/" ? now === "/" || now.startsWith("/batches/") : now.startsWith(url);
    if (here) nav.children[index].setAttribute("aria-current", now === url ? "page" : "true");
    else nav.children[index].removeAttribute("aria-current");
  }
}

function buildHeader() {
  const brand = el("a", { class: "brand", href: new URL("ui/", root).href, "aria-label": "scitq, overview" }, el("img", { src: new URL("ui/icon.svg", root).href, alt: "", width: 22, height: 22 }), "scitq");
  const keysButton = el("button", { class: "quiet", title: "Keys (?)", "aria-label": "Keys", on: { click: help } }, "?");
  replace(header, brand, nav, el("div", { class: "header-end" }, line, themeButton(), keysButton, who), bar);
}

function themeButton() {
  const root = document.documentElement;
  const button = el("button", { class: "quiet theme" });
  const now = () => root.dataset.theme ?? "auto";
  const tell = () => {
    button.textContent = { auto: "◐", light: "○", dark: "●" }[now()];
    button.title = `Theme: ${now() === "auto" ? "as the system has it" : now()}`;
    button.setAttribute("aria-label", button.title);
  };
  button.addEventListener("click", () => {
    const next = THEMES[now()];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    keep("scitq.theme", next);
    tell();
  });
  tell();
  return button;
}

function keep(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // a browser that keeps nothing: until it is closed
  }
}

function showWho(you) {
  const signOut = el("button", { class: "quiet", on: { click: leaveServer } }, "Sign out");
  replace(who, el("span", { class: "who-name", title: `Signed in as ${you.name}, role ${you.role}` }, you.name), signOut);
}

async function leaveServer() {
  try {
    await send(new URL("logout", root), { method: "POST" });
    session.dispatchEvent(new Event("signed-out"));
  } catch (error) {
    failed(error);
  }
}

function bindKeys() {
  const pages = Object.fromEntries(NAVIGATION.map(([url, word, key]) => [`g ${key}`, [`Go to ${word.toLowerCase()}`, () => started && go(url)]]));
  keys(null, { ...pages, "/": ["To the filter", focusFilter], "?": ["These keys", help] });
}

function focusFilter() {
  const field = main.querySelector("[data-filter], input[type=search]");
  field?.focus();
  field?.select?.();
  return Boolean(field);
}

// --- the line

function showLine() {
  line.dataset.line = live.connected;
  line.textContent = live.freshAt ? LINE[live.connected] : "connecting";
  const updated = version && live.server && live.server.version !== version;
  const lost = live.connected === "lost" && live.freshAt > 0;
  show(bar, lost || Boolean(updated));
  bar.dataset.kind = lost ? "lost" : "news";
  if (lost) setText(bar, `Connection lost, trying again. What you see is ${duration(Math.round((Date.now() - live.freshAt) / 1000))} old.`);
  else if (updated && !bar.querySelector("button")) replace(bar, `The server was updated to ${live.server.version}. `, el("button", { class: "small", on: { click: () => location.reload() } }, "Reload"));
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// --- who are you

function signIn() {
  live.stop();
  leave();
  show(header, false);
  show(bar, false);
  document.title = "Sign in · scitq";
  const input = el("input", { id: "token", name: "token", type: "password", required: true, autocomplete: "current-password", spellcheck: "false", "aria-describedby": "token-help" });
  const wrong = el("p", { class: "field-error", role: "alert", hidden: true });
  const button = el("button", { type: "submit", class: "primary" }, "Sign in");
  const submit = (event) => (event.preventDefault(), trySignIn(input, button, wrong));
  const field = el("div", { class: "field" }, el("label", { for: "token" }, "Token"), input, wrong);
  const text = "The server printed a link that signs you in when it started. Otherwise your token is in tokens.json of your configuration directory; a colleague gets one of an administrator:";
  const hint = el("div", { id: "token-help", class: "muted" }, el("p", null, text), el("pre", null, el("code", null, "scitq manage token create NAME")));
  replace(main, el("div", { class: "sign-in" }, el("h1", null, "Sign in to scitq"), el("form", { on: { submit } }, field, button), hint));
  input.focus();
}

async function trySignIn(input, button, wrong) {
  button.disabled = true;
  show(wrong, false);
  try {
    await send(new URL("login", root), { method: "POST", body: { token: input.value.trim() } });
    replace(main);
    await begin();
  } catch (error) {
    wrong.textContent = error.message;
    show(wrong, true);
    input.select();
  } finally {
    button.disabled = false;
  }
}

function unreachable(error) {
  const again = el("button", { class: "primary", on: { click: () => location.reload() } }, "Try again");
  replace(main, el("div", { class: "empty", role: "alert" }, el("h1", null, "The server does not answer"), el("p", null, error.message), again));
  setTimeout(() => started || begin(), 3000);
}
