/** What can be done with a batch: stop, go, delete, export. */

import { del, get, post } from "./api.js";
import { el } from "./dom.js";
import { failed, form, toast } from "./dialogs.js";
import { fileName, saveAnswer, saveCsv, saveJson } from "./download.js";
import { count, many, total } from "./format.js";
import { live } from "./live.js";
import { go } from "./router.js";

/** The path of a batch in the API. */
export const pathOf = (name) => `/batches/${encodeURIComponent(name)}`;

const tasks = (number) => many(number, "task");

const RUNNING = [
  ["", "goes on until it ends"],
  ["suspend", "is suspended, and goes on with the batch"],
  ["term", "is asked to end (SIGTERM, 10 s later SIGKILL)"],
  ["kill", "is killed at once (SIGKILL)"],
];

/** Asks what happens to what runs, then stops a batch. */
export async function stopBatch(row) {
  const running = row.counts.running ?? 0;
  const values = await form({
    title: `Stop ${row.name}?`,
    fields: [
      { name: "running", label: running ? `What runs (${tasks(running)})` : "What runs", type: "select", options: RUNNING, value: "",
        hint: "Nothing of the batch starts any more until you let it go again." },
    ],
    verb: "Stop",
  });
  if (!values) return;
  await tried(() => post(`${pathOf(row.name)}/stop`, { running: values.running || null }), `${row.name} is stopped.`);
}

/** Reverses stop. */
export const goBatch = (row) => tried(() => post(`${pathOf(row.name)}/go`), `${row.name} goes on.`);

async function tried(work, said) {
  try {
    const answer = await work();
    if (answer) live.put("batches", answer);
    toast(said);
    return true;
  } catch (error) {
    failed(error);
    return false;
  }
}

/** What deleting a batch means, in words. */
export function consequence(row) {
  const all = total(row.counts);
  const running = (row.counts.running ?? 0) + (row.counts.uploading ?? 0);
  const sentences = [all ? `${tasks(all)}, with all attempts and what they wrote, are gone for good.` : "It holds no task."];
  if (running) sentences.push(`${tasks(running)} ${running === 1 ? "runs and is" : "run and are"} killed.`);
  if (row.workers) sentences.push(`${many(row.workers, "worker goes", "workers go")} to the batch Default.`);
  sentences.push("Files that tasks have uploaded stay where they are.");
  return sentences.join(" ");
}

/** Wants the name typed, then deletes a batch and leads to the overview. */
export async function deleteBatch(row) {
  const pattern = row.name.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  const values = await form({
    title: `Delete ${row.name}?`,
    body: consequence(row),
    fields: [{ name: "typed", label: `Type the name of the batch: ${row.name}`, type: "text", value: "", required: true, pattern, title: "the name of the batch, exactly" }],
    verb: "Delete",
    danger: true,
  });
  if (values && (await tried(() => del(pathOf(row.name)), `Deleted ${row.name}.`))) go("/");
}

const EXPORTS = {
  json: ["JSON", "every task with all it was given", (row, told) => saveJson("/tasks", { batch: row.name }, fileName(row.name, "json"), told)],
  csv: ["CSV", "the same as a table", (row, told) => saveCsv("/tasks", { batch: row.name }, fileName(row.name, "csv"), told)],
  file: ["Batch file", "YAML that makes this batch again", (row) => saveAnswer(`${pathOf(row.name)}/file`, {}, fileName(row.name, "yaml"))],
};

/**
 * Buttons that save a batch as a file.
 * @param {() => object} row the batch as it is now
 */
export function exports(row) {
  return Object.values(EXPORTS).map(([label, title, save]) => {
    const button = el("button", { title, text: label, "aria-label": `Export ${label}: ${title}`, on: { click: () => run(button, label, save, row()) } });
    return button;
  });
}

async function run(button, label, save, row) {
  button.disabled = true;
  try {
    await save(row, (number) => (button.textContent = `${label} ${count(number)}`));
  } catch (error) {
    failed(error);
  } finally {
    button.disabled = false;
    button.textContent = label;
  }
}

/** A batch as the API has it, when the stream has not told of it. Throws ApiError. */
export const fetchBatch = (name) => get(pathOf(name));
