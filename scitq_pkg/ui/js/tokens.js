/** Tokens: who may come in, and as what. */

import { copyLine } from "./addworker.js";
import { del, pages, post } from "./api.js";
import { confirm, failed, form, toast } from "./dialogs.js";
import { el, replace, show } from "./dom.js";
import { when } from "./format.js";
import { named } from "./hidden.js";
import { live } from "./live.js";
import { table } from "./table.js";

const ROLES = [
  ["user", "user: tasks, batches, workers"],
  ["admin", "admin: that, and tokens and backups"],
];

/**
 * The tokens with what can be done about them; for administrators.
 * @returns {{node: HTMLElement, load: () => Promise<void>}}
 */
export function tokens() {
  const made = el("div", { class: "notice", hidden: true, role: "status" });
  const shown = table({ caption: "Tokens", columns: [...columns, { key: "actions", label: "Actions", class: "row-actions", cell: (row) => revokeButton(row, load) }], key: (row) => row.id, empty: "Nobody has a token." });
  const make = el("button", { on: { click: () => makeToken(made, load) } }, "Make a token");
  const head = el("div", { class: "page-head" }, el("h2", { id: "tokens-title" }, "Tokens"), make);
  async function load(force = false) {
    const rows = [];
    for await (const row of pages("/tokens")) rows.push(row);
    shown.update(rows, { force });
  }
  return { node: el("section", { class: "section", "aria-labelledby": "tokens-title" }, head, made, shown.node), load };
}

const columns = [
  { key: "name", label: "Name", head: true, narrow: "title", sort: true, cell: (row) => named(row.name) },
  { key: "role", label: "Role", sort: true },
  { key: "created_at", label: "Made", sort: true, cell: (row) => when(row.created_at) },
];

async function makeToken(made, load) {
  const values = await form({
    title: "Make a token",
    fields: [
      { name: "name", label: "For whom or what", hint: "It stands in the event log beside all that is done with this token.", required: true, maxlength: 200 },
      { name: "role", label: "Role", type: "select", options: ROLES, value: "user" },
    ],
    verb: "Make",
  });
  if (!values) return;
  try {
    showOnce(made, await post("/tokens", values));
    await load(true);
  } catch (error) {
    failed(error);
  }
}

function showOnce(made, token) {
  const line = copyLine(`the token of ${token.name}`);
  line.set(token.token);
  const done = el("button", { on: { click: () => show(replace(made), false) } }, "I have it");
  replace(made, el("p", null, `The token of ${token.name} (${token.role}), shown this once. Who has it may do all of that; give it away on a safe way only.`), line.node, done);
  show(made, true);
}

function revokeButton(row, load) {
  const click = async () => {
    const own = row.name === live.server?.you?.name ? " This browser may be signed in with it." : "";
    const body = `Programs, workers that start and browsers that use the token of ${row.name} are refused from then on. Workers that are registered go on: they have tokens of their own.${own}`;
    if (!(await confirm({ title: `Revoke the token of ${row.name}?`, body, verb: "Revoke", danger: true }))) return;
    try {
      await del(`/tokens/${row.id}`);
      toast(`Revoked the token of ${row.name}.`);
      await load(true);
    } catch (error) {
      failed(error);
    }
  };
  return el("button", { class: "small danger", "aria-label": `Revoke the token of ${row.name}`, on: { click } }, "Revoke");
}
