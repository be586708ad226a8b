/** The steps of a batch, each after those that it needs. */

import { el } from "./dom.js";
import { count } from "./format.js";
import { link } from "./router.js";
import { stackedBar } from "./states.js";

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

/** Text as a glob that means itself. */
export const asGlob = (text) => text.replace(/[[*?]/g, "[$&]");

/**
 * A list of steps: indented by what must come before, each with its counts, leading to its tasks.
 * @param {string} batch
 * @param {{step: string|null, counts: object, needs: (string|null)[]}[]} items
 */
export function stepList(batch, items) {
  return el("ol", { class: "steps" }, inOrder(items).map(({ item, depth }) => stepLine(batch, item, depth)));
}

function stepLine(batch, item, depth) {
  const total = Object.values(item.counts).reduce((sum, number) => sum + number, 0);
  const needs = item.needs.filter((need) => need !== item.step);
  return el("li", { style: { "--depth": String(Math.min(depth, 8)) } },
    el("span", { class: "step-name" }, depth ? el("span", { class: "muted", "aria-hidden": "true", text: "↳ " }) : null, stepLink(batch, item.step)),
    el("span", { class: "step-bar" }, stackedBar(item.counts)),
    el("span", { class: "num", text: `${count(item.counts.succeeded ?? 0)} of ${count(total)}` }),
    el("span", { class: "muted step-needs", text: needs.length ? `after ${needs.map(calledStep).join(", ")}` : "" }));
}

const calledStep = (step) => step ?? "tasks without a name";

function stepLink(batch, step) {
  if (step === null) return el("span", { class: "muted", text: calledStep(step) });
  const query = new URLSearchParams({ batch, name: `${asGlob(step)}*` });
  return link(`/tasks?${query}`, step);
}
