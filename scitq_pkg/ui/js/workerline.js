/** A worker's line in the table: nodes that stay, changed where the row changed. */

import { sparkline } from "./chart.js";
import { el, replace } from "./dom.js";
import { placeOf, spent } from "./flavors.js";
import { ago } from "./format.js";
import { named } from "./hidden.js";
import { MEASURES, pointOf, thin } from "./history.js";
import { jobInShort } from "./jobparts.js";
import { live } from "./live.js";
import { link } from "./router.js";
import { batchSelect, slots, slotsInWords, stepper, upgradeNote, versionNode } from "./workerparts.js";
import { badge, glyph } from "./states.js";
import { changeOne, drain, moveTo, upgrade } from "./workeredit.js";

const POINTS = 60; // of a line
const NAMED = 2; // tasks
const FRESH_MS = 30_000; // a worker speaks every 20 s at least

export class WorkerLine {
  #shown = {};

  /**
   * @param {number} id
   * @param {import("./history.js").Histories} histories
   * @param {(rows: object[]) => void} remove asks, and deletes workers
   */
  constructor(id, histories, remove) {
    Object.assign(this, { id, histories, remove, row: null, isSeen: false });
    const node = (name) => [name, el("div", { class: `cell-${name}` })];
    this.nodes = Object.fromEntries(["worker", "state", "slots", "concurrency", "prefetch", "batch", "cost", "runs", "actions", ...MEASURES.map(({ key }) => key)].map(node));
  }

  /** Shows a row; only what is another than before is made anew. */
  show(row, tasks, { batches, server }) {
    const isFirst = this.row === null;
    this.row = row;
    if (isFirst) this.#makeControls();
    this.#once("worker", [row.name, row.hostname, row.version, server, row.provider, row.region, row.flavor, row.upgrading, row.upgrade_problem], () => this.#who(server));
    this.#once("slots", [row.running, row.concurrency, row.held, tasks], () => [slots(row, tasks), el("small", { class: "muted nowrap", title: slotsInWords(row), text: inShort(row) })]);
    this.#once("runs", [tasks, row.name], () => this.#runs(tasks));
    this.#once("actions", [row.draining, row.name, row.outdated, row.upgrading], () => this.#actions());
    this.#once("cost", [row.cost, row.hours, row.price], () => (row.machine ? spent(row) : el("span", { class: "muted", text: "–" })));
    this.steppers.concurrency.set(row.concurrency);
    this.steppers.prefetch.set(row.prefetch);
    this.batch.set(row.batch, batches);
    this.showContact();
    if (this.histories.add(row) || isFirst) this.showMeasures();
  }

  /** Whether it is within the window: what is not costs little. */
  seen(yes) {
    this.isSeen = yes;
    if (!yes || !this.row) return;
    this.batch.offer();
    this.showMeasures();
  }

  /** The time since the last contact goes on without any news. */
  showContact() {
    const { state, problem, contact_at: at, permanent } = this.row;
    const job = this.row.job ? live.jobs.get(this.row.job) : null;
    const words = state === "online" && Date.now() - Date.parse(at) < FRESH_MS ? "in contact" : ago(at);
    this.#once("state", [state, problem, at ? words : "", permanent, job], () => [
      badge(state),
      problem ? el("small", { class: "problem", text: problem }) : null,
      job ? el("small", { class: "job-short" }, jobInShort(job)) : null,
      at && el("small", { class: "muted", title: `last contact: ${at ?? "never"}` }, words, permanent ? null : el("span", { title: "its machine is not kept when idle" }, ", not permanent")),
    ]);
  }

  /** The lines of what is measured. */
  showMeasures() {
    if (!this.row || !this.isSeen) return;
    const points = this.histories.of(this.id);
    const newest = points.at(-1) ?? pointOf(this.row);
    for (const measure of MEASURES) replace(this.nodes[measure.key], measured(measure, points, newest, this.row));
  }

  #once(name, depends, make) {
    const key = JSON.stringify(depends);
    if (this.#shown[name] === key) return;
    this.#shown[name] = key;
    replace(this.nodes[name], make());
  }

  #makeControls() {
    const ask = (name) => (value) => changeOne(this.id, { [name]: value });
    const { name } = this.row;
    this.steppers = { concurrency: stepper(`concurrency of ${name}`, ask("concurrency")), prefetch: stepper(`prefetch of ${name}`, ask("prefetch")) };
    this.batch = batchSelect(`batch of ${name}`, (batch) => moveTo(this.row, batch));
    replace(this.nodes.concurrency, this.steppers.concurrency.node);
    replace(this.nodes.prefetch, this.steppers.prefetch.node);
    replace(this.nodes.batch, this.batch.node);
  }

  #who(server) {
    const { name, hostname, version, machine } = this.row;
    const isElsewhere = hostname && hostname !== name && !hostname.startsWith(`${name}.`);
    return [
      el("span", { title: hostname || null }, link(`/workers/${this.id}`, name)),
      machine ? el("small", { class: "muted clip", text: placeOf(this.row) }) : null,
      version || !machine ? el("small", { class: "muted" }, isElsewhere ? `${hostname} · ` : "", versionNode(version, server)) : null,
      upgradeNote(this.row),
    ];
  }

  #runs(tasks) {
    if (!tasks.length) return el("span", { class: "muted", text: "–" });
    const rest = tasks.length - NAMED;
    return [
      tasks.slice(0, NAMED).map(({ id, name, suspended }) => el("div", { class: "clip" }, link(`/tasks/${id}`, `${id} ${named(name ?? "")}`.trim()), suspended ? el("span", { class: "suspended", title: "suspended" }, " ", glyph("suspended"), el("span", { class: "unseen", text: " (suspended)" })) : null)),
      rest > 0 ? link(`/tasks?${new URLSearchParams({ worker: this.row.name, state: "running" })}`, `and ${rest} more`) : null,
    ];
  }

  #actions() {
    const { name, draining, outdated, upgrading, version } = this.row;
    const button = (text, label, work, kind) => el("button", { class: `small ${kind ?? ""}`.trim(), "aria-label": `${label} ${name}`, title: `${label} ${name}`, text, on: { click: work } });
    return el("span", { class: "row" },
      draining
        ? button("Undrain", "Let tasks come again to", () => drain([this.row], false))
        : button("Drain", "Let end what is there, and nothing more come to", () => drain([this.row], true)),
      outdated && version && !upgrading ? button("Upgrade", "Upgrade, with what runs,", () => upgrade([this.row])) : null,
      button("✕", "Delete", () => this.remove([this.row]), "danger"));
  }
}

/** "3 of 4, 2 held". */
function inShort({ running, concurrency, held }) {
  return `${running} of ${concurrency}` + (held > running ? `, ${held - running} held` : "");
}

function measured(measure, points, newest, row) {
  const values = thin(points.map(measure.value), POINTS);
  const known = values.filter((value) => value !== null);
  const title = `${measure.label}: ${measure.detail(newest, row)}`;
  return el("span", { class: `measured${measure.worry(newest, row) ? " worry" : ""}`, title },
    known.length > 1 ? sparkline(values, { max: measure.max(row, known), label: `${title}; the last hour` }) : null, el("small", { text: measure.text(newest) }));
}
