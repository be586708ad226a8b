/** The event log: who changed what, when; the newest first. */

import { get } from "./api.js";
import { el, replace, show } from "./dom.js";
import { when } from "./format.js";
import { named } from "./hidden.js";
import { live } from "./live.js";
import { refresher } from "./refresh.js";
import { link, setQuery } from "./router.js";
import { table } from "./table.js";

const OBJECTS = ["task", "batch", "worker", "recruiter", "notifier", "job", "token", "server"];
const PAGE = 50;
const LEAST_MS = 5000;
const TYPED_MS = 350;
const NAMED = 12; // ids of an event that are shown

/**
 * The event log with its filters, which are in the address.
 * @param {object} ctx of the page, see router.js
 * @returns {HTMLElement}
 */
export function eventLog(ctx) {
  return new EventLog(ctx).node;
}

class EventLog {
  constructor(ctx) {
    this.object = el("select", { id: "event-object" }, el("option", { value: "" }, "everything"), OBJECTS.map((word) => el("option", { value: word }, `${word}s`.replace("batchs", "batches").replace("servers", "server"))));
    this.who = el("input", { type: "search", id: "event-who", placeholder: "a name", data: { filter: "" } });
    this.since = el("input", { type: "search", id: "event-since", placeholder: "2h, 3d, 2026-11-21" });
    this.wrong = el("p", { class: "field-error", role: "alert", hidden: true });
    this.shown = table({ caption: "Events, the newest first", columns, key: (row) => row.id, empty: "No event passes these filters." });
    this.readQuery(ctx.query);
    this.bind();
    this.node = this.build();
    this.rows = [];
    this.again = refresher(ctx, () => this.load(), (error) => this.tell(error), LEAST_MS);
    for (const kind of ["tasks", "workers", "batches"]) ctx.listen(kind, this.again);
    ctx.onQuery((query) => (this.readQuery(query), this.restart()));
  }

  build() {
    const field = (label, input) => el("div", { class: "field" }, el("label", { for: input.id }, label), input);
    const filters = el("search", { class: "toolbar" }, field("What", this.object), field("Who", this.who), field("Since", this.since));
    return el("section", { class: "section", "aria-labelledby": "events-title" }, el("h2", { id: "events-title" }, "Event log"), filters, this.wrong, this.shown.node);
  }

  bind() {
    let timer = 0;
    const changed = () => (setQuery(this.filter()), this.restart());
    this.object.addEventListener("change", changed);
    for (const input of [this.who, this.since]) input.addEventListener("input", () => (clearTimeout(timer), (timer = setTimeout(changed, TYPED_MS))));
  }

  readQuery(query) {
    for (const name of ["object", "who", "since"]) this[name].value = query.get(name) ?? "";
  }

  filter() {
    return { object: this.object.value, who: this.who.value.trim(), since: this.since.value.trim() };
  }

  async restart() {
    this.rows = [];
    this.next = null;
    await this.load(true).then(() => this.tell(null), (error) => this.tell(error));
  }

  /** The newest page; what was shown before stays below it. */
  async load(force = false) {
    const asked = JSON.stringify(this.filter());
    const page = await get("/events", { ...this.filter(), order: "-id", limit: PAGE });
    if (asked !== JSON.stringify(this.filter())) return;
    const oldest = page.items.at(-1)?.id ?? Infinity;
    const older = page.next === null ? [] : this.rows.filter((row) => row.id < oldest);
    const isGap = older.length === 0 && page.next !== null;
    this.rows = [...page.items, ...older];
    if (isGap || this.next === undefined) this.next = page.next;
    this.draw(force);
  }

  async more() {
    const page = await get("/events", { ...this.filter(), order: "-id", limit: PAGE, after: this.next });
    this.rows = [...this.rows, ...page.items];
    this.next = page.next;
    this.draw(true);
  }

  draw(force) {
    this.shown.update(this.rows, { force, more: this.next ? () => this.more().catch((error) => this.tell(error)) : null });
  }

  tell(error) {
    show(this.wrong, Boolean(error));
    this.wrong.textContent = error?.message ?? "";
  }
}

const columns = [
  { key: "at", label: "When", class: "nowrap", cell: (row) => when(row.at) },
  { key: "who", label: "Who" },
  { key: "action", label: "What", head: true, narrow: "title", cell: (row) => row.action.replace(".", " ").replace(/^(\w+) (\w+)$/, "$2 $1") },
  { key: "ids", label: "Which", cell: which },
  { key: "detail", label: "Detail", class: "event-detail", cell: detail },
];

function which(row) {
  const isGone = row.action.endsWith(".delete");
  const shown = row.ids.slice(0, NAMED).map((id) => [isGone ? null : addressOf(row.object, id), named(wordOf(row.object, id))]);
  const parts = shown.flatMap(([address, text], index) => [index ? ", " : null, address ? link(address, text) : text]);
  return el("span", null, parts, row.ids.length > NAMED ? ` and ${row.ids.length - NAMED} more` : null);
}

/** The name of a worker says more than its number. */
function wordOf(object, id) {
  return (object === "worker" && live.workers.get(id)?.name) || String(id);
}

function addressOf(object, id) {
  if (object === "batch") return `/batches/${encodeURIComponent(id)}`;
  if (object === "task") return String(id).includes("-") ? `/tasks?ids=${id}` : `/tasks/${id}`;
  return ["worker", "job"].includes(object) ? `/${object}s/${id}` : null;
}

function detail(row) {
  if (!row.detail) return null;
  const text = typeof row.detail === "object" ? Object.entries(row.detail).map(([name, value]) => `${name}: ${word(value)}`).join(", ") : String(row.detail);
  return el("span", { class: "clip", title: text }, named(text));
}

function word(value) {
  return value !== null && typeof value === "object" ? JSON.stringify(value) : String(value);
}
