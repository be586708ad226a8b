/** What a person should look at now: each line leads to it. */

import { get } from "./api.js";
import { el, replace, show } from "./dom.js";
import { addressOf, ending, keyOf, lineOf } from "./failures.js";
import { money } from "./flavors.js";
import { bytes, count, when } from "./format.js";
import { named } from "./hidden.js";
import { titleOf } from "./jobparts.js";
import { refresher } from "./refresh.js";
import { go, link } from "./router.js";
import { glyph } from "./states.js";
import { table } from "./table.js";

const LEAST_MS = 3000; // between two looks
const FIRST = { machine: 4, cloud: 4, batch: 3, failure: 5 }; // lines that are shown before one asks for all

/**
 * The block "needs attention".
 * @param {object} ctx of the page, see router.js
 * @returns {HTMLElement}
 */
export function attention(ctx) {
  const quiet = el("p", { class: "all-well" }, glyph("succeeded"), " Nothing needs attention.");
  const shown = table({ caption: "Needs attention", columns, key: (line) => line.key, onOpen: (line) => go(line.url), empty: quiet });
  shown.node.classList.add("attention");
  const wrong = el("p", { class: "notice", data: { kind: "failed" }, hidden: true });
  let all = false;
  let lines = [];
  const draw = (force) => {
    const first = Object.entries(FIRST).flatMap(([kind, number]) => lines.filter((line) => line.kind === kind).slice(0, number));
    const more = !all && lines.length > first.length ? async () => ((all = true), draw(true)) : null;
    shown.update(more ? first : lines, { more, force });
  };
  const load = async () => {
    lines = linesOf(await get("/attention"));
    draw(false);
  };
  const again = refresher(ctx, load, (error) => {
    show(wrong, Boolean(error));
    wrong.textContent = error ? error.message : "";
  }, LEAST_MS);
  for (const kind of ["tasks", "workers", "batches", "jobs"]) ctx.listen(kind, again);
  const node = el("section", { class: "section", "aria-labelledby": "attention-title" });
  return replace(node, el("h2", { id: "attention-title" }, "Needs attention"), wrong, shown.node);
}

const columns = [
  { key: "title", label: "What", head: true, narrow: "title", cell: (line) => el("span", { class: "badge", data: { state: line.state } }, glyph(line.state), link(line.url, line.title)) },
  { key: "where", label: "Where", cell: (line) => named(line.where) },
  { key: "detail", label: "Why", class: "attention-why", cell: (line) => el(line.isOutput ? "code" : "span", { class: "clip", title: line.detail }, named(line.detail)) },
  { key: "at", label: "Last", class: "num", cell: (line) => line.at && when(line.at) },
];

/** Machines first: they are few, and hold up the rest. */
function linesOf({ failures, batches, workers, disks, versions, jobs, machines, budgets, providers }) {
  const ofClouds = [...providers.map(ofProvider), ...machines.map(ofMachine), ...jobs.map(ofJob), ...budgets.map(ofBudget)];
  return [...workers.map(ofWorker), ...disks.map(ofDisk), ...versions.map(ofVersion), ...ofClouds, ...batches.map(ofBatch), ...failures.map(ofFailure)];
}

function ofProvider({ name, trouble, trouble_at: at }) {
  return { kind: "cloud", key: `provider ${name}`, state: "unfit", title: "A provider is in trouble", where: name, detail: trouble, at, url: "/jobs" };
}

function ofMachine({ id, name, provider, region, message }) {
  const detail = message ?? "It carries the tag of this server, nobody here asked for it, and it may cost.";
  return { kind: "cloud", key: `machine ${id}`, state: "unfit", title: "Unknown machine", where: `${name} of ${provider} in ${region}`, detail, url: "/jobs" };
}

function ofJob(job) {
  const title = `Job ${job.id} ${job.state === "failed" ? "failed" : "is in trouble"}`;
  return { kind: "cloud", key: `job ${job.id}`, state: job.state === "failed" ? "failed" : "unfit", title, where: job.batch ?? job.provider, detail: `${titleOf(job)}: ${job.message ?? "it does not say why"}`, at: job.finished_at, url: `/jobs/${job.id}` };
}

function ofBudget({ name, budget, cost, currency }) {
  const detail = `${money(cost, currency)} of ${money(budget, currency)}: nothing more is deployed for it, what is there goes on.`;
  return { kind: "cloud", key: `budget ${name}`, state: "stopped", title: "The budget is spent", where: name, detail, url: `/batches/${encodeURIComponent(name)}` };
}

function ofWorker(worker) {
  const title = worker.state === "offline" ? `${worker.name} is silent` : `${worker.name} is ${worker.state}`;
  const detail = worker.problem ?? "No word from it: what it has not started is given to others.";
  return { kind: "machine", key: `worker ${worker.id}`, state: worker.state, title, where: "worker", detail, at: worker.contact_at, url: `/workers/${worker.id}` };
}

function ofDisk(disk) {
  const detail = `${disk.mount}: ${bytes(disk.free_bytes)} of ${bytes(disk.total_bytes)} free`;
  const url = `/workers?${new URLSearchParams({ name: disk.worker })}`;
  return { kind: "machine", key: `disk ${disk.worker} ${disk.mount}`, state: "unfit", title: `${disk.worker}: a disk is nearly full`, where: "worker", detail, url };
}

function ofVersion({ version, workers, names }) {
  const title = workers === 1 ? `${names[0]} runs scitq ${version}` : `${workers} workers run scitq ${version}`;
  return { kind: "machine", key: `version ${version}`, state: "unfit", title, where: "worker", detail: "This is not the server's version: scitq manage worker upgrade brings it to them.", url: "/workers" };
}

function ofBatch(batch) {
  const state = /stop/i.test(batch.why) ? "stopped" : "waiting";
  const title = state === "stopped" ? "Tasks wait, the batch is stopped" : "Tasks wait for a worker";
  return { kind: "batch", key: `batch ${batch.name}`, state, title, where: batch.name, detail: batch.why, url: `/batches/${encodeURIComponent(batch.name)}` };
}

function ofFailure(group) {
  const title = `${count(group.count)} failed, ${ending(group)}`;
  return {
    kind: "failure",
    key: keyOf(group),
    state: "failed",
    title,
    where: group.batch,
    detail: (group.last_line && lineOf(group)) || group.reason || "It wrote nothing.",
    isOutput: Boolean(group.last_line),
    at: group.newest_at,
    url: addressOf(group.batch, group),
  };
}
