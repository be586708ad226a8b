/** The overview: what needs attention, and a line for each batch. */

import { copyLine, workerCommand } from "./addworker.js";
import { root } from "./api.js";
import { attention } from "./attention.js";
import { deleteBatch, goBatch, stopBatch } from "./batchactions.js";
import { el, replace, show } from "./dom.js";
import { spending } from "./budget.js";
import { count, range, rate } from "./format.js";
import { named } from "./hidden.js";
import { live } from "./live.js";
import { go, link, setQuery } from "./router.js";
import { ORDER, badge, glyph, inWords, stackedBar } from "./states.js";
import { table } from "./table.js";

const PAGE = 300; // batches that are shown at once
const AHEAD = ["uploading", "running", "accepted", "assigned", "pending", "waiting"];
const FIRST_NEWS = 3000; // milliseconds after which that nothing came is told

const addressOf = (row) => `/batches/${encodeURIComponent(row.name)}`;
const sum = (counts, states = ORDER) => states.reduce((total, state) => total + (counts[state] ?? 0), 0);

/** @param {object} ctx see router.js */
export async function page(ctx) {
  ctx.title("Overview");
  const totals = strip();
  const batches = batchTable(ctx);
  const wait = el("p", { class: "muted", hidden: true }, "The server has not told anything yet.");
  const body = el("div", { class: "page" }, totals.node, attention(ctx), batches.node);
  const welcome = el("div", { hidden: true }, firstSteps());
  replace(ctx.main, el("div", { class: "page-head" }, el("h1", null, "Overview")), wait, show(body, false), welcome);
  const draw = () => {
    if (!live.freshAt) return;
    const isNew = live.workers.size === 0 && [...live.batches.values()].every((row) => row.name === "Default" && sum(row.counts) === 0);
    show(wait, false);
    show(body, !isNew);
    show(welcome, isNew);
    totals.update();
    batches.update();
  };
  const late = setTimeout(() => show(wait, !live.freshAt), FIRST_NEWS);
  ctx.onLeave(() => clearTimeout(late));
  ctx.onQuery(batches.readQuery);
  ctx.listen("batches", draw);
  ctx.listen("workers", draw);
  draw();
}

/** All tasks by state, and all workers: places that stay, so that nothing moves. */
function strip() {
  const cells = ORDER.map((state) => ({ state, number: el("span", { class: "strip-number" }) }));
  const free = el("span", { class: "strip-number" });
  const workers = el("span", { class: "muted" });
  const cell = ({ state, number }) => el("a", { class: "strip-cell", href: link(`/tasks?state=${state}`).href, data: { state } }, number, badge(state));
  const last = el("a", { class: "strip-cell", href: link("/workers").href }, free, workers);
  const node = el("nav", { class: "strip", "aria-label": "Tasks by state, and workers" }, cells.map(cell), last);
  const update = () => {
    const rows = [...live.batches.values()];
    for (const { state, number } of cells) {
      const total = rows.reduce((so, row) => so + (row.counts[state] ?? 0), 0);
      number.textContent = count(total);
      number.parentNode.classList.toggle("zero", total === 0);
    }
    const there = [...live.workers.values()].filter((row) => row.state === "online");
    free.textContent = live.workers.size === there.length ? count(there.length) : `${count(there.length)} of ${count(live.workers.size)}`;
    workers.textContent = `${live.workers.size === 1 ? "worker" : "workers"} online`;
  };
  return { node, update };
}

function batchTable(ctx) {
  const shown = table({ caption: "Batches", columns, key: (row) => row.name, onOpen: (row) => go(addressOf(row)), empty: "No batch has this name." });
  shown.node.classList.add("batches");
  const filter = el("input", { type: "search", id: "batch-filter", placeholder: "part of a name", data: { filter: "" }, "aria-label": "Filter batches by name" });
  const head = el("div", { class: "page-head" }, el("h2", { id: "batches-title" }, "Batches"), filter);
  let most = PAGE;
  const update = (force = false) => {
    const wanted = filter.value.trim().toLowerCase();
    const rows = [...live.batches.values()].reverse();
    const passing = rows.filter((row) => row.name.toLowerCase().includes(wanted));
    const more = passing.length > most ? async () => ((most += PAGE), update(true)) : null;
    shown.node.classList.toggle("costs", rows.some((row) => row.cost || row.budget));
    shown.update(passing.slice(0, most), { force, more, note: more ? `of ${count(passing.length)}` : "" });
  };
  const readQuery = (query) => {
    filter.value = query.get("name") ?? "";
    update(true);
  };
  filter.addEventListener("input", () => (setQuery({ name: filter.value.trim() }), update(true)));
  filter.value = ctx.query.get("name") ?? "";
  return { node: el("section", { class: "section", "aria-labelledby": "batches-title" }, head, shown.node), update, readQuery };
}

const columns = [
  { key: "name", label: "Batch", head: true, narrow: "title", sort: true, class: "batch-name", cell: nameOf },
  { key: "counts", label: "Tasks by state", class: "batch-states", cell: states },
  { key: "tasks", label: "Tasks", class: "num", narrow: "hide", sort: (row) => sum(row.counts), cell: (row) => count(sum(row.counts)) },
  { key: "throughput_per_hour", label: "Throughput", class: "num", narrow: "hide", sort: true, cell: (row) => rate(row.throughput_per_hour) },
  { key: "eta", label: "Time left", class: "num", sort: (row) => row.eta_seconds?.[1], cell: timeLeft },
  { key: "workers", label: "Workers", class: "num", sort: true, cell: workersOf },
  { key: "cost", label: "Cost", class: "num col-cost", narrow: "hide", sort: (row) => row.cost ?? -1, cell: (row) => (row.cost || row.budget ? spending(row) : null) },
  { key: "actions", label: "Actions", class: "row-actions", cell: actions },
];

function nameOf(row) {
  return [link(addressOf(row), named(row.name)), row.stopped ? el("span", { class: "badge", data: { state: "stopped" } }, glyph("stopped"), "stopped") : null];
}

function states(row) {
  const there = ORDER.filter((state) => row.counts[state] > 0);
  const badges = there.map((state) => el("a", { href: link(`/tasks?${new URLSearchParams({ batch: row.name, state })}`).href }, badge(state, { count: row.counts[state] })));
  return [stackedBar(row.counts), el("div", { class: "counts" }, badges.length ? badges : inWords({}))];
}

/** Honest: a range, or why there is none. */
function timeLeft(row) {
  if (sum(row.counts, AHEAD) === 0) return el("span", { class: "muted" }, "–");
  if (row.eta_seconds) return range(row.eta_seconds);
  const why = row.stopped ? "stopped" : row.slots ? "not known yet" : row.workers ? "no fit worker" : "no worker";
  const title = why === "not known yet" ? "Nothing of this batch has succeeded yet that could tell how long it takes" : null;
  return el("span", { class: "muted", title }, why);
}

function workersOf(row) {
  const address = link(`/workers?${new URLSearchParams({ batch: row.name })}`).href;
  return row.workers ? el("a", { href: address, title: `${count(row.slots)} run slots` }, count(row.workers)) : el("span", { class: "muted" }, "0");
}

function actions(row) {
  const button = (text, work, more = {}) => el("button", { class: "small", "aria-label": `${text} ${row.name}`, on: { click: () => work(row) }, ...more }, text);
  const turn = row.stopped ? button("Go", goBatch) : button("Stop", stopBatch);
  return el("span", { class: "row" }, turn, button("Delete", (it) => deleteBatch(it), { class: "small quiet" }));
}

/** Nobody has given this server anything yet: what to type. */
function firstSteps() {
  const worker = copyLine("start a worker");
  const task = copyLine("launch a task");
  worker.set(workerCommand({}));
  const server = root.href.replace(/\/$/, "");
  const where = /^http:..(localhost|127\.0\.0\.1):5000$/.test(server) ? "" : `--server ${server} `;
  task.set(`scitq launch ${where}'echo hello'`);
  return el(
    "div",
    { class: "empty" },
    el("h2", null, "Nothing here yet"),
    el("p", null, "A worker runs tasks. Start one on the machine of the server (", link("/workers", "elsewhere"), "):"),
    worker.node,
    el("p", null, "Then give it something to do:"),
    task.node,
    el("p", null, "Both appear here by themselves. More: ", el("code", null, "scitq launch -h"), ", ", el("code", null, "scitq worker -h"), "."),
  );
}
