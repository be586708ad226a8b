/** Addresses and pages. What a page started ends when it is left. */

import { el, replace } from "./dom.js";
import { live } from "./live.js";

const BASE = new URL("../", import.meta.url); // of the UI
const routes = [];
let main = null;
let current = null;
let onChange = () => {};

/**
 * A page for addresses of this form: `:name` is one part of the path, `*name` all the rest.
 * @param {string} pattern such as `/tasks/:id`
 * @param {(ctx: object) => Promise<void>} page
 */
export function route(pattern, page) {
  const names = [];
  const text = pattern.replace(/[:*](\w+)/g, (mark, name) => (names.push(name), mark[0] === "*" ? "(.+)" : "([^/]+)"));
  routes.push({ form: new RegExp(`^${text}/?$`), names, page });
}

/** Goes to a page: `/tasks?state=failed`. */
export function go(url, { replace: instead = false } = {}) {
  const target = absolute(url);
  if (!instead) history.replaceState({ ...history.state, scroll: scrollY }, "");
  history[instead ? "replaceState" : "pushState"]({}, "", target);
  return display();
}

/** A link to a page. */
export function link(url, ...children) {
  return el("a", { href: absolute(url).href }, ...children);
}

/** @returns {URLSearchParams} of the page that is shown */
export function query() {
  return new URLSearchParams(location.search);
}

/** Changes the query in the address (null takes a name out). The page stays: it knows what it asked for. */
export function setQuery(changes, { replace: instead = true } = {}) {
  const url = new URL(location.href);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") url.searchParams.delete(name);
    else url.searchParams.set(name, value);
  }
  if (url.href === location.href) return;
  history[instead ? "replaceState" : "pushState"](instead ? history.state : {}, "", url);
  if (current) current.search = url.search;
}

/** Shows the page of the address, now and whenever it changes; `changed(path)` hears of each. */
export function start(element, changed) {
  main = element;
  onChange = changed;
  history.scrollRestoration = "manual";
  addEventListener("popstate", () => display(history.state?.scroll ?? 0));
  document.addEventListener("click", follow);
  return display(history.state?.scroll ?? 0);
}

/** Leaves the page that is shown; the next `display` makes one. */
export function leave() {
  current?.abandon();
  current = null;
}

/** The path within the UI: `/tasks/3`. */
export function path() {
  return "/" + location.pathname.slice(BASE.pathname.length);
}

async function display(scroll = 0) {
  if (current && current.path === location.pathname && current.queryChanged) {
    if (current.search !== location.search) {
      current.search = location.search;
      await current.queryChanged(query());
    }
    return;
  }
  leave();
  const mine = (current = context());
  mine.ctx.title("");
  replace(main, mine.ctx.main);
  onChange(path());
  if (document.activeElement !== document.body) main.focus({ preventScroll: true });
  scrollTo(0, 0);
  try {
    await find()(mine.ctx);
  } catch (error) {
    if (current === mine && error.name !== "AbortError") replace(mine.ctx.main, trouble(error));
  }
  if (current === mine && scroll) scrollTo(0, scroll);
}

function find() {
  for (const { form, names, page } of routes) {
    const match = form.exec(path());
    if (!match) continue;
    current.ctx.params = Object.fromEntries(names.map((name, index) => [name, decode(match[index + 1])]));
    return page;
  }
  return nowhere;
}

function nowhere(ctx) {
  ctx.title("Not found");
  ctx.main.append(
    el("h1", null, "There is no such page"),
    el("p", null, "The address leads nowhere. ", link("/", "To the overview")),
  );
}

/** What went wrong, in the words of who said it, and a way on. */
function trouble(error) {
  if (!error.code) console.error(error);
  const missing = error.status === 404;
  return el(
    "div",
    { class: "empty", role: "alert" },
    el("h1", null, missing ? "Not found" : "This page could not be shown"),
    el("p", null, error.message),
    el("p", { class: "row" }, el("button", { on: { click: again } }, "Try again"), link("/", "To the overview")),
  );
}

function again() {
  leave();
  return display();
}

/** What a page gets, and the one thing that ends all of it. */
function context() {
  const ends = [];
  let left = false;
  const off = (end) => (left ? end() : ends.push(end));
  const ctx = {
    main: el("div", { class: "page" }),
    params: {},
    query: query(),
    title: (text) => (document.title = text ? `${text} · scitq` : "scitq"),
    onLeave: off,
    onQuery: (fn) => (made.queryChanged = fn),
    every: (seconds, fn) => {
      const timer = setInterval(() => document.hidden || fn(), seconds * 1000);
      off(() => clearInterval(timer));
    },
    listen: (kind, fn) => off(live.on(kind, fn)),
  };
  const abandon = () => ((left = true), ends.splice(0).forEach((end) => end()));
  const made = { ctx, abandon, path: location.pathname, search: location.search, queryChanged: null };
  return made;
}

function follow(event) {
  const anchor = event.target.closest?.("a[href]");
  const other = event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey;
  if (!anchor || other || anchor.target || anchor.hasAttribute("download")) return;
  const url = new URL(anchor.href);
  const within = url.origin === location.origin && url.pathname.startsWith(BASE.pathname) && !/\.\w+$/.test(lastWord(url));
  if (!within || (url.hash && url.pathname === location.pathname)) return;
  event.preventDefault();
  go(url.href);
}

/** Files of the UI are no pages; a batch may have a dot in its name all the same. */
function lastWord(url) {
  return url.pathname.startsWith(BASE.pathname + "js/") ? url.pathname : "";
}

function absolute(url) {
  if (/^https?:/.test(url)) return new URL(url);
  return new URL(url.replace(/^\/(ui\/|ui$)?/, "") || "./", BASE);
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // no UTF-8: as it is
  }
}
