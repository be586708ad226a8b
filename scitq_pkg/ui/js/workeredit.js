/** Changing workers: what was asked for shows at once, and is taken back when the server refuses. */

import { del, patch, post } from "./api.js";
import { confirm, failed, form, toast } from "./dialogs.js";
import { many } from "./format.js";
import { live } from "./live.js";

const AT_ONCE = 6; // requests at the same time, as many as a browser opens

/** @type {Map<number, {values: object, unsent: object, sending: Promise<Error|null>}>} */
const asked = new Map();
const changes = new EventTarget();

/**
 * Calls `fn` whenever what was asked of a worker changes; returns what ends that.
 * @param {() => void} fn
 */
export function onAsked(fn) {
  changes.addEventListener("asked", fn);
  return () => changes.removeEventListener("asked", fn);
}

const tell = () => changes.dispatchEvent(new Event("asked"));

/** A worker's row with what was asked for and is not answered yet. */
export function withAsked(row) {
  const entry = asked.get(row.id);
  if (!entry) return row;
  const mixed = { ...row, ...entry.values };
  return { ...mixed, state: stateOf(mixed) };
}

function stateOf(row) {
  if (row.state !== "online" && row.state !== "draining") return row.state;
  return row.draining ? "draining" : "online";
}

/**
 * Asks for changes of a worker; several in a row are one after the other, the newest values counting.
 * @returns {Promise<Error|null>} null when they are recorded
 */
export function change(id, values) {
  const entry = asked.get(id) ?? { values: {}, unsent: {}, sending: null };
  asked.set(id, entry);
  Object.assign(entry.values, values);
  Object.assign(entry.unsent, values);
  entry.sending ??= deliver(id, entry);
  tell();
  return entry.sending;
}

async function deliver(id, entry) {
  await null; // so that clicks of the same moment go together
  try {
    while (Object.keys(entry.unsent).length) {
      const values = entry.unsent;
      entry.unsent = {};
      const { stats, ...row } = await patch(`/workers/${id}`, values); // the stream has the measured values in another form
      live.put("workers", row);
    }
    return null;
  } catch (error) {
    return error; // and the row is shown as it was
  } finally {
    asked.delete(id);
    tell();
  }
}

/** `change` of one worker, which says when it failed. */
export async function changeOne(id, values) {
  const isFirst = !asked.has(id); // those that join it say nothing: it failed once
  const error = await change(id, values);
  if (error && isFirst) failed(error);
  return !error;
}

/** The same changes for many workers; tells how it went, offers `undo` (worker -> values) when given. */
export async function changeMany(rows, values, said, undo) {
  const errors = await inTurns(rows, (row) => change(row.id, values));
  report(errors, rows.length, said, undo && (() => inTurns(rows, (row) => change(row.id, undo(row)))));
}

function report(errors, count, said, undo) {
  const wrong = errors.filter(Boolean);
  if (wrong.length) failed(wrong[0]);
  if (wrong.length && count > 1) toast(`${wrong.length} of ${count} workers could not be changed.`, { kind: "failed" });
  if (!wrong.length) toast(said, { undo });
}

async function inTurns(items, work) {
  const results = [];
  const rest = items.entries();
  const one = async () => {
    for (const [index, item] of rest) results[index] = await work(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, one));
  return results;
}

/** "node1", "node1 and node2", "node1 and 4 more". */
export function named(rows) {
  if (rows.length <= 2) return rows.map((row) => row.name).join(" and ");
  return `${rows[0].name} and ${rows.length - 1} more`;
}

/** What deleting workers means, in words. */
export function consequence(rows) {
  const held = rows.reduce((sum, row) => sum + row.held, 0);
  const running = rows.reduce((sum, row) => sum + row.running, 0);
  const there = rows.length === 1 ? "there" : "on them";
  const sentences = [];
  if (running) sentences.push(`${many(running, "task")} running ${there} ${running === 1 ? "is" : "are"} killed and ${goesBack(running)}`);
  if (held > running) sentences.push(`${many(held - running, "task that waits", "tasks that wait")} ${there} ${goesBack(held - running)}`);
  if (!held) sentences.push(`${rows.length === 1 ? "It holds" : "They hold"} no task.`);
  const machines = rows.filter((row) => row.machine).length;
  if (machines) sentences.push(`${machines === rows.length ? "" : "Of "}${many(machines, "machine is", "machines are")} destroyed, with all that lies on ${machines === 1 ? "it" : "them"}: what tasks have uploaded stays.`);
  sentences.push(`The worker ${rows.length === 1 ? "program ends" : "programs end"}; no retry is used up, and what already ran is remembered.`);
  return sentences.join(" ");
}

const goesBack = (count) => `${count === 1 ? "goes" : "go"} back to the queue.`;

/** Asks, then deletes. @returns {Promise<boolean>} whether all are gone */
export async function removeWorkers(rows) {
  const what = rows.length === 1 ? `worker ${rows[0].name}` : many(rows.length, "worker");
  const yes = await confirm({ title: `Delete ${what}?`, body: consequence(rows), verb: "Delete", danger: true });
  if (!yes) return false;
  const errors = await inTurns(rows, (row) => del(`/workers/${row.id}`).then(() => null, (error) => error));
  report(errors, rows.length, `Deleted ${named(rows)}.`);
  return !errors.some(Boolean);
}

/** Workers of another version go on as that of the server, without ending what runs. */
export async function upgrade(rows) {
  const outdated = rows.filter((row) => row.outdated);
  if (!outdated.length) return toast(`Of the same version as the server: ${named(rows)}.`, { kind: "info" });
  const errors = await inTurns(outdated, (row) => post(`/workers/${row.id}/upgrade`).then(() => null, (error) => error));
  return report(errors, outdated.length, `${many(outdated.length, "worker goes", "workers go")} on as version ${live.server?.version}, with what runs.`);
}

/** Drains workers, or lets them have tasks again. */
export function drain(rows, draining) {
  const said = draining
    ? `${named(rows)}: what is there ends, nothing more comes.`
    : `${named(rows)}: tasks come again.`;
  return changeMany(rows, { draining }, said, (row) => ({ draining: row.draining }));
}

/** Keeps machines when idle, or not. */
export function keepMachines(rows, permanent) {
  const said = `${named(rows)}: ${permanent ? "kept" : "not kept"} when idle.`;
  return changeMany(rows, { permanent }, said, (row) => ({ permanent: row.permanent }));
}

/** Moves a worker to a batch, which can be undone. */
export function moveTo(row, name) {
  return changeMany([row], { batch: name }, `${row.name} works for ${name}.`, () => ({ batch: row.batch }));
}

const NUMBERS = {
  concurrency: ["Concurrency", "Tasks that run at once on each; 0 lets it run nothing. What runs goes on."],
  prefetch: ["Prefetch", "Tasks that each holds ready, their inputs fetched, beyond those that run."],
};

/** Asks for a concurrency or prefetch for workers. */
export async function askNumber(rows, name) {
  const [label, hint] = NUMBERS[name];
  const values = await form({
    title: `${label} of ${named(rows)}`,
    fields: [{ name, label, type: "number", min: 0, max: 100_000, value: rows[0][name], hint, required: true }],
    verb: "Set",
  });
  if (!values) return;
  const value = Number(values[name]);
  await changeMany(rows, { [name]: value }, `${named(rows)}: ${label.toLowerCase()} ${value}.`, (row) => ({ [name]: row[name] }));
}

/** Asks for the batch that workers shall work for; a new name makes a new batch. */
export async function askBatch(rows) {
  const hint = "What they hold they still end. A name that does not exist becomes a new batch.";
  const values = await form({
    title: `Batch of ${named(rows)}`,
    fields: [{ name: "batch", label: "Batch", value: rows[0].batch, list: [...live.batches.keys()], required: true, hint }],
    verb: "Move",
  });
  if (values) await changeMany(rows, { batch: values.batch }, `${named(rows)}: works for ${values.batch}.`, (row) => ({ batch: row.batch }));
}

/** Asks for a new name of a worker. */
export async function askName(row) {
  const values = await form({
    title: `Rename ${row.name}`,
    fields: [{ name: "name", label: "Name", type: "text", value: row.name, required: true, pattern: "[A-Za-z0-9_][A-Za-z0-9_.\\-]{0,99}", hint: "Letters, digits, dot, dash and underscore." }],
    verb: "Rename",
  });
  if (values && values.name !== row.name) await changeOne(row.id, { name: values.name });
}
