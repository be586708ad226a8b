/** The page of a batch. */

import { quoted, workerCommand } from "./addworker.js";
import { get } from "./api.js";
import { histogram, meter, timeline } from "./chart.js";
import { el, replace, show } from "./dom.js";
import { confirm } from "./dialogs.js";
import { askBudget, spending } from "./budget.js";
import { bytes, count, duration, many, range, rate, total } from "./format.js";
import { deleteBatch, exports, fetchBatch, goBatch, pathOf, stopBatch } from "./batchactions.js";
import { deploy } from "./deploy.js";
import { editAndRelaunch } from "./edit.js";
import { failureTable } from "./failures.js";
import { named } from "./hidden.js";
import { notifiers } from "./notifiers.js";
import { recruiters } from "./recruiters.js";
import { live } from "./live.js";
import { drawing, refresher } from "./refresh.js";
import { go, link, query, setQuery } from "./router.js";
import { slots, slotsInWords } from "./workerparts.js";
import { ORDER, badge, stackedBar } from "./states.js";
import { areSteps, stepList } from "./steps.js";
import { changeMany } from "./workeredit.js";

const SPANS = { "": "all, up to 2,000 attempts", "15m": "the last 15 minutes", "1h": "the last hour", "6h": "the last 6 hours", "1d": "the last day", "7d": "the last week" };
const TIMELINE_MS = 3000; // at least, from one drawing to the next
const EVER = "1970-01-01T00:00:00Z";
const FINAL = ["succeeded", "failed", "canceled"];

/** @param {object} ctx see router.js */
export async function page(ctx) {
  const name = ctx.params.name;
  ctx.title(name);
  const row = live.batches.get(name) ?? (await fetchBatch(name));
  const view = new View(ctx, name, live.batches.get(name) ?? row); // the stream tells more, and may have begun meanwhile
  view.wasTold = live.batches.has(name);
  view.start();
}

class View {
  constructor(ctx, name, row) {
    Object.assign(this, { ctx, name, row });
    this.parts = {};
    this.failures = failureTable(name, editAndRelaunch);
    this.recruiters = recruiters(ctx, name, this.toldBy("recruiters"));
    this.notifiers = notifiers(ctx, name, this.toldBy("notifiers"));
  }

  start() {
    this.build();
    this.showRow();
    const again = [refresher(this.ctx, () => this.loadReport(), this.toldBy("report")), refresher(this.ctx, () => this.loadSteps(), this.toldBy("steps"))];
    const reloadTimeline = refresher(this.ctx, () => this.loadTimeline(), this.toldBy("timeline"), TIMELINE_MS);
    this.reloadTimeline = reloadTimeline;
    this.ctx.listen("batches", () => this.changed([...again, reloadTimeline]));
    this.ctx.listen("workers", () => this.showWorkers());
    this.ctx.every(10, () => this.row.counts.running && reloadTimeline());
    this.ctx.every(2, () => this.wasTold || this.isGone || fetchBatch(this.name).catch((error) => error.status === 404 && this.gone())); // one that came and went between two news
  }

  /** Something of some batch changed: of this one? */
  changed(reloads) {
    const row = live.batches.get(this.name);
    if (!row) return this.wasTold ? this.gone() : null; // news are up to a second late: of a new one there are none yet
    this.wasTold = true;
    if (this.isGone) return go(location.href, { replace: true }); // it was made anew
    const isOther = JSON.stringify(row.counts) !== JSON.stringify(this.row.counts);
    this.row = row;
    this.showRow();
    if (isOther) for (const reload of reloads) reload();
  }

  gone() {
    this.isGone = true;
    replace(this.ctx.main, el("h1", { text: named(this.name) }),
      el("div", { class: "empty" }, el("p", { text: "This batch does not exist any more: somebody deleted it." }), link("/", "To all batches")));
  }

  build() {
    const part = (name, tag = "div", props = {}) => (this.parts[name] = el(tag, props));
    const section = (name, title, ...beside) => {
      const heading = el("h2", { id: `h-${name}`, text: title });
      const error = (this.parts[`${name}-error`] = el("p", { class: "field-error", role: "alert", hidden: true }));
      return (this.parts[`${name}-section`] = el("section", { class: `panel part-${name}`, "aria-labelledby": `h-${name}` }, el("div", { class: "panel-head" }, heading, beside), error, part(name, "div", { class: "part" })));
    };
    replace(this.ctx.main,
      el("header", { class: "page-head" }, el("h1", { text: named(this.name) }), part("stopped", "span"), el("div", { class: "actions" }, part("stopgo", "span"), this.budgetButton(), this.exportMenu(), this.deleteButton())),
      el("section", { class: "summary", "aria-label": "Progress" }, part("bar"), part("facts", "p", { class: "fact-line" })),
      part("cards", "ul", { class: "cards state-cards", "aria-label": "Tasks by state" }),
      section("report", "What failed"),
      el("div", { class: "side-by-side" }, section("durations", "How long tasks took"), section("memory", "Memory")),
      section("timeline", "What ran when", this.spanChoice()),
      el("div", { class: "side-by-side" }, section("steps", "Steps"), section("workers", "Workers", this.deployButton())),
      section("recruiters", "Recruiters", this.recruiters.button),
      section("notifiers", "Notifiers", this.notifiers.button));
    for (const name of ["recruiters", "notifiers"]) replace(this.parts[name], this[name].node);
    replace(this.parts.report, this.failures.node);
    this.draw = { timeline: drawing(this.ctx, this.parts.timeline), durations: drawing(this.ctx, this.parts.durations) };
    for (const name of ["report", "steps"]) show(this.parts[`${name}-section`], false);
  }

  exportMenu() {
    return el("span", { class: "row export", role: "group", "aria-label": "Export" }, el("span", { class: "muted", text: "Export" }), exports(() => this.row));
  }

  budgetButton() {
    return el("button", { text: "Budget…", title: "What machines that are deployed for it may cost", on: { click: () => askBudget(this.row) } });
  }

  deployButton() {
    return el("button", { class: "small", text: "Deploy…", title: "New machines of a provider, for this batch", on: { click: () => deploy(this.name) } });
  }

  deleteButton() {
    return el("button", { class: "danger", text: "Delete…", on: { click: () => deleteBatch(this.row) } });
  }

  spanChoice() {
    const options = Object.entries(SPANS).map(([value, text]) => el("option", { value, text, selected: value === query().get("since") }));
    return (this.span = el("select", { "aria-label": "Time shown", on: { change: () => this.spanChanged() } }, options));
  }

  spanChanged() {
    setQuery({ since: this.span.value || null }, { replace: true });
    this.reloadTimeline();
  }

  /** What failed while a part was loaded; when the connection is lost the bar at the top says so. */
  toldBy(name) {
    return (error) => {
      const node = this.parts[`${name}-error`];
      if (!node) return;
      node.textContent = error && error.status ? error.message : "";
      show(node, node.textContent !== "");
    };
  }

  // --- what the stream tells ---

  showRow() {
    const { counts, stopped } = this.row;
    replace(this.parts.bar, stackedBar(counts));
    replace(this.parts.facts, facts(this.row).map((fact) => el("span", { class: "fact" }, fact)));
    this.showCards(counts);
    this.showStopped(stopped);
    this.showWorkers();
  }

  showStopped(stopped) {
    if (this.stopped === stopped) return;
    this.stopped = stopped;
    replace(this.parts.stopped, stopped ? badge("stopped") : null);
    const button = stopped
      ? el("button", { class: "primary", text: "Go", title: "Let tasks start again; what was suspended goes on", on: { click: () => goBatch(this.row) } })
      : el("button", { text: "Stop…", title: "Nothing of it starts any more", on: { click: () => stopBatch(this.row) } });
    replace(this.parts.stopgo, button);
  }

  showCards(counts) {
    this.cards ??= new Map(ORDER.map((state) => [state, stateCard(this.name, state)]));
    if (!this.parts.cards.childElementCount) replace(this.parts.cards, [...this.cards.values()].map((card) => card.node));
    for (const [state, card] of this.cards) card.set(counts[state] ?? 0);
  }

  showWorkers() {
    const rows = [...live.workers.values()].filter((worker) => worker.batch === this.name);
    rows.sort((one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }));
    const key = rows.length ? JSON.stringify(rows.map((row) => [row.id, row.name, row.state, row.running, row.held, row.concurrency, row.problem])) : JSON.stringify(this.row.counts);
    if (key === this.workersShown) return;
    this.workersShown = key;
    replace(this.parts.workers, rows.length ? el("ul", { class: "worker-list" }, rows.map(workerLine)) : noWorker(this.row));
  }

  // --- what is asked for ---

  async loadReport() {
    const report = await get(`${pathOf(this.name)}/report`, { alike: true });
    this.failures.update(report.failures);
    if (report.failures.length) show(this.parts["report-section"], true); // and stays: what is below does not jump
    this.draw.durations((width) => durationsPart(report, width));
    replace(this.parts.memory, memoryPart(report, this.name));
  }

  async loadSteps() {
    const { items } = await get(`${pathOf(this.name)}/steps`);
    show(this.parts["steps-section"], areSteps(items));
    replace(this.parts.steps, stepList(this.name, items));
  }

  async loadTimeline() {
    const answer = await get(`${pathOf(this.name)}/timeline`, { since: this.span.value || EVER });
    this.draw.timeline((width) => timelinePart(answer, width));
  }
}

/** What is to be said of a batch in numbers. */
function facts(row) {
  const all = total(row.counts);
  const done = FINAL.reduce((sum, state) => sum + (row.counts[state] ?? 0), 0);
  if (!all) return ["It holds no task yet: give it some with ", el("code", { text: `scitq launch -b ${quoted(row.name)} COMMAND` })];
  const share = Math.floor((100 * done) / all);
  const parts = [[el("b", { text: `${count(done)} of ${count(all)}` }), ` done (${share} %)`]];
  if (row.throughput_per_hour) parts.push([el("b", { text: rate(row.throughput_per_hour) }), " lately"]);
  if (done < all) parts.push(timeLeft(row));
  parts.push(workersInWords(row));
  if (row.cost !== undefined && (row.cost !== null || row.budget !== null)) parts.push(spending(row));
  return parts;
}

/** "2 workers, 16 slots". */
function workersInWords({ workers, slots: number }) {
  if (!workers) return "no worker";
  return many(workers, "worker") + (number === undefined ? "" : `, ${many(number, "slot")}`);
}

function timeLeft(row) {
  if (row.stopped) return "stopped: no end in sight";
  if (row.eta_seconds) return [el("b", { text: range(row.eta_seconds) }), " left"];
  return el("span", { class: "muted", text: row.workers && row.slots !== 0 ? "time left: not known yet" : "no end in sight" });
}

function stateCard(batch, state) {
  const number = el("span", { class: "card-number" });
  const anchor = link(`/tasks?${new URLSearchParams({ batch, state })}`, number, badge(state));
  anchor.classList.add("card");
  const set = (value) => {
    number.textContent = count(value);
    anchor.classList.toggle("zero", value === 0);
  };
  return { node: el("li", null, anchor), set };
}

function workerLine(row) {
  return el("li", null, link(`/workers/${row.id}`, row.name), badge(row.state), slots(row),
    el("span", { class: "muted", text: row.problem ?? slotsInWords(row) }));
}

function noWorker({ name, counts }) {
  if (Object.keys(counts).every((state) => FINAL.includes(state) || !counts[state])) return el("p", { class: "muted", text: "None is in this batch, which is done." });
  return el("p", { class: "muted" }, "No worker is in this batch, so nothing of it starts. Start one with ", el("code", { text: workerCommand({ batch: name }) }),
    ", or move one here on the page of ", link("/workers", "workers"), ".");
}

function durationsPart({ durations, histogram: bins }, width) {
  if (!durations.count) return el("p", { class: "muted", text: "Nothing has succeeded yet." });
  const words = `${count(durations.count)} succeeded: ${duration(durations.least)} to ${duration(durations.most)}, on average ${duration(durations.mean)}.`;
  return [bins?.length ? histogram(bins, { unit: "s", label: "Tasks by duration", width }) : null, el("p", { class: "muted", text: words })];
}

function memoryPart({ memory }, batch) {
  if (!memory?.peak_bytes) return el("p", { class: "muted", text: "Known when tasks have succeeded." });
  return [memoryBars(memory), memory.sentence ? el("p", { text: memory.sentence }) : null, hintButton(memory, batch)];
}

/** Bars against the memory of the smallest worker: a task, and as many as run at once. */
function memoryBars(memory) {
  const most = Math.max(memory.worker_bytes ?? 0, memory.peak_bytes * (memory.concurrency || 1));
  const lines = [
    ["typical", memory.typical_bytes],
    ["peak", memory.peak_bytes],
    memory.concurrency > 1 ? [`${memory.concurrency} at once, at their peak`, memory.peak_bytes * memory.concurrency] : null,
    memory.worker_bytes ? ["the smallest worker's", memory.worker_bytes] : null,
  ].filter((line) => line && line[1]);
  return el("dl", { class: "bars" }, lines.map(([label, value]) => [el("dt", { text: label }), el("dd", null, meter(value / most, value > (memory.worker_bytes ?? Infinity)), el("span", { text: bytes(value) }))]));
}

function hintButton(memory, batch) {
  const wanted = memory.concurrency_hint;
  if (!wanted || wanted === memory.concurrency) return null;
  const work = async () => {
    const rows = [...live.workers.values()].filter((worker) => worker.batch === batch);
    const changes = rows.slice(0, 20).map((row) => `${row.name}: ${row.concurrency} → ${wanted}`);
    const body = `${changes.join(", ")}. What runs goes on.`;
    const yes = rows.length && (await confirm({ title: `Set the concurrency of ${many(rows.length, "worker")} to ${wanted}?`, body, verb: "Set" }));
    if (yes) await changeMany(rows, { concurrency: wanted }, `Concurrency ${wanted} on ${many(rows.length, "worker")}.`, (row) => ({ concurrency: row.concurrency }));
  };
  return el("p", null, el("button", { text: `Set concurrency ${wanted}…`, on: { click: work } }));
}

function timelinePart({ to, items }, width) {
  if (!items.length) return el("p", { class: "muted", text: "Nothing ran in this time." });
  const now = Date.parse(to);
  const lanes = lanesOf(items, now).map(({ worker, slot, items: spans }) => ({
    label: `${worker} · ${slot}`,
    tick: slot === 1 ? worker : "",
    items: spans.map((span) => ({ ...span, state: span.item.state, title: titleOf(span) })),
  }));
  const all = lanes.flatMap((lane) => lane.items);
  const [begin, end] = [Math.min(...all.map((span) => span.from)), Math.max(...all.map((span) => span.to))];
  const open = ({ item }) => go(`/tasks/${item.task_id}?attempt=${item.execution_id}`);
  return timeline(lanes, { from: begin, to: end, onOpen: open, label: "What ran in the slots of the workers", width });
}

function titleOf({ item, from, to }) {
  return `${named(item.name ?? "task")} ${item.task_id}: ${item.state}, ${duration((to - from) / 1000)}`;
}

/**
 * The lanes of a timeline, by worker and slot: what ran at the same time lies in different ones.
 * @param {{execution_id: number, worker: string|null, started_at: string, ended_at: string|null}[]} items
 * @param {number} now milliseconds; where those end that still run
 * @returns {{worker: string, slot: number, items: {item: object, from: number, to: number}[]}[]}
 */
function lanesOf(items, now) {
  const workers = new Map();
  for (const span of spans(items, now)) {
    const name = span.item.worker ?? "a deleted worker";
    if (!workers.has(name)) workers.set(name, []);
    put(workers.get(name), span);
  }
  const names = [...workers.keys()].sort((one, other) => one.localeCompare(other, undefined, { numeric: true }));
  return names.flatMap((worker) => workers.get(worker).map((lane, index) => ({ worker, slot: index + 1, items: lane })));
}

function spans(items, now) {
  return items
    .filter((item) => item.started_at)
    .map((item) => ({ item, from: Date.parse(item.started_at), to: item.ended_at ? Date.parse(item.ended_at) : now }))
    .sort((one, other) => one.from - other.from);
}

/** Puts a span into the first lane that is free then. */
function put(lanes, span) {
  const free = lanes.find((lane) => lane.at(-1).to <= span.from);
  if (free) free.push(span);
  else lanes.push([span]);
}
