/** One attempt to run a task: its phases, what it used, what was moved for it; and the list of them. */

import { el } from "./dom.js";
import { ending } from "./failures.js";
import { bytes, count, duration, when } from "./format.js";
import { link } from "./router.js";
import { badge } from "./states.js";

const SHORTEST = 0.05; // seconds of a phase that is shown
const ranFor = (row) => seconds(row.started_at, row.ended_at ?? row.finished_at ?? new Date().toISOString());
const seconds = (from, to) => (Date.parse(to) - Date.parse(from)) / 1000;

/**
 * The phases that an attempt went through: `{name, state, from, to}`, `to` null: still.
 * @param {object} task
 * @param {object|null} execution
 * @param {object|null} before the attempt before it
 */
export function phasesOf(task, execution, before) {
  const waits = task.state === "waiting" || task.state === "pending";
  if (!execution) return [{ name: waits ? task.state : "queued", state: task.state, from: task.created_at, to: waits ? null : task.state_at }];
  const over = execution.finished_at;
  const queued = before ? before.finished_at : task.created_at;
  const found = [
    { name: "queued", state: "pending", from: queued, to: execution.assigned_at },
    { name: "fetched, waited for a slot", state: "accepted", from: execution.assigned_at, to: execution.started_at ?? over },
    { name: execution.suspended ? "runs, suspended" : execution.ended_at || over ? "ran" : "runs", state: "running", from: execution.started_at, to: execution.ended_at ?? over },
    { name: over ? "uploaded, reported" : "uploads", state: "uploading", from: execution.ended_at, to: over },
  ];
  return found.filter(({ state, from, to }) => from && (!to || state === "running" || seconds(from, to) >= SHORTEST));
}

/** The phases as a line to scale, and below it in words. */
export function phases(list) {
  const now = new Date().toISOString();
  const timed = list.map((phase) => ({ ...phase, seconds: Math.max(0, seconds(phase.from, phase.to ?? now)) }));
  const words = timed.map(({ name, seconds: length }) => `${name} ${duration(length)}`).join(", ");
  const bar = el("div", { class: "bar phases-bar", role: "img", "aria-label": words }, timed.map((phase) => el("span", { data: { state: phase.state }, title: `${phase.name} ${duration(phase.seconds)}`, style: { "flex-grow": String(1000 * Math.max(phase.seconds, 0.001)) } })));
  const items = timed.map((phase) =>
    el("li", { data: { state: phase.state } }, el("span", { class: "phase-name", text: phase.name }), " ", el("b", { text: duration(phase.seconds) }), " ", el("span", { class: "muted" }, "from ", when(phase.from))));
  return el("div", { class: "phases" }, bar, el("ol", null, items));
}

/** Columns of the table of attempts. */
export const COLUMNS = [
  { key: "attempt", label: "#", class: "num", head: true, cell: (row) => `${row.attempt}` },
  { key: "state", label: "State", cell: (row) => badge(row.state, { suspended: row.suspended }) },
  { key: "worker", label: "Worker", cell: (row) => (row.worker ? el("bdi", null, link(`/workers/${row.worker_id}`, row.worker)) : el("span", { class: "muted", text: "gone" })) },
  { key: "ran", label: "Ran for", class: "num", cell: (row) => (row.started_at ? el("span", { title: `${row.started_at} to ${row.ended_at ?? "now"}`, text: duration(ranFor(row)) }) : "–") },
  { key: "end", label: "Ended with", class: "wraps", cell: endOf },
];

function endOf(row) {
  if (!row.finished_at) return null;
  if (row.reused_id) return ["taken from ", el("span", { class: "num", text: `attempt ${row.reused_id}` }), " of an equal task"];
  if (row.state === "succeeded") return "exit code 0";
  const how = row.exit_code === null && row.signal === null ? "" : ending(row);
  return [how, how && row.reason ? ": " : "", row.reason ? el("bdi", { text: row.reason }) : null];
}

/** What an attempt used, as [what, how much]. */
export function usage(row) {
  const ran = row.started_at ? ranFor(row) : null;
  const cores = ran > 0 && row.cpu_seconds / ran >= 0.1 ? ` (${(row.cpu_seconds / ran).toFixed(1)} cores on average)` : "";
  return [
    ["Processor time", row.cpu_seconds === null ? "–" : duration(row.cpu_seconds) + cores],
    ["Peak memory", bytes(row.peak_memory_bytes)],
    ["Read from disk", bytes(row.read_bytes)],
    ["Written to disk", bytes(row.written_bytes)],
    ["Output", `${bytes(row.stdout_size)} to stdout, ${bytes(row.stderr_size)} to stderr`],
  ];
}

/** What was moved for an attempt. @param {object[]} list of transfers */
export function transfers(list) {
  return el("ul", { class: "uris" }, list.map((one) => {
    const rate = one.seconds > 0 ? `, ${bytes(one.bytes / one.seconds)}/s` : "";
    const told = `${one.what}: ${count(one.files)} ${one.files === 1 ? "file" : "files"}, ${bytes(one.bytes)} in ${duration(one.seconds)}${rate}`;
    return el("li", null, uri(one.uri), el("div", { class: "muted small-text", text: told }));
  }));
}

/** A URI; one that a browser can open is a link. */
export function uri(text) {
  const shown = el("bdi", { class: "uri", text });
  return /^https?:\/\//i.test(text) && URL.canParse(text) ? el("a", { href: text, rel: "noreferrer noopener", target: "_blank" }, shown) : shown;
}
