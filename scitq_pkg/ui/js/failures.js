/** Failures of a batch in groups of the same end and the same last line, and what to do about each. */

import { act } from "./bulk.js";
import { el } from "./dom.js";
import { count } from "./format.js";
import { named } from "./hidden.js";
import { go, link } from "./router.js";
import { table } from "./table.js";

const SIGNALS = { 1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 24: "SIGXCPU", 25: "SIGXFSZ" };

const COLOURS = /\x1b\[[0-9;:?#]*[ -/]*[@-~]/g; // of terminals
const NUMBERS = /0x[0-9a-f]+|\d+/gi;
/** The same group later, whichever of its lines is the newest then. */
export const keyOf = (group) => JSON.stringify([group.batch, group.exit_code, group.signal, group.last_line?.replace(NUMBERS, "#")]);
const LEAST = 4; // characters that tell a line from others
/** What the last lines of all of a group hold: the longest part between numbers. */
const common = (group) => (group.pattern?.split("#") ?? [group.last_line ?? ""]).reduce((one, other) => (other.length > one.length ? other : one));
const isWhole = (group) => group.task_ids.length >= group.count;

/** How the tasks of a group ended: "exit code 1", "SIGKILL". */
export function ending(group) {
  if (group.signal) return SIGNALS[group.signal] ?? `signal ${group.signal}`;
  return group.exit_code === null ? "not run" : `exit code ${group.exit_code}`;
}

/** `3,5-9` of ids. */
export function asRanges(ids) {
  const ranges = [];
  for (const id of [...ids].sort((one, other) => one - other)) {
    const last = ranges.at(-1);
    if (last && last[1] === id - 1) last[1] = id;
    else ranges.push([id, id]);
  }
  return ranges.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(",");
}

/** What finds a group, and perhaps others where its lines have little in common. */
function filterOf(batch, group) {
  const filter = { batch, state: "failed" };
  if (group.exit_code !== null) filter.exit_code = String(group.exit_code);
  if (common(group)) filter.grep = common(group);
  return filter;
}

/** Which tasks a group is, as ids when all are named or nothing else finds them, and as a filter otherwise. */
export function chosen(batch, group) {
  const filter = filterOf(batch, group);
  const isVague = group.pattern ? common(group).length < LEAST : !filter.exit_code && !filter.grep;
  return isWhole(group) || isVague ? { ids: group.task_ids } : { filter };
}

/** The page of tasks that shows a group. */
export function addressOf(batch, group) {
  const query = isWhole(group) ? { batch, state: "failed", ids: asRanges(group.task_ids) } : filterOf(batch, group);
  return `/tasks?${new URLSearchParams(query)}`;
}

/**
 * The table of failures.
 * @param {string} batch
 * @param {(batch: string, which: object) => Promise<void>} edit edits and relaunches
 * @returns {{node: Node, update: (groups: object[]) => void}}
 */
export function failureTable(batch, edit) {
  const shown = table({
    caption: `Failures of ${batch}, the most frequent first`,
    columns: [
      { key: "count", label: "Tasks", class: "num", cell: (group) => link(addressOf(batch, group), count(group.count)) },
      { key: "ending", label: "Ended with", class: "ending", cell: ending },
      { key: "last_line", label: "Last line", class: "lastline", cell: lastLine },
      { key: "actions", label: "What to do", class: "actions", cell: (group) => actions(batch, group, edit) },
    ],
    key: keyOf,
    onOpen: (group) => go(addressOf(batch, group)),
    empty: "Nothing failed.",
  });
  return { node: shown.node, update: (groups) => shown.update(groups, {}) };
}

function lastLine(group) {
  if (group.last_line) return el("code", { class: "clip", title: group.reason ?? group.last_line, text: named(lineOf(group)) });
  return el("span", { class: "muted", text: group.reason ?? "it wrote nothing" });
}

/** The last line of all of a group; where they differ in numbers, `#` stands for each. */
export function lineOf(group) {
  return (group.pattern ?? group.last_line).replace(COLOURS, "");
}

function actions(batch, group, edit) {
  const button = (text, title, work) => el("button", { class: "small", title, text, on: { click: work } });
  const newest = group.task_ids.at(-1);
  const what = ending(group) + (group.last_line ? `: ${lineOf(group)}` : "");
  return el("span", { class: "row" },
    button("Relaunch", `Queue them again: ${what}`, () => act("relaunch", chosen(batch, group))),
    button("Edit and relaunch", `Change their commands or properties first: ${what}`, () => edit(batch, chosen(batch, group))),
    link(`/tasks/${newest}`, "Show one"));
}
