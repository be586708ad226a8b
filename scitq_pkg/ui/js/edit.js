/** Changes many tasks at once: sets fields, replaces in commands, after a look at each difference. */

import { post } from "./api.js";
import { nothing, reasons, report, selection, tasks } from "./bulk.js";
import { diff } from "./diff.js";
import { failed } from "./dialogs.js";
import { el, replace } from "./dom.js";
import { COMMAND, FIELDS, control, readField } from "./fields.js";
import { count } from "./format.js";

const SHOWN = 40; // differences
const AT_ONCE = 2_000; // tasks of which the differences are asked for while typing
const AFTER = 400; // milliseconds without a key
let serial = 0;

/** Edits tasks of a batch and queues them again. @param {string} batch @param {import("./bulk.js").Target} which */
export async function editAndRelaunch(batch, which) {
  return editMany(which, { relaunch: true, words: `of batch ${batch}` });
}

/**
 * The dialog; what it shows is what it does.
 * @param {import("./bulk.js").Target} target
 * @param {{relaunch?: boolean, words?: string}} options `words`: which tasks, after their number
 * @returns {Promise<number[]|null>} the ids of the tasks that were changed
 */
export async function editMany(target, { relaunch = false, words = "" } = {}) {
  try {
    const plan = await post("/tasks/edit", { ...selection(target), set: {}, dry_run: true });
    if (!plan.ids.length) return await nothing("Edit", plan.skipped);
    return await new Editing(plan, relaunch, words).ask();
  } catch (error) {
    failed(error);
    return null;
  }
}

class Editing {
  #rows = []; // fields to set: {field, input, node}
  #timer = null;
  #number = 0; // of the newest question to the server
  #ready = null; // {request, plan} that the button would do

  constructor(plan, relaunch, words) {
    this.plan = plan;
    const id = `edit-${(serial += 1)}`;
    const input = (props) => el("input", { spellcheck: "false", autocomplete: "off", ...props });
    this.pattern = input({ type: "text", id: `${id}-old`, class: "mono" });
    this.replacement = input({ type: "text", id: `${id}-new`, class: "mono" });
    this.everywhere = input({ type: "checkbox", id: `${id}-all`, checked: true });
    this.anyCase = input({ type: "checkbox", id: `${id}-case` });
    this.again = input({ type: "checkbox", id: `${id}-again`, checked: relaunch });
    this.more = el("select", { "aria-label": "Set another field", on: { change: () => this.#add() } });
    this.set = el("div", { class: "edit-set" });
    this.preview = el("div", { class: "preview", "aria-live": "polite" });
    this.look = el("button", { on: { click: () => this.#refresh() } }, "Show what would change");
    this.cancel = el("button", null, "Cancel");
    this.ok = el("button", { type: "submit", class: "primary" }, "Change");
    this.dialog = this.#dialog(id, words);
    this.#offer();
  }

  #dialog(id, words) {
    const check = (box, text) => el("div", { class: "check" }, box, el("label", { for: box.id, text }));
    const field = (box, text, hint) => el("div", { class: "field" }, el("label", { for: box.id, text }), box, hint && el("small", { class: "hint", text: hint }));
    const replacing = el("fieldset", null,
      el("legend", { text: "Search and replace in the commands" }),
      el("div", { class: "side" },
        field(this.pattern, "Search for", "a regular expression of Python; \\. is a dot, \\d+ a number"),
        field(this.replacement, "Replace with", "\\1 or \\g<name> is what a group found"),
        check(this.everywhere, "every place in a command"),
        check(this.anyCase, "ignore case")));
    const setting = el("fieldset", null, el("legend", { text: "Set fields" }), this.set, this.more);
    const form = el("form", { method: "dialog", on: { submit: (event) => this.#submit(event), input: () => this.#soon() } },
      el("h2", { id, text: `Edit ${tasks(this.plan.ids.length)} ${words}` }),
      reasons(this.plan.skipped), replacing, setting,
      check(this.again, "queue those that have ended again (relaunch)"),
      this.preview,
      el("div", { class: "dialog-buttons" }, this.look, el("span", { class: "grow" }), this.cancel, this.ok));
    return el("dialog", { class: "dialog wide", "aria-labelledby": id }, form);
  }

  /** @returns {Promise<number[]|null>} */
  ask() {
    return new Promise((resolve) => {
      this.done = null;
      this.cancel.addEventListener("click", () => this.dialog.close());
      this.dialog.addEventListener("close", () => {
        clearTimeout(this.#timer);
        this.dialog.remove();
        resolve(this.done);
      });
      document.body.append(this.dialog);
      this.dialog.showModal();
      this.pattern.focus();
      this.#soon();
    });
  }

  // --- the fields to set --------------------------------------------------------------------------------------------

  #offer() {
    const used = new Set(this.#rows.map((row) => row.field.name));
    const left = [COMMAND, ...FIELDS].filter((field) => !used.has(field.name));
    replace(this.more, el("option", { value: "", text: this.#rows.length ? "Set another field…" : "Choose a field to set…" }),
      left.map((field) => el("option", { value: field.name, text: field.label })));
  }

  #add() {
    const field = [COMMAND, ...FIELDS].find(({ name }) => name === this.more.value);
    if (!field) return;
    const made = control(field);
    const row = { field, input: made.input };
    const remove = el("button", { class: "quiet small", "aria-label": `Do not set ${field.label}`, text: "✕", on: { click: () => this.#remove(row) } });
    row.node = el("div", { class: "edit-row" }, made.node, remove);
    this.#rows.push(row);
    this.set.append(row.node);
    this.#offer();
    made.input.focus();
    this.#soon();
  }

  #remove(row) {
    row.node.remove();
    this.#rows = this.#rows.filter((other) => other !== row);
    this.#offer();
    this.#soon();
  }

  // --- what would be done -------------------------------------------------------------------------------------------

  /** The request, without its tasks; null: nothing is to be changed. */
  #request() {
    const request = { relaunch: this.again.checked };
    if (this.#rows.length) request.set = Object.fromEntries(this.#rows.map(({ field, input }) => [field.name, readField(field, input.value)]));
    if (this.pattern.value) {
      const pattern = (this.anyCase.checked ? "(?i)" : "") + this.pattern.value;
      request.sub = { pattern, replacement: this.replacement.value, count: this.everywhere.checked ? 0 : 1 };
    }
    return request.set || request.sub || request.relaunch ? request : null;
  }

  #soon() {
    clearTimeout(this.#timer);
    this.#number += 1;
    this.#offerToDo(null);
    const many = this.plan.ids.length > AT_ONCE && this.pattern.value !== "";
    this.look.hidden = !many;
    if (many) replace(this.preview, el("p", { class: "muted", text: "These are many commands: the differences are shown when you ask." }));
    else this.#timer = setTimeout(() => this.#refresh(), AFTER);
  }

  async #refresh() {
    const mine = (this.#number += 1);
    try {
      const request = this.#request();
      if (!request) return this.#tell(el("p", { class: "muted", text: "Nothing is changed yet: replace something, set a field, or relaunch." }));
      this.preview.setAttribute("aria-busy", "true");
      const plan = await post("/tasks/edit", { ids: this.plan.ids, ...request, dry_run: true });
      if (mine !== this.#number) return;
      this.#tell(shown(plan, request));
      this.#offerToDo(plan.ids.length ? { request, ids: plan.ids } : null);
    } catch (error) {
      if (mine === this.#number) this.#tell(el("p", { class: "field-error", text: error.message }));
    }
  }

  #tell(node) {
    this.preview.removeAttribute("aria-busy");
    replace(this.preview, node);
  }

  #offerToDo(ready) {
    this.#ready = ready;
    this.ok.disabled = !ready;
    const verb = this.#onlyRelaunches(ready) ? "Relaunch" : this.again.checked ? "Change and relaunch" : "Change";
    this.ok.textContent = ready ? `${verb} ${tasks(ready.ids.length)}` : verb;
  }

  #onlyRelaunches(ready) {
    return ready && !ready.request.set && !ready.request.sub;
  }

  async #submit(event) {
    event.preventDefault();
    if (!this.#ready) return;
    const { ids, request } = this.#ready;
    this.ok.disabled = true;
    try {
      const done = await post("/tasks/edit", { ids, ...request });
      this.done = done.ids;
      this.dialog.close();
      report(`${tasks(done.ids.length)} changed${request.relaunch ? "; what had ended is queued again" : ""}.`, done);
    } catch (error) {
      this.#offerToDo(this.#ready);
      this.#tell(el("p", { class: "field-error", role: "alert", text: error.message }));
    }
  }
}

/** How many change, what is left out, and the differences of the commands. */
function shown(plan, request) {
  const changes = plan.changes ?? [];
  const head = changes.length || !request.sub ? `${tasks(plan.ids.length)} would change.` : "The expression finds nothing in these commands.";
  const list = changes.slice(0, SHOWN).map(({ id, before, after }) => el("section", { class: "change" }, el("h3", { text: `Task ${id}` }), diff(before, after)));
  const more = changes.length > SHOWN ? el("p", { class: "muted", text: `and ${count(changes.length - SHOWN)} more, changed in the same way` }) : null;
  return el("div", null, el("p", { text: head }), reasons(plan.skipped), list, more);
}
