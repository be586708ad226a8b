/** The notifiers of a batch: whom the server tells when it is done, or when tasks of it failed. */

import { del, get, post } from "./api.js";
import { confirm, failed, form, toast } from "./dialogs.js";
import { el } from "./dom.js";
import { many, when } from "./format.js";
import { named } from "./hidden.js";
import { refresher } from "./refresh.js";
import { table } from "./table.js";

const LEAST_MS = 1500; // between two looks at how messages fared
const EVERY_SECONDS = 2;

/**
 * The table of the notifiers of a batch, and the button that makes one.
 * @param {object} ctx of the page, see router.js
 * @param {string} batch
 * @param {(error: Error|null) => void} told how asking for them went
 * @returns {{node: HTMLElement, button: HTMLElement}}
 */
export function notifiers(ctx, batch, told) {
  let rows = [];
  const remove = (row) => el("button", { class: "small danger", "aria-label": `Delete notifier of ${named(row.target)}`, text: "Delete…", on: { click: () => ask(row) } });
  const shown = table({
    caption: `Notifiers of ${batch}`,
    columns: [...COLUMNS, { key: "actions", label: "Actions", class: "row-actions", cell: remove }],
    key: (row) => row.id,
    empty: "None: nobody is told. A notifier sends a mail or calls a webhook when the batch is done, or when too many of its tasks failed.",
  });
  async function load(force = false) {
    rows = (await get("/notifiers", { batch })).items;
    shown.update(rows, { force });
  }
  async function add() {
    const made = await form({ title: `A notifier for ${batch}`, body: "The server tells it, whether you are here or not. The same address again changes what it is told.", fields: FIELDS, verb: "Add", work: (values) => save(batch, values) });
    if (!made) return;
    toast(`${made.target} is told: ${wants(made)}.`);
    await load(true).catch(failed);
  }
  async function ask(row) {
    const body = `${named(row.target)} is told nothing more of this batch, and what is on its way is not sent.`;
    if (!(await confirm({ title: "Delete this notifier?", body, verb: "Delete", danger: true }))) return;
    await del(`/notifiers/${row.id}`).then(() => load(true)).catch(failed);
  }
  const again = refresher(ctx, load, told, LEAST_MS);
  ctx.listen("batches", again);
  ctx.every(EVERY_SECONDS, () => rows.length && again()); // how a message fared is no news of the stream
  return { node: shown.node, button: el("button", { class: "small", text: "Add a notifier…", on: { click: add } }) };
}

const COLUMNS = [
  { key: "target", label: "To", head: true, narrow: "title", cell: (row) => [el("span", { text: named(row.target) }), row.origin ? el("small", { class: "muted", text: ` of ${named(row.origin)}` }) : null] },
  { key: "kind", label: "By" },
  { key: "wants", label: "Is told", cell: wants },
  { key: "last", label: "Latest message", cell: fared },
];

const FIELDS = [
  { name: "target", label: "Mail address, or URL of a webhook", required: true, hint: "a webhook gets JSON; its path is its secret and is not shown again" },
  { name: "done", label: "Tell when the batch is done", type: "checkbox", value: true },
  { name: "failures", label: "Tell when more tasks failed than", type: "number", min: 0, hint: "empty: failures are not told" },
];

function wants({ done, failures }) {
  return [done && "when it is done", failures !== null && `when more than ${many(failures, "task")} failed`].filter(Boolean).join(", ");
}

function fared({ last }) {
  if (!last) return el("span", { class: "muted", text: "none yet" });
  const error = last.error ? `after ${many(last.attempts, "attempt")}: ${named(last.error)}` : "";
  if (last.sent_at) return [`${last.event}, sent `, when(last.sent_at)];
  if (last.given_up_at) return el("span", { class: "problem" }, `${last.event}, given up `, when(last.given_up_at), ` ${error}`);
  return el("span", { class: error ? "problem" : null, text: `${last.event}, on its way ${error}` });
}

function save(batch, { target, done, failures }) {
  const to = target.trim();
  return post("/notifiers", { batch, [/^[^/]+@/.test(to) ? "mail" : "webhook"]: to, done, failures });
}
