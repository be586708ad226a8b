/** The steps of a batch, each after those that it needs. */

import { el } from "./dom.js";
import { count, total } from "./format.js";
import { named } from "./hidden.js";
import { link } from "./router.js";
import { stackedBar } from "./states.js";

const FEW = 60; // lines

/**
 * Steps in an order in which each comes after what it needs, with how deep it lies; steps that need each other in a circle come as they may.
 * @param {{step: string|null, counts: object, needs: (string|null)[]}[]} items
 * @returns {{item: object, depth: number}[]}
 */
export function inOrder(items) {
  const byStep = new Map(items.map((item) => [item.step, item]));
  const depths = new Map();
  const depthOf = (step, above) => {
    if (depths.has(step)) return depths.get(step);
    if (above.has(step)) return 0; // a circle
    const inner = new Set(above).add(step);
    const needs = (byStep.get(step)?.needs ?? []).filter((need) => need !== step && byStep.has(need));
    const depth = needs.length ? 1 + Math.max(...needs.map((need) => depthOf(need, inner))) : 0;
    depths.set(step, depth);
    return depth;
  };
  const found = items.map((item) => ({ item, depth: depthOf(item.step, new Set()) }));
  return found.sort((one, other) => one.depth - other.depth);
}

/** Whether the names of tasks tell steps: where each task has a name of its own they do not. */
export function areSteps(items) {
  const tasks = items.reduce((sum, item) => sum + total(item.counts), 0);
  return items.length > 1 && (items.length <= tasks / 2 || (items.length <= FEW && items.some((item) => item.needs.length)));
}

/**
 * A list of steps: indented by what must come before, each with its counts, leading to its tasks.
 * @param {string} batch
 * @param {{step: string|null, counts: object, needs: (string|null)[]}[]} items
 */
export function stepList(batch, items) {
  const lines = inOrder(items);
  const more = lines.length > FEW ? el("li", { class: "muted", text: `and ${count(lines.length - FEW)} more` }) : null;
  return el("ol", { class: "steps" }, lines.slice(0, FEW).map(({ item, depth }) => stepLine(batch, item, depth)), more);
}

function stepLine(batch, item, depth) {
  const needs = item.needs.filter((need) => need !== item.step);
  return el("li", { style: { "--depth": String(Math.min(depth, 8)) } },
    el("span", { class: "step-name" }, depth ? el("span", { class: "muted", "aria-hidden": "true", text: "↳ " }) : null, stepLink(batch, item)),
    el("span", { class: "step-bar" }, stackedBar(item.counts)),
    el("span", { class: "num", text: `${count(item.counts.succeeded ?? 0)} of ${count(total(item.counts))}` }),
    el("span", { class: "muted step-needs", text: needs.length ? `after ${needs.map(calledStep).join(", ")}` : "" }));
}

const calledStep = (step) => (step === null ? "tasks without a name" : named(step));

function stepLink(batch, { step, name }) {
  if (name === null) return el("span", { class: "muted", text: calledStep(step) });
  return link(`/tasks?${new URLSearchParams({ batch, name })}`, calledStep(step));
}
