/** The page of the workers. */

import { pages } from "./api.js";
import { el, replace, show } from "./dom.js";
import { count, many } from "./format.js";
import { addWorker } from "./addworker.js";
import { deploy } from "./deploy.js";
import { Histories, MEASURES } from "./history.js";
import { keys } from "./keys.js";
import { live } from "./live.js";
import { refresher } from "./refresh.js";
import { go, setQuery } from "./router.js";
import { WORKER_ORDER } from "./states.js";
import { table } from "./table.js";
import { askBatch, askNumber, drain, keepMachines, onAsked, removeWorkers, upgrade, withAsked } from "./workeredit.js";
import { WorkerLine } from "./workerline.js";

const TASKS_EVERY_MS = 5000; // at most, the names of what runs
const FIRST = 40; // rows, drawn before all others
const byName = (one, other) => one.name.localeCompare(other.name, undefined, { numeric: true });

/** @param {object} ctx see router.js */
export async function page(ctx) {
  ctx.title("Workers");
  new View(ctx).start();
}

class View {
  constructor(ctx) {
    this.ctx = ctx;
    this.lines = new Map(); // id -> WorkerLine
    this.most = FIRST; // rows that are drawn
    this.tasks = new Map(); // name of a worker -> what runs there
    this.histories = new Histories((id) => this.lines.get(id)?.showMeasures());
    this.seen = new IntersectionObserver((entries) => this.cameIntoView(entries));
    this.add = addWorker();
  }

  start() {
    this.table = table({
      caption: "Workers",
      columns: this.columns(),
      key: (row) => row.id,
      onOpen: (row) => go(`/workers/${row.id}`),
      onSelect: () => this.showBulk(),
      selectable: true,
      empty: () => this.nothing(),
    });
    this.table.node.classList.add("of-workers");
    this.build();
    this.readQuery(this.ctx.query);
    const again = () => this.showSoon();
    for (const kind of ["workers", "batches", "jobs"]) this.ctx.listen(kind, again);
    this.ctx.listen("tasks", refresher(this.ctx, () => this.loadTasks(), () => {}, TASKS_EVERY_MS));
    this.ctx.onLeave(onAsked(again));
    this.ctx.onLeave(() => this.seen.disconnect());
    this.ctx.onQuery((query) => this.readQuery(query));
    this.ctx.every(5, () => this.lines.forEach((line) => line.showContact()));
    this.bindKeys();
    this.show();
  }

  columns() {
    const part = (key, label, more = {}) => ({ key, label, class: `col-${key}`, cell: (row) => this.line(row.id).nodes[key], ...more });
    const measures = MEASURES.map(({ key, label, value }) => part(key, label, { narrow: "hide", sort: (row) => value(row.stats ?? {}) ?? -1 }));
    return [
      part("worker", "Worker", { sort: (row) => row.name, narrow: "title", head: true }),
      part("state", "State", { sort: (row) => WORKER_ORDER.indexOf(row.state) }),
      part("slots", "Slots", { sort: (row) => row.running }),
      part("concurrency", "Concurrency", { sort: (row) => row.concurrency }),
      part("prefetch", "Prefetch", { sort: (row) => row.prefetch }),
      part("batch", "Batch", { sort: (row) => row.batch }),
      ...measures,
      part("cost", "Cost", { class: "num col-cost", narrow: "hide", sort: (row) => row.cost ?? -1 }),
      part("runs", "Runs"),
      part("actions", "Actions"),
    ];
  }

  build() {
    const redo = () => this.filterChanged();
    this.name = el("input", { type: "search", placeholder: "name, or node*", "aria-label": "Name", title: "A part of the name, or a pattern with * and ?", data: { filter: "" }, on: { input: redo } });
    this.state = el("select", { "aria-label": "State", on: { change: redo } });
    this.batch = el("select", { "aria-label": "Batch", on: { change: redo } });
    this.total = el("span", { class: "muted" });
    this.bulk = el("div", { class: "bulk", role: "region", "aria-label": "Selected workers", hidden: true });
    replace(this.ctx.main,
      el("header", { class: "page-head" }, el("h1", { text: "Workers" }), this.total,
        el("button", { text: "Deploy…", title: "New machines of a provider", on: { click: () => deploy(this.filter.batch || undefined) } })),
      el("search", { class: "filters" }, this.name, this.state, this.batch),
      this.bulk, this.table.node, this.add.node);
  }

  // --- the filter, which is in the address

  readQuery(query) {
    this.filter = { name: query.get("name") ?? "", state: query.get("state") ?? "", batch: query.get("batch") ?? "" };
    if (document.activeElement !== this.name) this.name.value = this.filter.name;
    this.show(true);
  }

  filterChanged() {
    this.filter = { name: this.name.value.trim(), state: this.state.value, batch: this.batch.value };
    setQuery(this.filter, { replace: true });
    this.show(true);
  }

  showFilter(all) {
    const states = WORKER_ORDER.map((state) => [state, all.filter((row) => row.state === state).length]);
    choices(this.state, this.filter.state, [["", "any state"], ...states.map(([state, number]) => [state, `${state} (${number})`])]);
    const names = [...new Set([...live.batches.keys(), ...all.map((row) => row.batch), this.filter.batch])].filter(Boolean).sort();
    choices(this.batch, this.filter.batch, [["", "any batch"], ...names.map((name) => [name, name])]);
  }

  passes(row, pattern) {
    const { state, batch } = this.filter;
    return (!state || state.split(",").includes(row.state)) && (!batch || row.batch === batch) && (!pattern || pattern.test(row.name));
  }

  // --- what is shown

  /** Once for all that is told at the same moment. */
  showSoon() {
    if (this.isDue) return;
    this.isDue = true;
    queueMicrotask(() => {
      this.isDue = false;
      this.show();
    });
  }

  show(force = false) {
    if (!live.freshAt || !this.filter) return; // the stream brings it in a moment
    const all = [...live.workers.values()].map(withAsked).sort(byName);
    const pattern = this.filter.name ? patternOf(this.filter.name) : null;
    const passing = all.filter((row) => this.passes(row, pattern));
    const rows = passing.slice(0, this.most);
    const context = { batches: [...live.batches.keys()].sort(), server: live.server?.version };
    for (const row of rows) this.line(row.id).show(row, this.tasks.get(row.name) ?? [], context);
    this.forget(all);
    this.table.update(rows, { force });
    this.total.textContent = inWords(all);
    this.table.node.classList.toggle("costs", all.some((row) => row.machine));
    this.showFilter(all);
    this.showBulk();
    this.add.show(all.length === 0, context.batches);
    if (rows.length < passing.length) this.showMore();
  }

  /** Further rows, once those that are there are on the screen. */
  showMore() {
    if (this.isGrowing) return;
    this.isGrowing = true;
    requestAnimationFrame(() =>
      setTimeout(() => {
        this.isGrowing = false;
        this.most *= 2;
        this.show();
      }),
    );
  }

  line(id) {
    if (!this.lines.has(id)) {
      const line = new WorkerLine(id, this.histories, (rows) => this.remove(rows));
      this.lines.set(id, line);
      line.nodes.worker.dataset.worker = id;
      this.seen.observe(line.nodes.worker);
    }
    return this.lines.get(id);
  }

  forget(all) {
    const ids = new Set(all.map((row) => row.id));
    this.histories.keepOnly(ids);
    const shown = new Set(this.table.rows().map((row) => row.id)); // one that is gone stays while the pointer is there
    for (const id of this.lines.keys()) if (!ids.has(id) && !shown.has(id)) this.lines.delete(id);
  }

  cameIntoView(entries) {
    for (const { isIntersecting, target } of entries) {
      const id = Number(target.dataset.worker);
      if (isIntersecting) this.histories.want(id);
      this.lines.get(id)?.seen(isIntersecting);
    }
  }

  /** What runs where. */
  async loadTasks() {
    const found = new Map();
    for await (const { id, name, worker, suspended } of pages("/tasks", { state: "running" })) {
      if (!found.has(worker)) found.set(worker, []);
      found.get(worker).push({ id, name, suspended });
    }
    this.tasks = found;
    this.showSoon();
  }

  nothing() {
    if (live.workers.size) return "No worker passes this filter.";
    return "No worker yet: tasks wait until there is one. How to add one is below; Deploy… has a provider make machines.";
  }

  // --- many at once

  chosen() {
    return [...this.table.selected()].map((id) => live.workers.get(id)).filter(Boolean).map(withAsked);
  }

  showBulk() {
    const rows = this.chosen();
    show(this.bulk, rows.length > 0);
    const key = JSON.stringify(rows.map((row) => row.id));
    if (!rows.length || key === this.bulkShown) return;
    this.bulkShown = key;
    replace(this.bulk, el("b", { text: `${count(rows.length)} selected` }), this.bulkButtons());
  }

  bulkButtons() {
    const button = (text, work, danger) => el("button", { text, class: danger ? "danger" : null, on: { click: () => work(this.chosen()) } });
    return [
      button("Drain", (rows) => drain(rows, true)),
      button("Undrain", (rows) => drain(rows, false)),
      button("Concurrency…", (rows) => askNumber(rows, "concurrency")),
      button("Prefetch…", (rows) => askNumber(rows, "prefetch")),
      button("Batch…", askBatch),
      button("Upgrade", upgrade),
      button("Permanent", (rows) => keepMachines(rows, true)),
      button("Not permanent", (rows) => keepMachines(rows, false)),
      button("Delete…", (rows) => this.remove(rows), true),
      el("button", { class: "quiet", text: "Select nothing", on: { click: () => this.table.clear() } }),
    ];
  }

  /** What somebody deleted here goes at once, the pointer over it or not. */
  async remove(rows) {
    if (!(await removeWorkers(rows))) return;
    for (const row of rows) if (!row.machine) live.workers.delete(row.id); // the others go with their machines
    this.table.clear();
    this.show(true);
  }

  bindKeys() {
    const focused = () => this.lines.get(document.activeElement?.closest("tr")?.rowKey);
    const step = (by) => () => (focused() ? focused().steppers.concurrency.by(by) : false);
    const drainKey = () => {
      const rows = this.chosen().length ? this.chosen() : [focused()?.row].filter(Boolean);
      return rows.length ? void drain(rows, !rows.every((row) => row.draining)) : false;
    };
    this.ctx.onLeave(keys(this.ctx.main, {
      "+": ["One slot more", step(1)],
      "-": ["One slot less", step(-1)],
      d: ["Drain, or undrain", drainKey],
    }));
  }
}

/** A pattern with `*`, `?` and `[...]`, or a text that is part of the name. */
function patternOf(text) {
  const isGlob = /[*?[]/.test(text);
  const escaped = text.replace(/[.+^${}()|\\]/g, "\\$&").replace(/\[!/g, "[^").replaceAll("*", ".*").replaceAll("?", ".");
  try {
    return new RegExp(isGlob ? `^${escaped}$` : escaped, isGlob ? "" : "i");
  } catch {
    return /^$/; // a bracket that is not closed yet
  }
}

function choices(select, value, options) {
  const key = JSON.stringify(options);
  if (select.dataset.key !== key && document.activeElement !== select) {
    replace(select, options.map(([name, text]) => el("option", { value: name, text })));
    select.dataset.key = key;
  }
  if (document.activeElement !== select || select.value !== value) select.value = value;
}

/** "10 workers: 8 online, 2 offline · 34 tasks run · 2 of 36 slots free". */
function inWords(all) {
  if (!all.length) return "";
  const online = all.filter((row) => row.state === "online");
  const states = WORKER_ORDER.map((state) => [state, all.filter((row) => row.state === state).length]).filter(([, number]) => number);
  const running = all.reduce((sum, row) => sum + row.running, 0);
  const free = online.reduce((sum, row) => sum + Math.max(0, row.concurrency - row.running), 0);
  const total = online.reduce((sum, row) => sum + row.concurrency, 0);
  const words = states.map(([state, number]) => `${count(number)} ${state}`);
  return [
    `${many(all.length, "worker")}: ${words.join(", ")}`,
    many(running, "task runs", "tasks run"),
    `${count(free)} of ${count(total)} slots free`,
  ].join(" · ");
}
