/** What the server does with providers: jobs, the machines that there are, and how the providers are. */

import { del, get, post } from "./api.js";
import { confirm, failed, toast } from "./dialogs.js";
import { el, replace, show } from "./dom.js";
import { hourly, placeOf, spent } from "./flavors.js";
import { count, when } from "./format.js";
import { named } from "./hidden.js";
import { jobActions, progressOf, titleOf } from "./jobparts.js";
import { refresher } from "./refresh.js";
import { go, link, query, setQuery } from "./router.js";
import { badge, glyph } from "./states.js";
import { table } from "./table.js";

const PAGE = 100;
const LEAST_MS = 1500; // between two looks
const STATES = ["pending", "running", "succeeded", "failed", "canceled"];
const KINDS = ["deploy", "destroy", "flavors"];

/** @param {object} ctx see router.js */
export async function page(ctx) {
  ctx.title("Jobs");
  new View(ctx).start();
}

class View {
  constructor(ctx) {
    Object.assign(this, { ctx, wanted: PAGE });
    const act = (row) => el("span", { class: "row" }, jobActions(row, () => this.loadJobs(true).catch(failed)));
    this.jobs = table({ caption: "Jobs, the newest first", columns: [...JOBS, { key: "actions", label: "Actions", class: "row-actions", cell: act }], key: (row) => row.id, onOpen: (row) => go(`/jobs/${row.id}`), empty: () => this.nothing() });
    const destroy = (row) => destroyButton(row, () => this.loadMachines(true).catch(failed));
    this.machines = table({ caption: "Machines", columns: [...MACHINES, { key: "actions", label: "Actions", class: "row-actions", cell: destroy }], key: (row) => row.id, empty: "No provider runs a machine for this server." });
  }

  start() {
    const choice = (name, words) => el("select", { "aria-label": name, on: { change: () => this.changed() } }, el("option", { value: "", text: `any ${name}` }), words.map((word) => el("option", { value: word, text: word })));
    this.selects = { state: choice("state", STATES), kind: choice("kind", KINDS) };
    this.wrong = el("p", { class: "field-error", role: "alert", hidden: true });
    this.providers = table({ caption: "Providers", columns: PROVIDERS, key: (row) => row.name, empty: "None is configured." });
    replace(this.ctx.main,
      el("header", { class: "page-head" }, el("h1", { text: "Jobs" }), el("search", { class: "filters" }, this.selects.state, this.selects.kind)),
      this.wrong, this.jobs.node,
      el("section", { class: "section", "aria-labelledby": "machines-title" }, el("h2", { id: "machines-title", text: "Machines" }), this.machines.node),
      el("section", { class: "section", "aria-labelledby": "providers-title" }, el("h2", { id: "providers-title", text: "Providers" }), this.providers.node));
    this.readQuery(this.ctx.query);
    this.ctx.onQuery((words) => (this.readQuery(words), this.loadJobs(true).catch(failed)));
    const told = (error) => {
      show(this.wrong, Boolean(error?.status));
      this.wrong.textContent = error?.message ?? "";
    };
    const looks = [() => this.loadJobs(), () => this.loadMachines(), () => this.loadProviders()].map((load) => refresher(this.ctx, load, told, LEAST_MS));
    for (const kind of ["jobs", "workers", "tasks"]) this.ctx.listen(kind, () => looks.forEach((look) => look()));
  }

  readQuery(words) {
    for (const [name, select] of Object.entries(this.selects)) select.value = words.get(name) ?? "";
  }

  changed() {
    setQuery(Object.fromEntries(Object.entries(this.selects).map(([name, select]) => [name, select.value])));
    this.wanted = PAGE;
    this.loadJobs(true).catch(failed);
  }

  nothing() {
    if (query().size) return "No job passes this filter.";
    return [el("p", null, "There was none yet. Workers are deployed on the page of ", link("/workers", "workers"), ", or with"), el("pre", null, el("code", null, "scitq manage worker deploy"))];
  }

  async loadJobs(force = false) {
    const chosen = Object.fromEntries(query());
    const { items, next } = await get("/jobs", { ...chosen, order: "-id", limit: this.wanted });
    const more = next === null ? null : () => ((this.wanted += PAGE), this.loadJobs(true));
    this.jobs.update(items, { force, more });
  }

  async loadMachines(force = false) {
    const { items } = await get("/machines", { limit: 1000 });
    this.machines.update(items.sort((one, other) => other.unknown - one.unknown), { force });
  }

  async loadProviders() {
    this.providers.update((await get("/providers")).items);
  }
}

const JOBS = [
  { key: "id", label: "Job", class: "num", cell: (row) => link(`/jobs/${row.id}`, row.id) },
  { key: "what", label: "What", head: true, narrow: "title", cell: (row) => [el("div", { text: titleOf(row) }), row.machine ? el("small", { class: "muted", text: placeOf(row) }) : null] },
  { key: "state", label: "State", cell: (row) => badge(row.state) },
  { key: "progress", label: "How far", class: "job-progress", cell: progressOf },
  { key: "attempt", label: "Attempt", class: "num", narrow: "hide", cell: (row) => (row.attempt > 1 ? count(row.attempt) : null) },
  { key: "asked_by", label: "Asked by", narrow: "hide", cell: (row) => named(row.asked_by) },
  { key: "created_at", label: "Asked", cell: (row) => when(row.created_at) },
];

const MACHINES = [
  { key: "name", label: "Machine", head: true, narrow: "title", cell: (row) => [el("div", { text: named(row.name) }), el("small", { class: "muted", text: placeOf(row) })] },
  { key: "state", label: "State", cell: (row) => (row.unknown ? el("span", { class: "badge", data: { state: "unfit" }, title: "It carries the tag of this server, and nobody here asked for it" }, glyph("unfit"), "unknown") : machineState(row)) },
  { key: "worker", label: "Worker", cell: (row) => (row.worker ? link(`/workers/${row.worker_id}`, named(row.worker)) : null) },
  { key: "address", label: "Address", narrow: "hide", cell: (row) => named(row.address ?? "") },
  { key: "price", label: "An hour", class: "num", cell: hourly },
  { key: "cost", label: "So far", class: "num", cell: spent },
  { key: "seen_at", label: "Seen", narrow: "hide", cell: (row) => when(row.seen_at) },
];

function machineState({ state, message }) {
  return el("span", null, state, message ? el("small", { class: "problem", text: ` ${named(message)}` }) : null);
}

function destroyButton(row, done) {
  if (row.state === "deleting") return row.job ? link(`/jobs/${row.job}`, "being destroyed") : null;
  const click = async () => {
    const what = row.worker ? `Its worker ${named(row.worker)} gets no more work; what runs there is killed and goes back to the queue. ` : "";
    const yes = await confirm({ title: `Destroy ${named(row.name)}?`, body: `${what}The machine and all that lies on it are gone for good.`, verb: "Destroy", danger: true });
    if (yes) await del(`/machines/${row.id}`).then(done, failed);
  };
  return el("button", { class: "small danger", "aria-label": `Destroy ${row.name}`, on: { click } }, "Destroy…");
}

const PROVIDERS = [
  { key: "name", label: "Provider", head: true, narrow: "title", cell: (row) => named(row.name) },
  { key: "kind", label: "Kind", cell: (row) => named(row.kind) },
  { key: "regions", label: "Regions", cell: (row) => named(row.regions.join(", ")) },
  { key: "flavors", label: "Flavors", class: "num", cell: (row) => count(row.flavors) },
  { key: "trouble", label: "Trouble", cell: (row) => row.trouble && el("span", { class: "problem", text: named(row.trouble) }) },
  { key: "actions", label: "Actions", class: "row-actions", cell: askButton },
];

function askButton({ name }) {
  const ask = () => post("/flavors/update", { provider: name }).then(() => toast(`${named(name)} is asked for its flavors.`), failed);
  return el("button", { class: "small", "aria-label": `Ask ${name} for its flavors`, on: { click: ask } }, "Ask for flavors");
}
