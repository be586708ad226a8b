/** How to add a worker: the very line to type. */

import { root } from "./api.js";
import { toast } from "./dialogs.js";
import { el, replace } from "./dom.js";

const PLAIN = /^[\w@%+=:,./-]+$/;
const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** A text as one word of a shell. */
export const quoted = (text) => (PLAIN.test(text) ? text : "'" + text.replaceAll("'", "'\\''") + "'");

/** The line that starts a worker. */
export function workerCommand({ batch, concurrency, elsewhere }) {
  const words = ["scitq", "worker", quoted(root.href.replace(/\/$/, ""))];
  if (concurrency) words.push(String(concurrency));
  if (batch && batch !== "Default") words.push("--batch", quoted(batch));
  if (elsewhere) words.push("--token-file", "scitq.token");
  return words.join(" ");
}

/**
 * A line to copy.
 * @returns {{node: HTMLElement, set: (text: string) => void}}
 */
export function copyLine(label) {
  const code = el("code", { tabindex: 0, role: "region", "aria-label": label });
  const button = el("button", { class: "small", text: "Copy", "aria-label": `Copy: ${label}`, on: { click: () => copy(code) } });
  return { node: el("div", { class: "copy-line" }, code, button), set: (text) => (code.textContent = text) };
}

/** Where the page came over plain HTTP from another machine browsers give no clipboard: the line is selected then. */
async function copy(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    toast("Copied.");
  } catch {
    getSelection().selectAllChildren(code);
    toast("Selected: copy it with Ctrl+C.", { kind: "info" });
  }
}

/**
 * The part of the page that tells it.
 * @returns {{node: HTMLElement, show: (open: boolean, batches: string[]) => void}}
 */
export function addWorker() {
  const here = copyLine("start a worker on the machine of the server");
  const there = copyLine("start a worker on another machine");
  const batch = el("input", { type: "text", id: "add-batch", value: "Default", list: "add-batches", spellcheck: "false", autocomplete: "off" });
  const concurrency = el("input", { type: "number", id: "add-concurrency", min: 1, max: 100_000, placeholder: "one a processor" });
  const list = el("datalist", { id: "add-batches" });
  const change = () => {
    const given = { batch: batch.value.trim(), concurrency: concurrency.value };
    here.set(workerCommand(given));
    there.set(workerCommand({ ...given, elsewhere: true }));
  };
  for (const input of [batch, concurrency]) input.addEventListener("input", change);
  change();
  const node = el("details", { class: "panel add-worker" }, el("summary", null, el("h2", { text: "Add a worker" })),
    el("div", { class: "filters" }, el("label", { for: batch.id, text: "Batch" }), batch, list, el("label", { for: concurrency.id, text: "Concurrency" }), concurrency),
    el("p", { text: "On this server's machine, as the user who started it:" }), here.node,
    el("p", { text: "On another machine, where the file scitq.token holds a token:" }), there.node,
    LOOPBACK.test(location.hostname) ? el("p", { class: "notice", text: `The address ${location.host} is that of this machine alone: put there the name by which other machines reach the server, which must listen there (--host).` }) : null,
    el("p", { class: "muted" }, "scitq stands for ", el("code", { text: "python3 scitq.pyz" }), " where only the one file is there; a token is made with ", el("code", { text: "scitq manage token create NAME > scitq.token" }), ". The worker appears here within a second."));
  let known = "";
  let wasOpened = false;
  const show = (open, batches) => {
    if (open && !wasOpened) node.open = wasOpened = true;
    const key = JSON.stringify(batches);
    if (known === key) return;
    known = key;
    replace(list, batches.map((value) => el("option", { value })));
  };
  return { node, show };
}
