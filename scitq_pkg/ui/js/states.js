/** States as colour, glyph and word. */

import { el, svg } from "./dom.js";
import { count as number } from "./format.js";

/** All states of tasks, in the order in which they are shown: what is done first, what is to do last. */
export const ORDER = ["succeeded", "failed", "canceled", "uploading", "running", "accepted", "assigned", "pending", "waiting"];
/** States of a task that a worker has: it cannot be changed. */
export const HELD = new Set(["assigned", "accepted", "running", "uploading"]);
/** States of a task that nothing but a person will change. */
export const FINAL = new Set(["succeeded", "failed", "canceled"]);
/** States of workers. */
export const WORKER_ORDER = ["online", "draining", "unfit", "offline", "deploying", "destroying"];

const RING = "M8 2.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 1 1 0-11";
const SHAPES = {
  waiting: [{ d: RING, dash: "1.6 2.72" }],
  pending: [{ d: RING }],
  assigned: [{ d: RING }, { d: "M8 8V2.5A5.5 5.5 0 0 1 13.5 8z", fill: true }],
  accepted: [{ d: RING }, { d: "M8 2.5a5.5 5.5 0 0 1 0 11z", fill: true }],
  running: [{ d: "M4.5 2.8v10.4L13.2 8z", fill: true }],
  uploading: [{ d: "M8 13.5V3.5M3.8 7.4 8 3.2l4.2 4.2" }],
  succeeded: [{ d: "M2.8 8.6 6.4 12.2 13.2 4.4" }],
  failed: [{ d: "M3.6 3.6l8.8 8.8M12.4 3.6l-8.8 8.8" }],
  canceled: [{ d: RING }, { d: "M4.2 11.8l7.6-7.6" }],
  lost: [{ d: "M5.2 5.6a2.8 2.8 0 1 1 4.2 2.4C8.4 8.6 8 9 8 10M8 12.6v.4" }],
  suspended: [{ d: "M5.4 3.2v9.6M10.6 3.2v9.6" }],
  online: [{ d: RING, fill: true }],
  draining: [{ d: "M8 2.5v10M3.8 8.4 8 12.6l4.2-4.2" }],
  unfit: [{ d: "M8 2.2 14.2 13.4H1.8z" }, { d: "M8 6.4v3.4M8 11.4v.6" }],
  offline: [{ d: RING }, { d: "M5.6 5.6l4.8 4.8M10.4 5.6l-4.8 4.8" }],
  deploying: [{ d: RING, dash: "1.6 2.72" }, { d: "M8 11V5.4M5.6 7.6 8 5.2l2.4 2.4" }],
  destroying: [{ d: RING, dash: "1.6 2.72" }, { d: "M6 6l4 4M10 6l-4 4" }],
  stopped: [{ d: "M4 4h8v8H4z", fill: true }],
};

/**
 * The drawing of a state, for the eye only: the word stands beside it.
 * @returns {SVGElement}
 */
export function glyph(state) {
  const paths = (SHAPES[state] ?? SHAPES.lost).map(({ d, fill, dash }) =>
    svg("path", { d, fill: fill ? "currentColor" : "none", stroke: "currentColor", "stroke-dasharray": dash }),
  );
  return svg("svg", { class: "glyph", viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true", "stroke-width": 2 }, ...paths);
}

/**
 * A state: glyph, word, colour; `count` of tasks in it; a mark when it is suspended.
 * @returns {HTMLElement}
 */
export function badge(state, { suspended = false, count = null } = {}) {
  const shown = suspended ? "suspended" : state;
  return el(
    "span",
    { class: "badge", data: { state: shown } },
    glyph(shown),
    count === null ? null : el("span", { class: "badge-count" }, number(count)),
    el("span", { class: "badge-word" }, suspended && state !== "running" ? `${state}, suspended` : shown),
  );
}

/** `{succeeded: 12, failed: 3}` as "12 succeeded, 3 failed". */
export function inWords(counts) {
  const parts = ORDER.filter((state) => counts[state] > 0).map((state) => `${number(counts[state])} ${state}`);
  return parts.length ? parts.join(", ") : "no tasks";
}

/**
 * The shares of the states in a line.
 * @returns {HTMLElement}
 */
export function stackedBar(counts) {
  const words = inWords(counts);
  const parts = ORDER.filter((state) => counts[state] > 0).map((state) =>
    el("span", { data: { state }, style: { "flex-grow": String(counts[state]) }, title: `${number(counts[state])} ${state}` }),
  );
  return el("div", { class: "bar", role: "img", "aria-label": words }, parts);
}
