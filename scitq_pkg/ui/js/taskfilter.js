/** The filter of tasks: the grammar of the command line as a form, kept in the address. */

import { el, replace } from "./dom.js";
import { batchNames } from "./fields.js";
import { live } from "./live.js";
import { ORDER, badge } from "./states.js";

/** Words of the filter, as the API and the command line have them. */
export const WORDS = ["batch", "state", "name", "worker", "exit_code", "grep", "since", "ids"];
const AFTER = 350; // milliseconds without a key
const WIDE = "(min-width: 900px)";

const FIELDS = {
  name: { label: "Name", placeholder: "align*", type: "search", "data-filter": true },
  batch: { label: "Batch" },
  worker: { label: "Worker", placeholder: "name or id" },
  exit_code: { label: "Exit code", placeholder: "1,137" },
  grep: { label: "Last output has", placeholder: "No space left" },
  since: { label: "Changed since", placeholder: "2h, 3d, 2026-11-21" },
  ids: { label: "Ids", placeholder: "3,5-9" },
};

/** The filter that an address holds. @param {URLSearchParams} query */
export function filterOf(query) {
  return Object.fromEntries(WORDS.filter((word) => query.get(word)).map((word) => [word, query.get(word)]));
}

/** The filter in words: "failed, batch reads". */
export function inWords(filter) {
  const { state, ...others } = filter;
  const parts = Object.entries(others).map(([word, value]) => `${FIELDS[word].label.toLowerCase()} ${value}`);
  return [state?.replaceAll(",", " or "), ...parts].filter(Boolean).join(", ");
}

/**
 * @param {(changes: object, options?: object) => void} changed is given the words that are different now, null for those left out
 */
export function filterBar(changed) {
  const chips = stateChips((state) => changed({ state: state || null }, { replace: false }));
  const inputs = Object.fromEntries(Object.entries(FIELDS).map(([word, props]) => [word, field(word, props, changed)]));
  const problem = el("p", { class: "field-error", role: "alert", hidden: true });
  const clear = el("button", { class: "small", text: "Clear the filter", on: { click: () => changed(Object.fromEntries(WORDS.map((word) => [word, null])), { replace: false }) } });
  const summary = el("summary", { text: "Filter" });
  const details = el("details", { class: "filter-fields", open: matchMedia(WIDE).matches }, summary, el("div", { class: "filter-grid" }, Object.values(inputs).map(({ node }) => node), clear));
  const node = el("form", { class: "filter", role: "search", "aria-label": "Filter of tasks", on: { submit: (event) => event.preventDefault() } }, chips.node, details, problem);

  /** Shows a filter that came from elsewhere. */
  function set(filter) {
    chips.set(filter.state ?? "");
    for (const [word, { input }] of Object.entries(inputs)) if (document.activeElement !== input) input.value = filter[word] ?? "";
    const used = Object.keys(filter).filter((word) => word !== "state");
    summary.textContent = used.length ? `Filter: ${inWords({ ...filter, state: undefined })}` : "Filter";
    clear.hidden = Object.keys(filter).length === 0;
    tell(null);
  }
  /** Shows what is wrong with the filter. @param {Error|null} error */
  function tell(error) {
    for (const [word, { input }] of Object.entries(inputs)) input.setAttribute("aria-invalid", String(error?.field === word));
    problem.hidden = !error;
    problem.textContent = error ? `${FIELDS[error.field]?.label ?? "Filter"}: ${error.message}` : "";
    if (error && error.field in inputs) details.open = true;
  }
  return { node, set, tell, counts: chips.counts };
}

function field(word, { label, ...props }, changed) {
  const id = `filter-${word}`;
  let timer = null;
  const input = el("input", { id, type: "text", autocomplete: "off", spellcheck: "false", ...props, on: { input: later, change: now } });
  const list = names(word, `${id}-names`);
  if (list) {
    input.setAttribute("list", list.id);
    input.addEventListener("focus", () => replace(list, options(word)));
  }
  function later() {
    clearTimeout(timer);
    timer = setTimeout(now, AFTER);
  }
  function now() {
    clearTimeout(timer);
    changed({ [word]: input.value.trim() || null });
  }
  return { input, node: el("div", { class: "field" }, el("label", { for: id, text: label }), input, list) };
}

function names(word, id) {
  return word === "batch" || word === "worker" ? el("datalist", { id }) : null;
}

function options(word) {
  if (word === "batch") return batchNames();
  return [...live.workers.values()].map(({ name }) => el("option", { value: name }));
}

/** A button a state, with how many tasks are in it; several may be pressed. */
function stateChips(changed) {
  let chosen = new Set();
  let told = "";
  const chips = ORDER.map((state) => ({ state, node: el("button", { class: "chip", "aria-pressed": "false", on: { click: () => toggle(state) } }, badge(state)) }));
  function toggle(state) {
    if (!chosen.delete(state)) chosen.add(state);
    changed(ORDER.filter((it) => chosen.has(it)).join(","));
  }
  function set(text) {
    chosen = new Set(text.split(",").map((it) => it.trim()).filter(Boolean));
    for (const { state, node } of chips) node.setAttribute("aria-pressed", String(chosen.has(state)));
  }
  function counts(numbers) {
    const key = JSON.stringify(numbers);
    if (key === told) return;
    told = key;
    for (const { state, node } of chips) {
      replace(node, badge(state, { count: numbers[state] ?? 0 }));
      node.classList.toggle("none", !numbers[state]);
    }
  }
  return { node: el("div", { class: "chips", role: "group", "aria-label": "States" }, chips.map(({ node }) => node)), set, counts };
}
