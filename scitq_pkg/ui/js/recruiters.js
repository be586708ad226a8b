/** The recruiters of a batch: rules by which it takes workers that idle elsewhere, or has further ones deployed. */

import { del, get, patch, post } from "./api.js";
import { confirm, failed, form, toast } from "./dialogs.js";
import { el } from "./dom.js";
import { count, many } from "./format.js";
import { passing, providerOptions } from "./flavors.js";
import { named } from "./hidden.js";
import { refresher } from "./refresh.js";
import { link } from "./router.js";
import { table } from "./table.js";

const LEAST_MS = 3000; // between two looks at what they match
const SHOWN = 5; // workers by name
const NEW = { rank: 1, prefetch: 0 };

/**
 * The table of the recruiters of a batch, and the button that makes one.
 * @param {object} ctx of the page, see router.js
 * @param {string} batch
 * @param {(error: Error|null) => void} told how asking for them went
 * @returns {{node: HTMLElement, button: HTMLElement}}
 */
export function recruiters(ctx, batch, told) {
  let rows = [];
  const actions = (row) => {
    const button = (text, title, work, kind = "") => el("button", { class: `small ${kind}`, title, "aria-label": `${title} ${row.rank}`, text, on: { click: work } });
    return el("span", { class: "row" }, button("Change…", "Change recruiter", () => edit(row)), button("Delete…", "Delete recruiter", () => remove(row), "danger"));
  };
  const shown = table({
    caption: `Recruiters of ${batch}`,
    columns: [...COLUMNS, { key: "actions", label: "Actions", class: "row-actions", cell: actions }],
    key: (row) => row.id,
    empty: "None: workers stay in the batch that they were given. A recruiter takes workers that idle elsewhere while tasks wait here, or has machines deployed.",
  });
  async function load(force = false) {
    rows = (await get("/recruiters/match", { batch })).items.sort((one, other) => one.rank - other.rank);
    shown.update(rows, { force });
  }
  async function edit(row) {
    try {
      const done = await ask(batch, row, rows);
      if (!done) return;
      toast(row ? `Recruiter ${done.rank} is changed.` : `${batch} recruits workers.`);
      await load(true);
    } catch (error) {
      failed(error);
    }
  }
  async function remove(row) {
    const body = `It looks for ${what(row)}. What it took stays in ${batch} until it idles.`;
    if (!(await confirm({ title: `Delete recruiter ${row.rank} of ${batch}?`, body, verb: "Delete", danger: true }))) return;
    await del(`/recruiters/${row.id}`).then(() => load(true)).catch(failed);
  }
  const again = refresher(ctx, load, told, LEAST_MS);
  ctx.listen("workers", again);
  ctx.listen("batches", again);
  return { node: shown.node, button: el("button", { class: "small", text: "Add a recruiter…", on: { click: () => edit(null) } }) };
}

const COLUMNS = [
  { key: "rank", label: "Rank", class: "num" },
  { key: "flavor", label: "Looks for", head: true, narrow: "title", cell: (row) => [el("span", { text: what(row) }), row.origin ? el("small", { class: "muted", text: ` of ${named(row.origin)}` }) : null] },
  { key: "wants", label: "Wants", cell: wants },
  { key: "makes", label: "Slots there", cell: slotsThere },
  { key: "workers", label: "Matches now", cell: matching },
];

function what({ flavor, provider, region }) {
  const place = [provider && (provider === "auto" ? "of any provider" : `of ${named(provider)}`), region && region !== "auto" && `in ${named(region)}`];
  return [flavor ? named(flavor) : "any worker", ...place].filter(Boolean).join(" ");
}

function wants({ tasks_per_worker: each, minimum_tasks: least, maximum_workers: most }) {
  const parts = [each === 1 ? "a worker a task" : `a worker for ${count(each)} tasks`];
  if (least > 1) parts.push(`from ${many(least, "task")} on`);
  if (most !== null) parts.push(`up to ${many(most, "worker")}`);
  return parts.join(", ");
}

function slotsThere({ concurrency, prefetch }) {
  const ready = prefetch ? `, ${count(prefetch)} held ready` : "";
  return (concurrency === null ? "as it has" : count(concurrency)) + ready;
}

function matching({ workers }) {
  if (!workers.length) return el("span", { class: "muted", text: "no worker" });
  const idle = workers.filter((worker) => worker.idle).length;
  const names = workers.slice(0, SHOWN).map((worker, index) => [index ? ", " : "", link(`/workers/${worker.id}`, named(worker.name))]);
  return el("span", null, `${many(workers.length, "worker")}, ${count(idle)} idle: `, names, workers.length > SHOWN ? " …" : "");
}

// --- the form

/** The form. @returns {Promise<object|null>} the recruiter as it is then */
async function ask(batch, row, others) {
  const free = Math.max(0, ...others.map(({ rank }) => rank)) + 1;
  const known = row ?? { ...NEW, rank: free };
  const providers = await providerOptions([["", "none"], ["auto", "any"]], known.provider);
  return form({
    title: row ? `Recruiter ${row.rank} of ${batch}` : `A recruiter for ${batch}`,
    body: "While tasks wait here, it takes workers that idle elsewhere. With a provider, machines are deployed when none is there.",
    fields: fieldsOf(known, providers),
    verb: row ? "Change" : "Add",
    preview: (values) => (values.provider ? passing(values) : el("p", { class: "muted", text: "Without a provider nothing is deployed." })),
    work: (values) => save(batch, row, values),
  });
}

function fieldsOf(row, providers) {
  const number = (name, label, hint, min = 0, more = {}) => ({ name, label, hint, type: "number", min, value: row[name] ?? "", ...more });
  return [
    number("rank", "Rank", "the lowest goes first", 0, { required: true }),
    { name: "flavor", label: "Flavor", hint: "a name, or auto:cpu>=8:ram>=30; empty: any worker", value: row.flavor ?? "" },
    { name: "provider", label: "Provider", type: "select", options: providers, value: row.provider ?? "" },
    { name: "region", label: "Region", hint: "empty: any", value: row.region ?? "" },
    number("tasks_per_worker", "Tasks a worker", "that wait for one; empty: one a slot", 1),
    number("minimum_tasks", "Tasks at least", "that wait; empty: 1"),
    number("maximum_workers", "Workers at most", "in the batch; empty: no limit"),
    number("concurrency", "Slots there", "empty: as it has", 1),
    number("prefetch", "Prefetch there", "empty: as it has"),
  ];
}

async function save(batch, row, values) {
  const body = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, typeof value === "string" ? value.trim() || null : value]));
  if (row && body.tasks_per_worker === null) delete body.tasks_per_worker;
  return row ? patch(`/recruiters/${row.id}`, body) : post("/recruiters", { batch, ...body });
}
