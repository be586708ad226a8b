/** The page of a worker: everything about one. */

import { get } from "./api.js";
import { meter, sparkline } from "./chart.js";
import { el, replace, show } from "./dom.js";
import { hourly, placeOf, spent } from "./flavors.js";
import { failed } from "./dialogs.js";
import { ago, bytes, count, duration, when } from "./format.js";
import { ending } from "./failures.js";
import { named } from "./hidden.js";
import { Histories, MEASURES, thin } from "./history.js";
import { jobInShort } from "./jobparts.js";
import { jobLog } from "./joblog.js";
import { keys } from "./keys.js";
import { live } from "./live.js";
import { refresher } from "./refresh.js";
import { go, link } from "./router.js";
import { batchSelect, slots, slotsInWords, stepper, upgradeNote, versionNode } from "./workerparts.js";
import { badge } from "./states.js";
import { table } from "./table.js";
import { askName, changeOne, drain, moveTo, onAsked, removeWorkers, upgrade, withAsked } from "./workeredit.js";

const POINTS = 180; // of a line
const HELD = ["running", "uploading", "accepted", "assigned"];
const PAGE = 100; // attempts
const LEAST_MS = 2000; // between two looks at its attempts

/** @param {object} ctx see router.js */
export async function page(ctx) {
  const id = Number(ctx.params.id);
  const full = await get(`/workers/${id}`);
  new View(ctx, id, full).start();
}

class View {
  constructor(ctx, id, full) {
    Object.assign(this, { ctx, id, full, executions: [], wanted: PAGE, parts: {} });
    this.histories = new Histories(() => this.showCharts());
  }

  /** What is known of it now. */
  get row() {
    const { stats, ...full } = this.full;
    return withAsked({ ...full, ...live.workers.get(this.id) });
  }

  start() {
    this.build();
    this.histories.want(this.id);
    this.show();
    const none = () => {};
    const look = refresher(this.ctx, () => this.loadFull(), none, 5000);
    const attempts = refresher(this.ctx, () => this.loadExecutions(), (error) => error?.status && failed(error), LEAST_MS);
    this.more = () => ((this.wanted += PAGE), attempts());
    this.ctx.listen("workers", () => (this.show(), look()));
    this.ctx.listen("tasks", attempts);
    this.ctx.listen("jobs", () => this.show());
    this.ctx.onLeave(onAsked(() => this.show()));
    this.ctx.every(5, () => this.show());
    this.bindKeys();
  }

  bindKeys() {
    this.ctx.onLeave(keys(this.ctx.main, {
      "+": ["One slot more", () => this.controls.concurrency.by(1)],
      "-": ["One slot less", () => this.controls.concurrency.by(-1)],
      d: ["Drain it, or let it work again", () => drain([this.row], !this.row.draining)],
    }));
  }

  async loadFull() {
    this.full = await get(`/workers/${this.id}`);
    this.showMachine();
  }

  async loadExecutions() {
    const found = [];
    let after = null;
    do {
      const page = await get("/executions", { worker: this.id, order: "-id", limit: Math.min(5000, this.wanted - found.length), after });
      found.push(...page.items.filter((one) => one.worker_id === this.id));
      after = page.next;
    } while (after !== null && found.length < this.wanted);
    this.executions = found;
    this.attempts.update(found, {});
    show(this.parts.more, after !== null);
    this.showRunning();
  }

  build() {
    const part = (name, tag = "div", props = {}) => (this.parts[name] = el(tag, props));
    const section = (name, title, ...more) => (this.parts[`${name}-section`] = el("section", { class: `panel part-${name}`, "aria-labelledby": `h-${name}` }, el("h2", { id: `h-${name}`, text: title }), part(name, "div", { class: "part" }), more));
    this.controls = this.makeControls();
    this.attempts = attemptTable();
    replace(this.ctx.main,
      el("header", { class: "page-head" }, part("name", "h1", { class: "name" }), part("state", "span"), el("div", { class: "actions" }, this.buttons())),
      part("problem", "p", { class: "notice", data: { kind: "failed" }, role: "status" }),
      el("section", { class: "controls", "aria-label": "Settings" }, this.controls.nodes),
      part("facts", "dl", { class: "facts-list" }),
      section("job", "Its machine", part("log")),
      section("running", "Runs now"),
      section("charts", "The last hour"),
      el("div", { class: "side-by-side" }, section("disks", "Disks"), section("gpus", "GPUs")),
      section("attempts", "Attempts, the newest first", part("more", "p")));
    replace(this.parts.attempts, this.attempts.node);
    replace(this.parts.more, el("button", { text: "Show older ones", on: { click: () => this.more() } }));
    show(this.parts.more, false);
  }

  buttons() {
    const button = (props, work) => el("button", { ...props, on: { click: work } });
    this.drainButton = button({}, () => drain([this.row], !this.row.draining));
    this.upgradeButton = button({ text: "Upgrade", title: "It goes on as the server's version, with what runs" }, () => upgrade([this.row]));
    return [
      this.upgradeButton,
      this.drainButton,
      button({ text: "Rename…" }, () => askName(this.row)),
      button({ text: "Delete…", class: "danger" }, async () => (await removeWorkers([this.row])) && !this.row.machine && go("/workers")),
    ];
  }

  makeControls() {
    const ask = (name) => (value) => changeOne(this.id, { [name]: value });
    const concurrency = stepper("concurrency", ask("concurrency"));
    const prefetch = stepper("prefetch", ask("prefetch"));
    const batch = batchSelect("batch", (name) => moveTo(this.row, name));
    batch.offer();
    const permanent = el("input", { type: "checkbox", on: { change: () => changeOne(this.id, { permanent: permanent.checked }) } });
    const labelled = (text, node, hint) => el("span", { class: "control", title: hint }, el("span", { class: "control-label", text }), node);
    const nodes = [
      labelled("Concurrency", concurrency.node, "Tasks that run at once"),
      labelled("Prefetch", prefetch.node, "Tasks held ready, their inputs fetched, beyond those that run"),
      labelled("Batch", batch.node, "What it holds it still ends"),
      el("label", { class: "control check" }, permanent, " permanent: its machine is kept when idle"),
    ];
    return { concurrency, prefetch, batch, permanent, nodes };
  }

  show() {
    this.wasTold ||= live.workers.has(this.id); // news are up to a second late: of a new one there are none yet
    if (this.wasTold && !live.workers.has(this.id)) return this.gone();
    const { row, parts, controls } = this;
    this.ctx.title(row.name);
    parts.name.textContent = row.name;
    this.once("state", row.state, () => badge(row.state));
    parts.problem.textContent = row.problem ?? "";
    show(parts.problem, Boolean(row.problem));
    this.drainButton.textContent = row.draining ? "Undrain" : "Drain";
    this.drainButton.title = row.draining ? "Let it have tasks again" : "What is there ends, nothing more comes";
    show(this.upgradeButton, Boolean(row.outdated && row.version && !row.upgrading));
    this.showJob(row.job);
    controls.concurrency.set(row.concurrency);
    controls.prefetch.set(row.prefetch);
    controls.batch.set(row.batch, [...live.batches.keys()].sort());
    controls.permanent.checked = row.permanent;
    this.showFacts(row);
    if (this.histories.add(row) || !parts.charts.childElementCount) this.showCharts();
    this.showRunning();
    this.showMachine();
  }

  gone() {
    replace(this.ctx.main, el("h1", { text: this.full.name }),
      el("div", { class: "empty" }, el("p", { text: "This worker does not exist any more: somebody deleted it." }), link("/workers", "To all workers")));
  }

  /** What comes or goes has a job, with a log. */
  showJob(id) {
    const job = id && live.jobs.get(id);
    show(this.parts["job-section"], Boolean(id));
    this.once("job", JSON.stringify(job ?? null), () => job && jobInShort(job));
    this.once("log", id, () => id && jobLog(this.ctx, id));
  }

  /** Makes a part anew when what it depends on has changed. */
  once(name, key, make) {
    this.shown ??= {};
    if (this.shown[name] === key) return;
    this.shown[name] = key;
    replace(this.parts[name], make());
  }

  showFacts(row) {
    const server = live.server?.version;
    const facts = [
      ["Machine", row.hostname || "–"],
      ...(row.machine ? [["Deployed as", placeOf(row)], ["An hour", hourly(row)], ["So far", spent(row)]] : []),
      ["Processors", count(row.cpus)],
      ["Memory", bytes(row.memory_bytes)],
      ["Version", [versionNode(row.version, server), " ", upgradeNote(row)]],
      ["Last contact", el("span", { title: row.contact_at }, ago(row.contact_at))],
      ["Registered", when(row.created_at)],
    ];
    this.once("facts", JSON.stringify([row.hostname, row.cpus, row.memory_bytes, row.version, server, ago(row.contact_at), row.created_at, row.cost, row.hours, row.upgrading, row.upgrade_problem]),
      () => facts.map(([name, value]) => el("div", null, el("dt", { text: name }), el("dd", null, value))));
  }

  showRunning() {
    const { row } = this;
    const now = this.executions.filter((one) => HELD.includes(one.state));
    now.sort((one, other) => HELD.indexOf(one.state) - HELD.indexOf(other.state) || one.id - other.id);
    const key = JSON.stringify([now.map((one) => [one.id, one.state, one.suspended]), row.concurrency, row.running, row.held, Math.floor(Date.now() / 5000)]);
    const items = now.filter((one) => one.state === "running").map((one) => ({ id: one.task_id, name: one.name }));
    this.once("running", key, () => [
      el("p", { class: "slot-line" }, slots(row, items), el("span", { class: "muted", text: slotsInWords(row) })),
      now.length ? el("ul", { class: "running-list" }, now.map((one) => runningLine(one, row.batch))) : null,
    ]);
  }

  showCharts() {
    const points = this.histories.of(this.id);
    if (!points.length) return replace(this.parts.charts, el("p", { class: "muted", text: "Nothing was measured yet." }));
    return replace(this.parts.charts, el("div", { class: "charts" }, MEASURES.map((measure) => chartOf(measure, points, this.row))));
  }

  showMachine() {
    const disks = Object.entries(this.full.stats?.disks ?? {});
    const gpus = this.full.stats?.gpus ?? [];
    this.once("disks", JSON.stringify(disks), () => (disks.length ? diskTable(disks) : el("p", { class: "muted", text: "None is known." })));
    this.once("gpus", JSON.stringify(gpus), () => gpuTable(gpus));
    show(this.parts["gpus-section"], gpus.length > 0);
  }
}

function runningLine(one, batch) {
  const words = [one.batch === batch ? "" : `of batch ${named(one.batch)}`, one.started_at ? `for ${ranFor(one)}` : ""].filter(Boolean);
  return el("li", null, badge(one.state, { suspended: one.suspended }), link(`/tasks/${one.task_id}?attempt=${one.id}`, `${one.task_id} ${named(one.name ?? "")}`.trim()),
    el("span", { class: "muted", text: words.join(", ") }));
}

function chartOf(measure, points, row) {
  const values = points.map(measure.value);
  const known = values.filter((value) => value !== null);
  const newest = points.at(-1);
  const label = `${measure.label}: ${measure.detail(newest, row)}`;
  const line = known.length ? sparkline(thin(values, POINTS), { max: measure.max(row, known), label }) : null;
  return el("figure", { class: `measure${measure.worry(newest, row) ? " worry" : ""}` },
    el("figcaption", null, el("span", { text: measure.label }), el("b", { text: measure.text(newest) })), line, el("small", { class: "muted", text: measure.detail(newest, row) }));
}

function diskTable(disks) {
  const line = ([mount, { total, free }]) => el("tr", null, el("th", { scope: "row", text: mount }),
    el("td", null, meter((total - free) / total, free / total < 0.05)), el("td", { class: "num", text: `${bytes(free)} free of ${bytes(total)}` }));
  return el("table", { class: "plain" }, heads("mounted at", "used", "free"), el("tbody", null, disks.map(line)));
}

function gpuTable(gpus) {
  const line = (gpu) => el("tr", null, el("th", { scope: "row", text: `${gpu.index} ${gpu.name}` }), el("td", { class: "num", text: `${gpu.percent ?? "–"} %` }),
    el("td", { class: "num", text: `${bytes(gpu.memory_used)} of ${bytes(gpu.memory_total)}` }));
  return el("table", { class: "plain" }, heads("GPU", "busy", "memory"), el("tbody", null, gpus.map(line)));
}

const heads = (...names) => el("thead", null, el("tr", null, names.map((name) => el("th", { scope: "col", text: name }))));

function attemptTable() {
  return table({
    caption: "Attempts on this worker, the newest first",
    columns: [
      { key: "task_id", label: "Task", class: "num", narrow: "title", cell: (one) => link(`/tasks/${one.task_id}?attempt=${one.id}`, String(one.task_id)) },
      { key: "name", label: "Name", class: "name", cell: (one) => named(one.name ?? "") },
      { key: "batch", label: "Batch", narrow: "hide", cell: (one) => link(`/batches/${encodeURIComponent(one.batch)}`, named(one.batch)) },
      { key: "state", label: "State", cell: (one) => badge(one.state, { suspended: one.suspended }) },
      { key: "attempt", label: "Attempt", class: "num", narrow: "hide", cell: (one) => String(one.attempt) },
      { key: "started_at", label: "Started", cell: (one) => when(one.started_at) },
      { key: "duration", label: "Ran for", class: "num", cell: ranFor },
      { key: "ended", label: "Ended with", cell: (one) => howEnded(one) },
      { key: "memory", label: "Peak memory", class: "num", cell: (one) => bytes(one.peak_memory_bytes) },
    ],
    key: (one) => one.id,
    onOpen: (one) => go(`/tasks/${one.task_id}?attempt=${one.id}`),
    empty: "It has not run anything yet.",
  });
}

function howEnded(one) {
  if (one.exit_code === 0 && one.state === "succeeded") return one.reused_id ? `outputs of attempt ${one.reused_id} taken` : "";
  return one.exit_code === null && !one.signal ? (one.reason ?? "") : ending(one);
}

function ranFor(one) {
  if (!one.started_at) return "";
  const end = one.ended_at ?? one.finished_at;
  return duration(((end ? Date.parse(end) : Date.now()) - Date.parse(one.started_at)) / 1000);
}
