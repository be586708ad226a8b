/** What a worker is shown by: its run slots as squares, controls that change a number or the batch, its version. */

import { el, replace } from "./dom.js";

const MOST_SQUARES = 32;

/** "3 of 4 slots run, 2 more held". */
export function slotsInWords(row) {
  const ready = Math.max(0, row.held - row.running);
  const text = `${row.running} of ${row.concurrency} slots ${row.running === 1 ? "runs" : "run"}`;
  return ready ? `${text}, ${ready} more held` : text;
}

/**
 * A square a slot, full when something runs in it; what runs beyond the concurrency (it was lowered) is marked.
 * More than 32 are a bar: their number stands beside it.
 * @param {{concurrency: number, running: number, held: number}} row
 * @param {{id: number, name: string|null}[]} tasks what runs there, as far as it is known
 */
export function slots(row, tasks = []) {
  const total = Math.max(row.concurrency, row.running);
  const label = { role: "img", "aria-label": slotsInWords(row) };
  if (total > MOST_SQUARES) return el("span", { class: "slots many", ...label }, bar(row, total));
  const squares = Array.from({ length: total }, (_, index) => square(row, index, tasks[index]));
  return el("span", { class: "slots", ...label }, squares, total ? null : el("span", { class: "muted", text: "none" }));
}

function square(row, index, task) {
  const kind = index >= row.running ? "free" : index >= row.concurrency ? "over" : "full";
  const title = kind === "free" ? "free" : task ? `${task.id} ${task.name ?? ""}`.trim() : "running";
  return el("i", { class: `slot ${kind}`, title });
}

function bar(row, total) {
  const full = el("i", { class: "slotbar-full", style: { width: `${(100 * row.running) / total}%` } });
  return el("i", { class: "slotbar" }, full);
}

/**
 * - number +, changed at once.
 * @param {string} label what it counts, and of whom
 * @param {(value: number) => void} onChange
 * @returns {{node: HTMLElement, set: (value: number) => void, by: (step: number) => void}}
 */
export function stepper(label, onChange, most = 100_000) {
  let value = 0;
  const input = el("input", { type: "number", min: 0, max: most, step: 1, "aria-label": label, on: { change: typed, keydown: undo } });
  const less = el("button", { "aria-label": `${label}: one less`, title: "one less", text: "−", on: { click: () => by(-1) } });
  const more = el("button", { "aria-label": `${label}: one more`, title: "one more", text: "+", on: { click: () => by(1) } });

  function ask(wanted) {
    const kept = Math.min(most, Math.max(0, Math.round(wanted)));
    if (kept !== value) onChange(kept);
    set(kept, true);
  }
  function by(step) {
    ask(value + step);
  }
  function typed() {
    if (input.value.trim() === "" || Number.isNaN(Number(input.value))) set(value, true);
    else ask(Number(input.value));
  }
  function undo(event) {
    if (event.key === "Escape") set(value, true);
  }
  /** Shows a value; what is being typed is left alone. */
  function set(wanted, always = false) {
    value = wanted;
    less.disabled = value === 0;
    if (always || document.activeElement !== input || Number(input.value) === value) input.value = String(value);
  }
  return { node: el("span", { class: "stepper", role: "group", "aria-label": label }, less, input, more), set, by };
}

/**
 * The batch of a worker, to choose. All there are become options when `offer` is called: thousands of rows need not have them all.
 * @param {(name: string) => void} onChange
 * @returns {{node: HTMLSelectElement, set: (batch: string, names: string[]) => void, offer: () => void}}
 */
export function batchSelect(label, onChange) {
  let shown = "";
  let isOffered = false;
  let now = { batch: "", names: [] };
  const offer = () => {
    isOffered = true;
    show();
  };
  const node = el("select", { "aria-label": label, class: "batch-select", on: { change: () => onChange(node.value), focus: offer, pointerenter: offer } });
  function show() {
    const { batch, names } = now;
    const all = !isOffered ? [batch] : names.includes(batch) ? names : [...names, batch];
    const key = JSON.stringify(all);
    const isOpen = document.activeElement === node && shown !== JSON.stringify([batch]);
    if (key !== shown && !isOpen) {
      replace(node, all.map((name) => el("option", { value: name, text: name })));
      shown = key;
    }
    if (!isOpen || node.value === "") node.value = batch;
  }
  return { node, set: (batch, names) => ((now = { batch, names }), show()), offer };
}

/** A worker's version; that it is another than the server's is told. */
export function versionNode(version, server) {
  if (!version || !server || version === server) return version ?? "–";
  return el("span", { class: "warn", title: `This worker is of version ${version}, the server of ${server}: upgrade it, or start it anew with the same file` }, `${version}, not ${server}`);
}

/** How the upgrade of a worker goes. */
export function upgradeNote({ upgrading, upgrade_problem: problem }) {
  if (problem) return el("small", { class: "problem", text: `not upgraded: ${problem}` });
  return upgrading ? el("small", { class: "muted", text: "is being upgraded" }) : null;
}
