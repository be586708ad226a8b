/** Questions and answers: native dialogs, and toasts that a screen reader says. */

import { el, replace, show } from "./dom.js";

const SHOWN = 6000; // milliseconds of a toast
const SHOWN_FAILED = 15_000;
const PREVIEW_AFTER = 250;
const MANY = 5; // fields: more stand beside each other
let serial = 0;

/**
 * Asks before something is done. `body`: text or a node that says the consequence; `no`: the button that does nothing, null: there is none.
 * @returns {Promise<boolean>}
 */
export async function confirm({ title, body, verb, danger = false, no = "Cancel" }) {
  return (await ask({ title, content: [typeof body === "string" ? el("p", null, body) : body], verb, danger, no, values: () => true })) ?? false;
}

/**
 * Asks for values. A field: `{name, label, type, value, options, hint, required}`; types: text, number, textarea, select, checkbox, password...;
 * `options` are texts or [value, label]. `preview(values)` gives a node (or a promise of one) that shows what would be done. `work(values)` does it
 * while the dialog is there: what it refuses stands in it, to be mended.
 * @returns {Promise<any>} the values, or what `work` gave; null when nothing shall be done
 */
export async function form({ title, body, fields, verb, danger = false, preview = null, work = null }) {
  const made = fields.map((field) => ({ field, ...control(field) }));
  const values = () => Object.fromEntries(made.map(({ field, input }) => [field.name, valueOf(field, input)]));
  const shown = preview ? el("div", { class: "preview", "aria-live": "polite" }) : null;
  const controls = made.map(({ node }) => node);
  const content = [typeof body === "string" ? el("p", null, body) : body, controls.length > MANY ? el("div", { class: "form-grid" }, controls) : controls, shown];
  return ask({ title, content, verb, danger, values, work, changed: preview ? refresher(shown, preview, values) : null, wide: Boolean(preview) || controls.length > MANY });
}

/** Says something at the bottom for some seconds, and until somebody is there again. `kind`: "ok", "info", "failed"; `undo`: what takes it back. */
export function toast(text, { kind = "ok", undo = null } = {}) {
  const end = () => node.remove();
  const buttons = [
    undo && el("button", { class: "small", on: { click: () => (end(), undo()) } }, "Undo"),
    el("button", { class: "quiet small", "aria-label": "Dismiss", on: { click: end } }, "✕"),
  ];
  const node = el("div", { class: "toast", data: { kind }, role: kind === "failed" ? "alert" : null }, el("p", null, text), ...buttons);
  const seen = () => (node.matches(":hover, :focus-within") ? later() : end());
  const ripe = () => ["pointermove", "keydown"].forEach((sign) => addEventListener(sign, seen, { once: true }));
  const later = () => setTimeout(ripe, kind === "failed" ? SHOWN_FAILED : SHOWN);
  toasts(kind === "failed" ? "assertive" : "polite").append(node);
  later();
}

/** Shows what the API said. Other mistakes go to the console too. */
export function failed(error) {
  if (error.name === "AbortError") return;
  if (!error.code) console.error(error);
  toast(wording(error), { kind: "failed" });
}

const wording = ({ field, message }) => (field && !message.includes(field) ? `${field}: ${message}` : message);

function ask({ title, content, verb, danger, values, no = "Cancel", changed = null, wide = false, work = null }) {
  const id = `dialog-${++serial}`;
  const cancel = el("button", { autofocus: danger, hidden: no === null }, no ?? "");
  const ok = el("button", { type: "submit", class: danger ? "danger" : "primary" }, verb);
  const wrong = el("p", { class: "field-error", role: "alert", hidden: true });
  const inner = el("form", { method: "dialog" }, el("h2", { id }, title), content, wrong, el("div", { class: "dialog-buttons" }, cancel, ok));
  const dialog = el("dialog", { class: wide ? "dialog wide" : "dialog", "aria-labelledby": id }, inner);
  return new Promise((resolve) => {
    let answer = null;
    cancel.addEventListener("click", () => dialog.close());
    inner.addEventListener("submit", async (event) => {
      event.preventDefault();
      ok.disabled = true;
      show(wrong, false);
      try {
        answer = work ? await work(values()) : values();
        dialog.close();
      } catch (error) {
        if (!error.code) console.error(error);
        show(wrong, true).textContent = wording(error);
      } finally {
        ok.disabled = false;
      }
    });
    if (changed) inner.addEventListener("input", changed);
    dialog.addEventListener("close", () => (dialog.remove(), resolve(answer)));
    document.body.append(dialog);
    dialog.showModal();
    changed?.();
  });
}

/** The newest values win, however late the answer to older ones comes. */
function refresher(shown, preview, values) {
  let timer = 0;
  let newest = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const mine = ++newest;
      const node = await Promise.resolve(preview(values())).catch((error) => el("p", { class: "field-error" }, error.message));
      if (mine === newest) replace(shown, node);
    }, PREVIEW_AFTER);
  };
}

function control(field) {
  const id = `field-${++serial}`;
  const hint = field.hint ? el("small", { id: `${id}-hint`, class: "hint" }, field.hint) : null;
  const common = { id, name: field.name, required: field.required, "aria-describedby": hint?.id, autocomplete: "off" };
  const list = field.list && el("datalist", { id: `${id}-list` }, field.list.map((value) => el("option", { value })));
  const input = inputOf(field, { ...common, list: list?.id });
  const label = el("label", { for: id }, field.label);
  const parts = field.type === "checkbox" ? [el("div", { class: "check" }, input, label)] : [label, input];
  return { input, node: el("div", { class: "field" }, ...parts, list, hint) };
}

function inputOf(field, common) {
  const { type = "text", value = "", options = [], name, label, hint, ...more } = field;
  if (type === "select") {
    const made = options.map((option) => (Array.isArray(option) ? option : [option, option]));
    return el("select", common, made.map(([key, text]) => el("option", { value: key, selected: String(key) === String(value) }, text)));
  }
  if (type === "textarea") return el("textarea", { rows: 4, spellcheck: "false", ...more, ...common, value: value ?? "" });
  if (type === "checkbox") return el("input", { type, ...common, checked: Boolean(value) });
  return el("input", { type, spellcheck: "false", ...more, ...common, value: value ?? "" });
}

function valueOf(field, input) {
  if (field.type === "checkbox") return input.checked;
  if (field.type === "number") return input.value === "" ? null : Number(input.value);
  return input.value;
}

/** Where toasts stand; above a dialog that is open. */
function toasts(how) {
  const node = document.querySelector(`.toasts[aria-live=${how}]`) ?? el("div", { class: "toasts", "aria-live": how });
  const dialog = document.querySelector("dialog[open]");
  (dialog ?? document.body).append(node);
  dialog?.addEventListener("close", () => document.body.append(node), { once: true });
  return node;
}
