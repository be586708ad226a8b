/** The properties of a task: what they are called, how they are typed in, what is sent. */

import { el } from "./dom.js";
import { live } from "./live.js";
import { asRanges } from "./failures.js";

const MOST_IDS = 100_000;
let serial = 0;

/**
 * `show(value)` is the text of a control, `read(text)` what is sent; it throws an Error that says what is wrong.
 * @typedef {{name: string, label: string, kind: string, hint?: string, choices?: string[][], show: (value: any) => string, read: (text: string) => any}} Field
 */

const text = { kind: "text", show: (value) => value ?? "", read: (it) => (it === "" ? null : it) };
const needed = { ...text, read: (it) => (it.trim() === "" ? wrong("is empty") : it) };
const whole = { kind: "number", show: String, read: (it) => number(it, /^-?\d+$/, "wants a whole number") };
const seconds = {
  kind: "text",
  show: (value) => (value === null || value === undefined ? "" : String(value)),
  read: (it) => (it.trim() === "" ? null : secondsOf(it.trim())),
};
const identity = { kind: "text", show: (value) => value ?? "", read: (it) => (it.trim() === "" ? null : number(it, /^\d+$/, "wants a number")) };
const uris = { kind: "lines", show: (value) => (value ?? []).join("\n"), read: (it) => it.split(/\s+/).filter(Boolean) };
const variables = { kind: "lines", show: variablesAsText, read: variablesOf };

/** @type {Field[]} in the order in which they are shown; the command has a place of its own */
export const FIELDS = [
  { name: "name", label: "Name", ...text },
  { name: "batch", label: "Batch", ...needed, kind: "batch" },
  { name: "priority", label: "Priority", hint: "higher first", ...whole },
  { name: "retry", label: "Retries", hint: "failures that are tried again", ...whole },
  { name: "require", label: "Needs", hint: "tasks that must succeed first: 3,5-9", kind: "text", show: asRanges, read: idsOf },
  { name: "shell", label: "Shell", ...text, kind: "choice", choices: [["", "none: run directly"], ["sh", "sh"], ["bash", "bash"]] },
  { name: "container", label: "Container", hint: "image", ...text },
  { name: "container_options", label: "Container options", ...text },
  { name: "input", label: "Inputs", hint: "URIs, one a line", ...uris },
  { name: "resource", label: "Resources", hint: "URIs, one a line; fetched once per worker", ...uris },
  { name: "output", label: "Output", hint: "URI of the folder that receives $OUTPUT", ...text },
  { name: "env", label: "Variables", hint: "NAME=value, one a line", ...variables },
  { name: "workdir", label: "Working directory", hint: "absolute, on the worker", ...text },
  { name: "run_timeout", label: "Run time at most", hint: "90, 5m, 2h; empty: no limit", ...seconds },
  { name: "download_timeout", label: "Download time at most", hint: "90, 5m, 2h; empty: no limit", ...seconds },
  { name: "uid", label: "User id", ...identity },
  { name: "gid", label: "Group id", ...identity },
  { name: "use_cache", label: "Use cache", kind: "choice", choices: [["no", "no"], ["yes", "yes: take the outputs of an equal task"]], show: (value) => (value ? "yes" : "no"), read: (it) => it === "yes" },
];

/** The command, for those who change it among the others. @type {Field} */
export const COMMAND = { name: "command", label: "Command", ...needed, kind: "lines" };

/**
 * A labelled control of a field.
 * @param {Field} field
 * @returns {{node: HTMLElement, input: HTMLInputElement}}
 */
export function control(field) {
  const id = `property-${(serial += 1)}`;
  const hint = field.hint ? el("small", { class: "hint", id: `${id}-hint`, text: field.hint }) : null;
  const props = { id, name: field.name, spellcheck: "false", autocomplete: "off", "aria-describedby": hint?.id };
  const input = inputOf(field, props);
  const names = field.kind === "batch" ? el("datalist", { id: `${id}-names` }, batchNames()) : null;
  if (names) input.setAttribute("list", names.id);
  return { input, node: el("div", { class: "field" }, el("label", { for: id, text: field.label }), input, names, hint) };
}

/** Options with the names of all batches. */
export function batchNames() {
  return [...live.batches.keys()].sort().map((name) => el("option", { value: name }));
}

function inputOf({ kind, choices }, props) {
  if (kind === "lines") return el("textarea", { ...props, rows: 2 });
  if (kind === "choice") return el("select", props, choices.map(([value, label]) => el("option", { value, text: label })));
  return el("input", { type: kind === "number" ? "number" : "text", ...props });
}

/** What is sent for the text of a control; the error names the field. */
export function readField(field, typed) {
  try {
    return field.read(typed);
  } catch (error) {
    throw new Error(`${field.label}: ${error.message}`, { cause: error });
  }
}

function wrong(what) {
  throw new Error(what);
}

function number(typed, form, what) {
  return form.test(typed.trim()) ? Number(typed) : wrong(what);
}

const UNITS = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };

function secondsOf(typed) {
  if (/^\d+(\.\d+)?$/.test(typed)) return Number(typed);
  if (!/^(\d+(\.\d+)?[smhdw])+$/.test(typed)) wrong("wants seconds, or a time such as 5m or 1h30m");
  return [...typed.matchAll(/([\d.]+)([smhdw])/g)].reduce((sum, [, amount, unit]) => sum + Number(amount) * UNITS[unit], 0);
}

function idsOf(typed) {
  const ids = [];
  for (const part of typed.split(/[\s,]+/).filter(Boolean)) {
    const match = /^(\d{1,10})(?:-(\d{1,10}))?$/.exec(part) ?? wrong(`${part} is no id and no range of ids, such as 5 or 3-9`);
    const [first, last] = [Number(match[1]), Number(match[2] ?? match[1])];
    if (last - first + ids.length > MOST_IDS) wrong(`names more than ${MOST_IDS} tasks`);
    for (let id = first; id <= last; id += 1) ids.push(id);
  }
  return ids;
}

/** Lines of NAME=value, or JSON when a value has lines of its own. */
function variablesAsText(value) {
  const pairs = Object.entries(value ?? {});
  const plain = pairs.every(([name, it]) => !/[\r\n]/.test(it) && !/^\s*[{#]/.test(name) && name === name.trim());
  return plain ? pairs.map(([name, it]) => `${name}=${it}`).join("\n") : JSON.stringify(value, null, 1);
}

function variablesOf(typed) {
  if (typed.trim().startsWith("{")) return JSON.parse(typed);
  const found = {};
  for (const line of typed.split("\n").filter((it) => it.trim())) {
    const at = line.indexOf("=");
    if (at < 1) wrong(`${line.slice(0, 40)} is not NAME=value`);
    found[line.slice(0, at).trim()] = line.slice(at + 1);
  }
  return found;
}
