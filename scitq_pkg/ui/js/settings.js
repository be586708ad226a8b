/** Settings: the server, its health and backup, tokens, the event log. */

import { get, post, root } from "./api.js";
import { failed } from "./dialogs.js";
import { el, replace } from "./dom.js";
import { eventLog } from "./events.js";
import { bytes, when } from "./format.js";
import { glyph } from "./states.js";
import { tokens } from "./tokens.js";

const AGAIN = 10; // seconds between two looks at the health

/** @param {object} ctx see router.js */
export async function page(ctx) {
  ctx.title("Settings");
  const info = await get("/server");
  const isAdmin = info.you.role === "admin";
  const secrets = isAdmin ? tokens() : null;
  replace(
    ctx.main,
    el("div", { class: "page-head" }, el("h1", null, "Settings")),
    el("div", { class: "columns" }, aboutServer(info), health(ctx), backup(info, isAdmin), documentation()),
    secrets?.node ?? notice("Tokens are made and revoked by administrators."),
    eventLog(ctx),
  );
  await secrets?.load();
}

function section(id, title, ...children) {
  return el("section", { class: "card section", "aria-labelledby": id }, el("h2", { id }, title), children);
}

function notice(text) {
  return el("p", { class: "notice" }, text);
}

function aboutServer(info) {
  const size = info.database_bytes === undefined ? "" : `, ${bytes(info.database_bytes)}`;
  const facts = [
    ["Version", info.version],
    ["Database", `${{ sqlite: "SQLite", postgresql: "PostgreSQL" }[info.database] ?? info.database}${size}`],
    ["Gives out tasks", info.decides ? "yes, this server" : "no, another server on this database"],
    ["You are", `${info.you.name} (${info.you.role})`],
    ["Its time", when(info.time_at)],
  ];
  return section("about-title", "Server", el("dl", { class: "facts" }, facts.map(([name, value]) => [el("dt", null, name), el("dd", null, value)])));
}

/** What `/health/ready` says, again and again. */
function health(ctx) {
  const said = el("div", { role: "status" }, el("span", { class: "muted" }, "Looking…"));
  const look = async () => {
    const now = await readiness();
    const state = now.ready ? "online" : "unfit";
    const key = JSON.stringify(now);
    if (said.dataset.now === key) return;
    said.dataset.now = key;
    const word = el("span", { class: "badge", data: { state } }, glyph(now.ready ? "succeeded" : "unfit"), now.ready ? "ready" : "not ready");
    replace(said, word, el("ul", { class: "reasons" }, now.reasons.map((reason) => el("li", null, reason))));
  };
  look();
  ctx.every(AGAIN, look);
  const text = "The database can be written, and tasks are given out. Load balancers and monitors may ask the same without a token:";
  return section("health-title", "Health", said, el("p", { class: "muted" }, text, " ", el("code", null, "/health/ready")));
}

/** 503 is an answer here, with the reasons in it. */
async function readiness() {
  try {
    return await (await fetch(new URL("health/ready", root), { cache: "no-store" })).json();
  } catch {
    return { ready: false, reasons: ["The server does not answer."] };
  }
}

function backup(info, isAdmin) {
  if (info.database !== "sqlite") {
    return section("backup-title", "Backup", el("p", { class: "muted" }, "This database is backed up with PostgreSQL's own means: ", el("code", null, "pg_dump"), "."));
  }
  const said = el("p", { role: "status" });
  const button = el("button", { disabled: !isAdmin }, "Make a backup now");
  button.addEventListener("click", async () => {
    button.disabled = true;
    said.textContent = "Copying the database while work goes on…";
    try {
      const made = await post("/backup");
      replace(said, `${bytes(made.size_bytes)} on the machine of the server: `, el("code", null, made.path));
    } catch (error) {
      said.textContent = "";
      failed(error);
    }
    button.disabled = false;
  });
  const text = isAdmin ? "A whole copy of the database, made in the data directory; it can be put in its place as it is." : "Administrators make backups.";
  return section("backup-title", "Backup", el("p", { class: "muted" }, text), el("div", null, button), said);
}

function documentation() {
  const item = (address, title, text) => el("li", null, el("a", { href: new URL(address, root).href, target: "_blank", rel: "noopener" }, title), ` ${text}`);
  const list = el("ul", { class: "reasons" }, item("docs", "API documentation", "to read and try every call"), item("openapi.json", "openapi.json", "the same for programs"));
  return section("docs-title", "API", list, el("p", { class: "muted" }, "Pages, command line and Python use nothing else. ", el("code", null, "scitq manage -h")));
}
