/** The command and all properties of one task, to change: what somebody types stays, whatever the server tells meanwhile. */

import { patch } from "./api.js";
import { diff } from "./diff.js";
import { failed, toast } from "./dialogs.js";
import { el, replace, show } from "./dom.js";
import { COMMAND, FIELDS, control, readField } from "./fields.js";
import { hidesSomething, visible } from "./hidden.js";
import { FINAL, HELD } from "./states.js";

const MOST_ROWS = 16;

export class Properties {
  #task = null;
  #controls = new Map(); // field name -> {field, input, shown: the text of the server's value}

  /** @param {(task: object) => void} saved is given the task as it is then */
  constructor(saved) {
    this.saved = saved;
    this.why = el("p", { class: "muted" });
    this.hidden = el("p", { class: "warning", hidden: true });
    this.difference = el("div", { class: "preview", hidden: true });
    this.command = el("fieldset", { class: "bare" }, this.#control(COMMAND, "mono command-text"));
    this.others = el("fieldset", { class: "bare properties" }, FIELDS.map((field) => this.#control(field)));
    this.told = el("span", { role: "status" });
    this.save = this.#button("Save", false);
    this.relaunch = this.#button("Save and relaunch", true, "primary");
    const revert = el("button", { text: "Revert", on: { click: () => this.#revert() } });
    this.bar = el("div", { class: "save-bar", hidden: true }, this.told, el("span", { class: "grow" }), revert, this.save, this.relaunch);
    this.commandNode = el("div", { on: { input: () => this.#typed() } }, this.why, this.command, this.hidden, this.difference);
    this.othersNode = el("div", { on: { input: () => this.#typed() } }, this.others);
  }

  /** Shows what the server has; a control that was changed is left as it is. */
  update(task) {
    this.#task = task;
    for (const entry of this.#controls.values()) {
      const text = String(entry.field.show(task[entry.field.name]));
      if (entry.input.value === entry.shown || entry.shown === null) entry.input.value = text;
      entry.shown = this.#asTyped(entry.input, text);
      if (entry.input.tagName === "TEXTAREA") fit(entry.input);
    }
    const held = HELD.has(task.state);
    this.command.disabled = this.others.disabled = held;
    this.why.textContent = held ? `It is ${task.state}: to change it, cancel it first or wait for its end.` : "";
    show(this.why, held);
    this.relaunch.hidden = !FINAL.has(task.state);
    show(this.hidden, hidesSomething(task.command));
    if (!this.hidden.hidden) this.hidden.textContent = `It holds characters that are not seen, or that turn the direction of writing: ${visible(task.command).slice(0, 2000)}`;
    this.#typed();
  }

  focusCommand() {
    this.#controls.get("command").input.focus();
  }

  /** What a control makes of a text: a textarea has its own ends of lines. */
  #asTyped(input, text) {
    return input.tagName === "TEXTAREA" ? text.replace(/\r\n?/g, "\n") : input.type === "text" ? text.replace(/[\r\n]/g, "") : text;
  }

  #control(field, extra = "") {
    const { node, input } = control(field);
    if (extra) input.className = extra;
    this.#controls.set(field.name, { field, input, shown: null });
    return node;
  }

  #button(text, relaunch, kind = "") {
    return el("button", { class: kind, text, on: { click: () => this.#save(relaunch) } });
  }

  #dirty() {
    return [...this.#controls.values()].filter(({ input, shown }) => shown !== null && input.value !== shown);
  }

  #typed() {
    const dirty = this.#dirty();
    show(this.bar, dirty.length > 0 && !this.command.disabled);
    this.told.textContent = `Changed: ${dirty.map(({ field }) => field.label.toLowerCase()).join(", ")}`;
    for (const { field, input } of this.#controls.values()) input.closest(".field").classList.toggle("dirty", dirty.some((entry) => entry.field === field));
    const { input, shown } = this.#controls.get("command");
    const changed = input.value !== shown && !this.command.disabled;
    show(this.difference, changed);
    if (changed) replace(this.difference, diff(shown, input.value));
  }

  #revert() {
    for (const entry of this.#controls.values()) entry.input.value = entry.shown;
    this.#typed();
  }

  async #save(relaunch) {
    this.save.disabled = this.relaunch.disabled = true;
    try {
      const changes = Object.fromEntries(this.#dirty().map(({ field, input }) => [field.name, readField(field, input.value)]));
      const task = await patch(`/tasks/${this.#task.id}`, { ...changes, ...(relaunch ? { relaunch: true } : {}) });
      for (const entry of this.#controls.values()) entry.shown = null;
      this.update(task);
      toast(relaunch ? "Saved, and queued again." : "Saved.");
      this.saved(task);
    } catch (error) {
      if (error.code || error.name === "ApiError") failed(error);
      else toast(error.message, { kind: "failed" }); // what was typed cannot be read
    }
    this.save.disabled = this.relaunch.disabled = false;
  }
}

function fit(input) {
  const lines = input.value.split("\n").reduce((sum, line) => sum + 1 + Math.floor(line.length / 100), 0);
  input.rows = Math.min(MOST_ROWS, Math.max(2, lines));
}
