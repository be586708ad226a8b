/** One task: where it is and why, what it writes, all it was given, every attempt. */

import { get } from "./api.js";
import { COLUMNS, phases, phasesOf, transfers, uri, usage } from "./attempts.js";
import { ACTIONS, act, move } from "./bulk.js";
import { failed, toast } from "./dialogs.js";
import { el, replace, show } from "./dom.js";
import { ago, count, when } from "./format.js";
import { named } from "./hidden.js";
import { keys } from "./keys.js";
import { log } from "./log.js";
import { Properties } from "./properties.js";
import { refresher } from "./refresh.js";
import { go, link, query, setQuery } from "./router.js";
import { FINAL, HELD, badge } from "./states.js";
import { table } from "./table.js";

const ATTEMPTS = 200;
const RELATED = 50; // tasks that it needs, or that need it, which are shown

/** @param {object} ctx */
export async function page(ctx) {
  const id = Number(ctx.params.id);
  const task = await get(`/tasks/${encodeURIComponent(ctx.params.id)}`);
  return new TaskPage(ctx, id).start(task);
}

class TaskPage {
  #task = null;
  #executions = []; // the newest first
  #log = null;
  #logOf = null; // id of the execution whose output is shown
  #handed = null; // modified_at of the task when its line was asked for

  constructor(ctx, id) {
    Object.assign(this, { ctx, id });
    this.badge = el("span");
    this.heading = el("h1");
    this.sentence = el("p", { class: "sentence", role: "status" });
    this.actions = el("div", { class: "row", role: "group", "aria-label": "What is done to this task" });
    this.phases = el("div");
    this.output = el("div");
    this.outputTitle = el("h2", { text: "Output" });
    this.properties = new Properties((task) => this.#showTask(task));
    this.attempts = table({ columns: COLUMNS, key: (row) => row.id, onOpen: (row) => this.#choose(row.id), caption: "Attempts, the newest first", empty: "It has not been given to a worker yet." });
    this.usage = el("dl", { class: "facts" });
    this.data = el("div");
    this.related = el("div");
    this.hand = el("div");
    this.about = el("dl", { class: "facts" });
  }

  start(task) {
    const { ctx } = this;
    const section = (title, ...content) => el("section", { class: "card" }, typeof title === "string" ? el("h2", { text: title }) : title, content);
    const wide = [section("Phases", this.phases), section(this.outputTitle, this.output), section("Command", this.properties.commandNode), section("Properties", this.properties.othersNode), section("Try it by hand", this.hand)];
    const side = [section("Attempts", this.attempts.node), this.used = section("Used", this.usage), section("Inputs and outputs", this.data), section("Dependencies", this.related), section("About", this.about)];
    replace(ctx.main,
      el("div", { class: "page-head" }, this.heading, this.badge), this.sentence, this.actions,
      el("div", { class: "task-columns" }, el("div", null, wide), el("div", null, side)), this.properties.bar);
    this.#showTask(task);
    const again = refresher(ctx, () => this.#load(), (error) => this.#told(error));
    ctx.listen("tasks", again);
    ctx.onQuery(() => this.#showAttempt());
    ctx.every(1, () => this.#tick());
    ctx.onLeave(() => this.#log?.stop());
    this.#bindKeys();
  }

  #bindKeys() {
    keys(this.ctx.main, {
      f: ["Follow the output, or pause", () => this.#log?.toggleFollow()],
      s: ["Find in the output", () => this.#log?.focusSearch()],
      e: ["Edit the command", () => this.properties.focusCommand()],
      r: ["Relaunch", () => (FINAL.has(this.#task.state) ? this.#do("relaunch") : false)],
    });
  }

  async #load() {
    const [task, explained, executions] = await Promise.all([
      get(`/tasks/${this.id}`), get(`/tasks/${this.id}/explain`), get("/executions", { task: this.id, order: "-id", limit: ATTEMPTS }),
    ]);
    this.#executions = executions.items;
    if (this.explained !== explained.sentence) replace(this.sentence, withCode(explained.sentence));
    this.explained = explained.sentence;
    this.#showTask(task);
    this.attempts.update(this.#executions, { more: null });
    this.#showAttempt();
    await Promise.all([this.#showRelated(), this.#showHand()]);
  }

  #told(error) {
    if (error?.status === 404) {
      this.sentence.textContent = "This task was deleted.";
      replace(this.actions, link("/tasks", "To all tasks"));
      this.#log?.stop();
    } else if (error && error.status !== 0 && error.status !== 401) failed(error);
  }

  // --- the task ---------------------------------------------------------------------------------------------------

  #showTask(task) {
    const before = this.#task;
    this.#task = task;
    if (JSON.stringify(before) === JSON.stringify(task)) return;
    this.ctx.title(`${task.id} ${named(task.name ?? "")}`.trim());
    replace(this.heading, `Task ${task.id}`, task.name ? [" ", el("bdi", { class: "task-name", title: named(task.name), text: named(task.name) })] : null);
    replace(this.badge, badge(task.state, { suspended: task.suspended }));
    if (before?.state !== task.state || before?.suspended !== task.suspended) this.#showActions(task);
    this.properties.update(task);
    this.#showAbout(task);
    this.#showPhases();
  }

  #showActions({ state, suspended }) {
    const button = (name, danger = ACTIONS[name].danger) => el("button", { class: danger ? "danger" : null, text: ACTIONS[name].verb, title: ACTIONS[name].one, on: { click: () => this.#do(name) } });
    const mover = el("button", { text: "Move…", title: "To another batch", on: { click: () => move({ ids: [this.id] }).then(() => this.#load()) } });
    const names = FINAL.has(state) ? ["relaunch"] : state === "running" ? [suspended ? "resume" : "suspend", "term", "kill", "cancel"] : ["cancel"];
    replace(this.actions, names.map((name) => button(name)), HELD.has(state) ? null : mover, button("delete"));
  }

  async #do(name) {
    const failedBefore = name === "relaunch" && this.#task.state !== "succeeded"; // what a success left is not written over by a key
    const ids = await act(name, { ids: [this.id] }, failedBefore || undefined);
    if (!ids) return;
    if (name === "delete") go(`/tasks?batch=${encodeURIComponent(this.#task.batch)}`);
    else await this.#load().catch(failed);
  }

  #showAbout(task) {
    const batch = el("bdi", null, link(`/batches/${encodeURIComponent(task.batch)}`, named(task.batch)));
    const facts = [["Batch", batch], ["Created", when(task.created_at)], ["Changed", when(task.modified_at)], ["In this state since", el("span", { title: task.state_at, text: ago(task.state_at) })], ["Attempts", count(task.attempts)], ["Failures", count(task.failures)], ["Lost workers", count(task.losses)]];
    replace(this.about, facts.map(([what, value]) => [el("dt", { text: what }), el("dd", null, value)]));
  }

  #tick() {
    if (!FINAL.has(this.#task.state)) this.#showPhases();
  }

  // --- the attempt that is shown ------------------------------------------------------------------------------------

  #chosen() {
    const wanted = Number(query().get("attempt"));
    return this.#executions.find(({ id }) => id === wanted) ?? this.#executions[0] ?? null;
  }

  #choose(id) {
    setQuery({ attempt: id === this.#executions[0]?.id ? null : id }, { replace: false });
    this.#showAttempt();
  }

  #showPhases() {
    const at = this.#executions.indexOf(this.#chosen());
    const isCurrent = at <= 0 && !["waiting", "pending"].includes(this.#task.state);
    const chosen = query().has("attempt") || isCurrent || FINAL.has(this.#task.state) ? this.#executions[at] : null;
    const list = chosen ? phasesOf(this.#task, chosen, this.#executions[at + 1] ?? null) : [{ name: this.#task.state, state: this.#task.state, from: this.#task.state_at, to: null }];
    replace(this.phases, list.length ? phases(list) : el("p", { class: "muted", text: "Nothing is known of them." }));
  }

  #showAttempt() {
    const execution = this.#chosen();
    this.#showPhases();
    this.#showData(execution);
    show(this.used, Boolean(execution?.started_at));
    replace(this.usage, execution ? usage(execution).map(([what, much]) => [el("dt", { text: what }), el("dd", { text: much })]) : null);
    for (const tr of this.attempts.node.querySelectorAll("tbody tr")) tr.toggleAttribute("aria-current", tr.rowKey === execution?.id);
    this.outputTitle.textContent = this.#executions.length > 1 ? `Output of attempt ${execution.attempt}` : "Output";
    if (execution?.id === this.#logOf && this.#log) return this.#log.update(execution);
    this.#log?.stop();
    this.#logOf = execution?.id ?? null;
    this.#log = execution ? log(execution, { stream: query().get("stream"), onStream: (stream) => setQuery({ stream }) }) : null;
    replace(this.output, this.#log?.node ?? el("p", { class: "muted", text: "No worker has it yet: what its command writes appears here." }));
  }

  #showData(execution) {
    const { input, resource, output } = this.#task;
    const list = (title, uris) => (uris.length ? [el("h3", { text: title }), el("ul", { class: "uris" }, uris.map((one) => el("li", null, uri(one))))] : null);
    const moved = execution?.transfers?.length ? [el("h3", { text: "Transfers of this attempt" }), transfers(execution.transfers)] : null;
    const parts = [list("Inputs", input), list("Resources", resource), list("Output", output ? [output] : []), moved].filter(Boolean);
    const content = parts.length ? parts : [el("p", { class: "muted", text: "It has neither inputs nor an output: nothing is moved." })];
    const text = JSON.stringify([input, resource, output, execution?.transfers]);
    if (this.dataShown !== text) replace(this.data, content);
    this.dataShown = text;
  }

  // --- its neighbours -----------------------------------------------------------------------------------------------

  async #showRelated() {
    const { require: needed } = this.#task;
    const [needs, needers] = await Promise.all([
      needed.length ? get("/tasks", { ids: needed.slice(0, RELATED).join(","), limit: RELATED }) : { items: [] },
      get("/tasks", { requires: this.id, limit: RELATED }),
    ]);
    const list = (title, items, more) => [el("h3", { text: title }), el("ul", { class: "related" }, items.map(neighbour), more ? el("li", { class: "muted", text: more }) : null)];
    const parts = [
      needs.items.length ? list("It needs", needs.items, needed.length > RELATED ? `and ${count(needed.length - RELATED)} more` : null) : null,
      needers.items.length ? list("Needed by", needers.items, needers.next === null ? null : "and more") : null,
    ].filter(Boolean);
    const key = JSON.stringify([needs.items, needers.items].map((items) => items.map(({ id, state, name }) => [id, state, name])));
    if (key !== this.relatedShown) replace(this.related, parts.length ? parts : el("p", { class: "muted", text: "It needs no other task, and none needs it." }));
    this.relatedShown = key;
  }

  async #showHand() {
    const { modified_at: modified } = this.#task;
    if (this.#handed === modified) return;
    const { line } = await get(`/tasks/${this.id}/by-hand`).catch((error) => ({ line: error.message }));
    this.#handed = modified;
    const text = el("pre", { class: "mono by-hand", tabindex: "0", text: line });
    const copy = el("button", { class: "small", text: "Copy", on: { click: () => copied(line, text) } });
    replace(this.hand, el("p", { class: "muted", text: "The same command on any machine, begun in an empty folder." }), el("div", { class: "hand-line" }, text, copy));
  }
}

/** A sentence of the server; what it puts between backticks is to be typed. */
function withCode(sentence) {
  return sentence.split("`").map((part, index) => (index % 2 ? el("code", { text: part }) : part));
}

function neighbour(task) {
  return el("li", null, link(`/tasks/${task.id}`, task.id), " ", badge(task.state), " ", task.name ? el("bdi", { text: named(task.name) }) : null);
}

async function copied(text, node) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied.");
  } catch {
    getSelection().selectAllChildren(node); // without HTTPS a browser lets no page copy: somebody presses Ctrl+C
    toast("It is marked: copy it with Ctrl+C.", { kind: "info" });
  }
}
