/** Tasks: those that pass the filter, page by page, live; and what can be done to many of them. */

import { get } from "./api.js";
import { ACTIONS, act, move, tasks } from "./bulk.js";
import { failed, toast } from "./dialogs.js";
import { el, replace, show } from "./dom.js";
import { saveCsv, saveJson } from "./download.js";
import { editMany } from "./edit.js";
import { asRanges, ending } from "./failures.js";
import { ago, count, duration } from "./format.js";
import { named } from "./hidden.js";
import { keys } from "./keys.js";
import { refresher } from "./refresh.js";
import { go, link, query, setQuery } from "./router.js";
import { badge } from "./states.js";
import { table } from "./table.js";
import { WORDS, filterBar, filterOf, inWords } from "./taskfilter.js";

const PAGE = 100;
const OUTPUTS = 100; // tasks in a page of what they wrote, at most
const SOON = 200; // milliseconds in which the first page may come: what it does not bring is asked for by its ids
const MOST_SAVED = 4_000; // ids that fit in an address

/** @param {object} ctx */
export function page(ctx) {
  return new Tasks(ctx).start();
}

class Tasks {
  #first = []; // the first page
  #further = []; // rows of the pages after it, which were asked for
  #next = null; // the cursor
  #stale = new Set(); // ids of rows that may have changed
  #counts = {}; // by state, whatever states are chosen
  #all = false; // all that pass the filter are selected, shown or not

  constructor(ctx) {
    this.ctx = ctx;
    this.filter = filterOf(query());
    this.order = query().get("order") === "id" ? "id" : "-id";
    this.bar = filterBar((changes, how) => this.#change(changes, how));
    this.actions = this.#actionBar();
    this.table = table({
      columns: COLUMNS,
      key: (row) => row.id,
      onOpen: (row) => go(`/tasks/${row.id}`),
      selectable: true,
      isPure: true,
      empty: () => this.#empty(),
      caption: "Tasks that pass the filter",
      sorted: { key: "id", descending: this.order === "-id" },
      onSort: (_, descending) => this.#change({ order: descending ? null : "id" }, { replace: false }),
      onSelect: () => this.#selected(),
    });
  }

  async start() {
    const { ctx } = this;
    ctx.title("Tasks");
    ctx.main.append(el("div", { class: "page-head" }, el("h1", { text: "Tasks" }), this.#exports()), this.bar.node, this.actions.node, this.table.node);
    this.bar.set(this.filter);
    this.#selected();
    this.again = refresher(ctx, () => this.#load(), (error) => this.#told(error));
    ctx.listen("tasks", () => this.#changed());
    ctx.onQuery(() => this.#fromAddress());
    ctx.every(1, () => this.#tick());
    const scrolled = () => this.#soon();
    addEventListener("scroll", scrolled, { passive: true });
    ctx.onLeave(() => (removeEventListener("scroll", scrolled), clearTimeout(this.timer)));
    this.#bindKeys();
  }

  #bindKeys() {
    const chosen = (fn) => () => (this.#target() ? (fn(), true) : false);
    keys(this.ctx.main, {
      a: ["Select all rows shown", () => this.table.node.querySelector("th.pick input")?.click()],
      r: ["Relaunch what is selected", chosen(() => this.#do("relaunch"))],
      e: ["Edit what is selected", chosen(() => this.#edit())],
    });
  }

  // --- which tasks ------------------------------------------------------------------------------------------------

  #change(changes, how) {
    setQuery(changes, how);
    this.#fromAddress();
  }

  #fromAddress() {
    const filter = filterOf(query());
    const order = query().get("order") === "id" ? "id" : "-id";
    if (JSON.stringify(filter) === JSON.stringify(this.filter) && order === this.order) return;
    Object.assign(this, { filter, order });
    this.bar.set(filter);
    this.table.clear();
    [this.#further, this.#next] = [[], null];
    this.#loadNow();
  }

  /** Another filter does not wait for its turn; the newest one wins. */
  #loadNow() {
    this.table.node.setAttribute("aria-busy", "true");
    this.#load(true).then(() => this.#told(null), (error) => this.#told(error));
  }

  #newest = 0;
  #forced = false;

  async #load(force = false) {
    const mine = (this.#newest += 1);
    this.#forced ||= force; // also when a later load overtakes this one
    const { state, ...others } = this.filter;
    const rows = get("/tasks", { ...this.filter, limit: PAGE, order: this.order });
    if (!this.isStarted) rows.then(({ items }) => this.isStarted || this.table.update(items), () => {}); // what is wrong is told below
    const [found, counted] = await Promise.all([rows, get("/tasks/counts", others)]);
    if (mine !== this.#newest) return;
    this.isStarted = true;
    this.#first = found.items;
    const last = found.items.at(-1)?.id;
    this.#further = last === undefined ? [] : this.#further.filter(({ id }) => (this.order === "id" ? id > last : id < last));
    if (!this.#further.length) this.#next = found.next;
    for (const { id } of found.items) this.#stale.delete(id);
    this.#counts = counted.counts;
    this.#show(this.#forced);
    this.#forced = false;
  }

  #told(error) {
    this.table.node.removeAttribute("aria-busy");
    this.refused = error?.status === 400; // nothing is asked for until the filter is another one
    if (this.refused) this.bar.tell(error);
    else if (error?.status !== 401 && error?.status !== 0 && error) failed(error);
    if (!error) this.bar.tell(null);
  }

  async #more() {
    try {
      const found = await get("/tasks", { ...this.filter, limit: PAGE, order: this.order, after: this.#next });
      this.#further.push(...found.items);
      this.#next = found.next;
      this.#show();
    } catch (error) {
      failed(error);
    }
  }

  // --- live -------------------------------------------------------------------------------------------------------

  #changed() {
    for (const { id } of this.#rows()) this.#stale.add(id);
    if (!this.refused) this.again();
    this.#soon();
  }

  #soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#refresh().catch(() => {}), SOON); // what failed is asked for again at the next change
  }

  /** Asks for the rows in view that may have changed, by their ids: cheap however many tasks there are. */
  async #refresh() {
    const ids = this.#inView().filter((id) => this.#stale.has(id));
    if (!ids.length || document.hidden) return;
    for (const id of ids) this.#stale.delete(id);
    const { items } = await get("/tasks", { ids: ids.join(","), limit: ids.length });
    const found = new Map(items.map((row) => [row.id, row]));
    const gone = new Set(ids.filter((id) => !found.has(id)));
    const renewed = (rows) => rows.filter(({ id }) => !gone.has(id)).map((row) => found.get(row.id) ?? row).filter((row) => this.#mayPass(row));
    this.#first = renewed(this.#first);
    this.#further = renewed(this.#further);
    this.#show();
  }

  #mayPass({ state }) {
    return !this.filter.state || this.filter.state.split(",").includes(state);
  }

  #inView() {
    const ids = [];
    for (const tr of this.table.node.querySelectorAll("tbody tr")) {
      const { top, bottom } = tr.getBoundingClientRect();
      if (top > innerHeight) break;
      if (bottom >= 0) ids.push(tr.rowKey);
    }
    return ids;
  }

  #tick() {
    for (const node of this.table.node.querySelectorAll("[data-started]")) put(node, runTime(node.dataset.started, null));
    for (const node of this.table.node.querySelectorAll("td.since time")) put(node, ago(node.dateTime));
  }

  #rows() {
    return [...this.#first, ...this.#further];
  }

  #show(force = false) {
    const total = this.#total();
    this.table.node.classList.toggle("one-batch", Boolean(this.filter.batch));
    const passing = Object.keys(this.filter).length ? ` that pass the filter: ${inWords(this.filter)}` : "";
    this.table.update(this.#rows(), { more: this.#next === null ? null : () => this.#more(), note: total === 0 ? "" : `of ${tasks(total)}${passing}`, force });
    this.bar.counts(this.#counts);
    this.#selected();
  }

  /** How many pass the filter. */
  #total() {
    const states = this.filter.state?.split(",").map((state) => state.trim());
    return Object.entries(this.#counts).reduce((sum, [state, n]) => sum + (!states || states.includes(state) ? n : 0), 0);
  }

  #empty() {
    if (Object.keys(this.filter).length) {
      const clear = () => this.#change(Object.fromEntries(WORDS.map((word) => [word, null])), { replace: false });
      return [el("p", { text: `No task passes the filter: ${inWords(this.filter)}.` }), el("button", { text: "Clear the filter", on: { click: clear } })];
    }
    return [el("p", { text: "There are no tasks yet. Queue one:" }), el("pre", { class: "mono", text: "scitq launch echo hello" })];
  }

  // --- what is done to many -----------------------------------------------------------------------------------------

  #target() {
    if (this.#all) return { filter: this.filter };
    const ids = [...this.table.selected()];
    return ids.length ? { ids } : null;
  }

  #actionBar() {
    const button = (text, click, props = {}) => el("button", { ...props, text, on: { click } });
    const doing = (name) => button(ACTIONS[name].verb, () => this.#do(name), { class: ACTIONS[name].danger ? "danger" : null });
    const told = el("span", { class: "selected-count", role: "status" });
    const every = button("", () => this.#selectAll(), { class: "as-link" });
    const node = el("div", { class: "bulk", role: "group", "aria-label": "What is done to the selected tasks" },
      told, every, el("span", { class: "grow" }),
      doing("relaunch"), button("Edit…", () => this.#edit()), button("Move…", () => this.#finish(move(this.#target()))),
      doing("suspend"), doing("resume"), doing("term"), doing("kill"), doing("cancel"), doing("delete"),
      button("Select none", () => this.table.clear(), { class: "quiet" }));
    return { node, told, every };
  }

  #do(name) {
    return this.#finish(act(name, this.#target()));
  }

  #edit() {
    return this.#finish(editMany(this.#target()));
  }

  async #finish(work) {
    const ids = await work;
    if (!ids) return;
    this.table.clear();
    this.#loadNow();
  }

  #selectAll() {
    if (this.#all) return this.table.clear();
    this.#all = true;
    this.#selected(true);
  }

  #selected(keep = false) {
    const chosen = this.table?.selected().size ?? 0;
    if (!keep && (chosen === 0 || chosen !== this.chosen)) this.#all = false;
    this.chosen = chosen;
    const total = this.#total();
    show(this.actions.node, chosen > 0);
    this.actions.told.textContent = this.#all ? `All ${tasks(total)} that pass the filter are selected` : `${count(chosen)} selected`;
    this.actions.every.textContent = this.#all ? "only those shown" : `select all ${count(total)} that pass the filter`;
    show(this.actions.every, this.#all || total > chosen);
  }

  // --- as files -----------------------------------------------------------------------------------------------------

  #exports() {
    const button = (text, title, work) => {
      const node = el("button", { class: "small", text, title, on: { click: () => this.#save(node, text, work) } });
      return node;
    };
    return el("div", { class: "exports", role: "group", "aria-label": "Export what is selected, or all that pass the filter" },
      el("span", { class: "muted", text: "Export" }),
      button("JSON", "every property of these tasks", (which, told) => saveJson("/tasks", which, "tasks.json", told)),
      button("CSV", "the same as a table", (which, told) => saveCsv("/tasks", which, "tasks.csv", told)),
      button("Outputs", "the end of stdout and stderr of these tasks, as JSON", (which, told) => saveJson("/tasks/outputs", { ...which, limit: OUTPUTS }, "outputs.json", told)));
  }

  async #save(node, text, work) {
    node.disabled = true;
    try {
      const number = await work(this.#asQuery(), (n) => (node.textContent = `${text} ${count(n)}`));
      toast(`${tasks(number)} saved.`);
    } catch (error) {
      failed(error);
    }
    node.disabled = false;
    node.textContent = text;
  }

  #asQuery() {
    const target = this.#target();
    if (!target?.ids) return this.filter;
    if (target.ids.length > MOST_SAVED) throw new Error(`Select fewer than ${count(MOST_SAVED)}, or all that pass the filter.`);
    return { ids: asRanges(target.ids) };
  }
}

// --- a row ------------------------------------------------------------------------------------------------------------

const COLUMNS = [
  { key: "id", label: "Id", class: "num id", sort: true, cell: (row) => link(`/tasks/${row.id}`, row.id) },
  { key: "state", label: "State", class: "state", cell: (row) => badge(row.state, { suspended: row.suspended }) },
  { key: "name", label: "Name", class: "name", narrow: "title", head: true, cell: (row) => (row.name ? el("bdi", { text: named(row.name), title: named(row.name) }) : el("span", { class: "muted", text: "no name" })) },
  { key: "batch", label: "Batch", class: "batch", cell: (row) => el("bdi", null, link(`/batches/${encodeURIComponent(row.batch)}`, named(row.batch))) },
  { key: "command", label: "Command", class: "command", narrow: "hide", cell: (row) => el("code", { class: "clip", title: short(row.command, 2000), dir: "ltr", text: short(row.command, 300) }) },
  { key: "worker", label: "Worker", class: "worker", cell: (row) => (row.worker ? el("bdi", { text: row.worker }) : null) },
  { key: "end", label: "Ended with", class: "ending", cell: howItEnded },
  { key: "attempts", label: "Tries", class: "num", narrow: "hide", cell: (row) => (row.attempts > 1 ? count(row.attempts) : null) },
  { key: "ran", label: "Ran for", class: "num", cell: ranFor },
  { key: "since", label: "Changed", class: "num since", cell: (row) => el("time", { datetime: row.state_at, title: row.state_at, text: ago(row.state_at) }) },
];

function howItEnded(row) {
  if (row.state !== "failed" && row.state !== "canceled") return null;
  if (row.exit_code === null && row.signal === null) return row.reason ? el("bdi", { class: "clip", title: row.reason, text: short(row.reason, 100) }) : null;
  return el("span", { title: row.reason ?? "", text: ending(row) });
}

function ranFor(row) {
  if (!row.started_at) return null;
  if (row.state === "running") return el("span", { data: { started: row.started_at }, text: runTime(row.started_at, null) });
  return row.ended_at ? runTime(row.started_at, row.ended_at) : null;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function runTime(from, to) {
  return duration(((to ? Date.parse(to) : Date.now()) - Date.parse(from)) / 1000);
}

/** One line of a command, no longer than can be seen. */
function short(text, most) {
  const line = text.length > most ? `${text.slice(0, most)}…` : text;
  return named(line.replace(/\s*\n\s*/g, " ⏎ ").replaceAll("\t", " "));
}
