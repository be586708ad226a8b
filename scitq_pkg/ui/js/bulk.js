/** What can be done to many tasks: asked of the server first without doing it, told in words, then done to exactly these. */

import { post } from "./api.js";
import { confirm, failed, form, toast } from "./dialogs.js";
import { el } from "./dom.js";
import { count } from "./format.js";
import { live } from "./live.js";

const REASONS = 8; // different ones that are told
const NAMED = 4; // ids that are named with a reason

/**
 * Which tasks: `{ids: [3, 4]}` or `{filter: {batch: "reads", state: "failed"}}`; an empty filter means all.
 * @typedef {{ids?: number[], filter?: object}} Target
 */

const signal = (action) => ({ path: "/tasks/signal", body: { action } });

/** What happens to one task (`one`) or to several (`many`), in words; `done`: how it is told afterwards. */
export const ACTIONS = {
  relaunch: {
    path: "/tasks/relaunch", verb: "Relaunch", done: "queued again",
    one: "It is queued as new, with all its retries. What earlier attempts wrote stays readable; files at its output are written over.",
    many: "They are queued as new, with all their retries. What earlier attempts wrote stays readable; files at their outputs are written over.",
  },
  suspend: {
    ...signal("suspend"), verb: "Suspend", done: "being suspended", back: "resume",
    one: "Its processes stand still, and keep slot and memory until it is resumed.",
    many: "Their processes stand still, and keep slots and memory until they are resumed.",
  },
  resume: { ...signal("resume"), verb: "Resume", done: "being resumed", back: "suspend", one: "Its processes go on.", many: "Their processes go on." },
  term: {
    ...signal("term"), verb: "Terminate", done: "asked to end", danger: true,
    one: "Its command is asked to end (SIGTERM), and killed if it is still there after 10 seconds. It counts as failed and is not tried again by itself.",
    many: "Their commands are asked to end (SIGTERM); what is still there after 10 seconds is killed. They count as failed and are not tried again by themselves.",
  },
  kill: {
    ...signal("kill"), verb: "Kill", done: "being killed", danger: true,
    one: "Its command is ended at once (SIGKILL). It counts as failed and is not tried again by itself.",
    many: "Their commands are ended at once (SIGKILL). They count as failed and are not tried again by themselves.",
  },
  cancel: {
    path: "/tasks/cancel", verb: "Cancel", no: "Leave as it is", done: "canceled", danger: true,
    one: "If it waits it never starts, if it runs it is ended at once. Relaunching brings it back.",
    many: "What waits never starts, what runs is ended at once. Relaunching brings them back.",
  },
  delete: {
    path: "/tasks/delete", verb: "Delete", done: "deleted", danger: true,
    one: "The task, all its attempts and what they wrote to stdout and stderr are gone for good; if it runs it is ended first. Files at its output stay.",
    many: "The tasks, all their attempts and what they wrote to stdout and stderr are gone for good; what runs is ended first. Files at their outputs stay.",
  },
};

/** "1 task", "12 tasks". */
export function tasks(n) {
  return `${count(n)} task${n === 1 ? "" : "s"}`;
}

/** One task by its id, several by their number. */
const these = (ids) => (ids.length === 1 ? `task ${ids[0]}` : tasks(ids.length));

const capital = (text) => text[0].toUpperCase() + text.slice(1);

/** What a request calls its tasks. @param {Target} target */
export function selection({ ids, filter }) {
  if (ids) return { ids };
  return { filter: Object.keys(filter).length ? filter : { name: "*" } };
}

/**
 * Does one of ACTIONS, after saying what it will do to how many. About one task, if nothing is lost by it, nobody is asked.
 * @param {string} name
 * @param {Target} target
 * @param {boolean} isHarmless for these tasks; that which can be taken back is for all
 * @returns {Promise<number[]|null>} the ids it was done to; null when it was not done
 */
export async function act(name, target, isHarmless = Boolean(ACTIONS[name].back)) {
  const action = ACTIONS[name];
  try {
    const plan = await post(action.path, { ...selection(target), ...action.body, dry_run: true });
    if (!plan.ids.length) return nothing(action.verb, plan.skipped);
    const silent = plan.ids.length === 1 && !plan.skipped.length && isHarmless;
    const verb = `${action.verb} ${these(plan.ids)}`;
    const does = plan.ids.length === 1 ? action.one : action.many;
    if (!silent && !(await confirm({ title: `${verb}?`, body: told(does, plan), verb, danger: action.danger, no: action.no }))) return null;
    const done = await post(action.path, { ids: plan.ids, ...action.body });
    report(`${capital(these(done.ids))} ${action.done}.`, done, action.back && (() => post(action.path, { ids: done.ids, action: action.back }).catch(failed)));
    return done.ids;
  } catch (error) {
    failed(error);
    return null;
  }
}

/** Moves tasks to another batch. @param {Target} target */
export async function move(target) {
  try {
    const plan = await post("/tasks/edit", { ...selection(target), set: {}, dry_run: true });
    if (!plan.ids.length) return nothing("Move", plan.skipped);
    const values = await form({
      title: `Move ${these(plan.ids)} to another batch`,
      body: el("div", null, told("The workers of that batch take over. A batch that does not exist yet is made.", plan)),
      fields: [{ name: "batch", label: "Batch", required: true, list: [...live.batches.keys()].sort() }],
      verb: "Move",
    });
    const batch = values?.batch.trim();
    if (!batch) return null;
    const done = await post("/tasks/edit", { ids: plan.ids, set: { batch } });
    report(`${capital(these(done.ids))} moved to ${batch}.`, done);
    return done.ids;
  } catch (error) {
    failed(error);
    return null;
  }
}

/** Says what was done, and in a dialog what was left out meanwhile. */
export function report(text, { skipped }, undo = null) {
  toast(skipped.length ? `${text} ${count(skipped.length)} left out: ${skipped[0].why}.` : text, { kind: skipped.length ? "info" : "ok", undo });
}

/** Says that nothing can be done, and why. */
export async function nothing(verb, skipped) {
  const body = el("div", null, reasons(skipped) ?? el("p", { text: "No task passes the filter any more." }));
  await confirm({ title: `Nothing to ${verb.toLowerCase()}`, body, verb: "OK", no: null });
  return null;
}

/** What will be done, and what will be left out with the reasons. */
export function told(does, { skipped }) {
  return el("div", null, el("p", { text: does }), reasons(skipped));
}

/**
 * Which tasks are left out and why, those with the same reason together.
 * @param {{id: number, why: string}[]} skipped
 * @returns {HTMLElement|null}
 */
export function reasons(skipped) {
  if (!skipped.length) return null;
  const groups = grouped(skipped);
  const lines = [...groups.values()].slice(0, REASONS).map(reason);
  const more = groups.size > REASONS ? el("li", { text: `and ${count(groups.size - REASONS)} other reasons` }) : null;
  return el("div", { class: "skipped" }, el("p", { text: `${tasks(skipped.length)} left out:` }), el("ul", null, lines, more));
}

const keyOf = ({ why }) => why.replace(/\d+/g, "#"); // "task 5 waits for it" is one reason whichever task it is

function grouped(skipped) {
  const groups = new Map();
  for (const one of skipped) {
    const key = keyOf(one);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(one);
  }
  return groups;
}

function reason(group) {
  const named = group.slice(0, NAMED).map(({ id }) => id).join(", ");
  const more = group.length > NAMED ? ` and ${count(group.length - NAMED)} more` : "";
  return el("li", { text: `${named}${more}: ${group[0].why}` });
}
