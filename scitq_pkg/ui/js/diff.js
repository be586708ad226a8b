/** What changed between two texts: by lines, and within a changed line by words. All of it as text. */

import { el } from "./dom.js";
import { visible } from "./hidden.js";

const AROUND = 2; // unchanged lines that are shown around a change
const MOST_STEPS = 2_000; // insertions and deletions that are looked for; beyond, all is told as replaced

/**
 * @typedef {{kind: "same" | "gone" | "new", items: string[]}} Piece
 */

/**
 * Both texts, one under the other, what is gone and what is new marked by sign and colour.
 * @param {string} before
 * @param {string} after
 * @returns {HTMLElement}
 */
export function diff(before, after) {
  const pieces = differences(before.split("\n"), after.split("\n"));
  return el("div", { class: "diff" }, pieces.map((piece, index) => rows(piece, index, pieces)));
}

function rows(piece, index, pieces) {
  if (piece.kind === "same") return context(piece.items, index > 0, index < pieces.length - 1);
  const next = pieces[index + 1];
  if (piece.kind === "gone" && next?.kind === "new") return replaced(piece.items, next.items);
  if (piece.kind === "new" && pieces[index - 1]?.kind === "gone") return []; // shown with what it replaces
  return piece.items.map((line) => row(piece.kind, [mark(piece.kind, line)]));
}

function context(lines, hasBefore, hasAfter) {
  const head = hasBefore ? lines.slice(0, AROUND) : [];
  const tail = hasAfter ? lines.slice(Math.max(head.length, lines.length - AROUND)) : [];
  const left = lines.length - head.length - tail.length;
  const gap = left > 0 ? [el("div", { class: "diff-gap", text: `${left} unchanged line${left === 1 ? "" : "s"}` })] : [];
  return [...head.map(same), ...gap, ...tail.map(same)];
}

const same = (line) => row("same", [visible(line)]);

function replaced(gone, added) {
  const words = differences(gone.join("\n").split(WORDS), added.join("\n").split(WORDS));
  return [...marked("gone", words), ...marked("new", words)];
}

const WORDS = /(\s+|-+|[^\s\w]|\w+)/; // the dashes of an option are one

/** The lines of one side of a replacement, the words of its own marked. */
function marked(kind, pieces) {
  const lines = [[]];
  for (const piece of pieces) {
    if (piece.kind !== "same" && piece.kind !== kind) continue;
    piece.items.join("").split("\n").forEach((text, index) => {
      if (index) lines.push([]);
      if (text) lines.at(-1).push(piece.kind === "same" ? visible(text) : mark(kind, text));
    });
  }
  return lines.map((line) => row(kind, line));
}

function row(kind, content) {
  const sign = { same: " ", gone: "\u2212", new: "+" }[kind];
  const word = { same: "", gone: "before: ", new: "after: " }[kind];
  return el(
    "div",
    { class: `diff-row diff-${kind}` },
    el("span", { class: "diff-sign", "aria-hidden": "true", text: sign }),
    el("code", { class: "diff-text" }, word && el("span", { class: "unseen", text: word }), content),
  );
}

const mark = (kind, text) => el(kind === "gone" ? "del" : "ins", { text: visible(text) });

/**
 * What of two lists is the same, gone and new, in order.
 * @param {string[]} before
 * @param {string[]} after
 * @returns {Piece[]}
 */
export function differences(before, after) {
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start += 1;
  let end = 0;
  const most = Math.min(before.length, after.length) - start;
  while (end < most && before[before.length - 1 - end] === after[after.length - 1 - end]) end += 1;
  const middle = between(before.slice(start, before.length - end), after.slice(start, after.length - end));
  return joined([["same", before.slice(0, start)], ...middle, ["same", before.slice(before.length - end)]]);
}

function between(before, after) {
  const trace = shortest(before, after);
  return trace ? steps(trace, before, after) : [["gone", before], ["new", after]];
}

/** Myers' shortest script of edits: how far each diagonal comes with so many of them; null if that takes too many. */
function shortest(before, after) {
  const most = Math.min(before.length + after.length, MOST_STEPS);
  const reach = new Int32Array(2 * most + 3);
  const middle = most + 1;
  const trace = [];
  for (let edits = 0; edits <= most; edits += 1) {
    trace.push(reach.slice(middle - edits - 1, middle + edits + 2));
    for (let diagonal = -edits; diagonal <= edits; diagonal += 2) {
      const down = diagonal === -edits || (diagonal !== edits && reach[middle + diagonal - 1] < reach[middle + diagonal + 1]);
      let x = down ? reach[middle + diagonal + 1] : reach[middle + diagonal - 1] + 1;
      while (x < before.length && x - diagonal < after.length && before[x] === after[x - diagonal]) x += 1;
      reach[middle + diagonal] = x;
      if (x >= before.length && x - diagonal >= after.length) return trace;
    }
  }
  return null;
}

/** The way back through the trace, as [kind, items] in order. */
function steps(trace, before, after) {
  const found = [];
  let x = before.length;
  let y = after.length;
  for (let edits = trace.length - 1; edits >= 0; edits -= 1) {
    const at = (diagonal) => trace[edits][diagonal + edits + 1];
    const diagonal = x - y;
    const down = diagonal === -edits || (diagonal !== edits && at(diagonal - 1) < at(diagonal + 1));
    const from = down ? at(diagonal + 1) : at(diagonal - 1);
    const fromY = from - (down ? diagonal + 1 : diagonal - 1);
    const first = edits ? (down ? from : from + 1) : 0;
    found.push(["same", before.slice(first, x)]);
    if (edits) found.push(down ? ["new", [after[fromY]]] : ["gone", [before[from]]]);
    x = from;
    y = fromY;
  }
  return found.reverse();
}

/** Neighbours of one kind as one piece; of a run of changes first what is gone, then what is new. */
function joined(found) {
  const pieces = [];
  let gone = [];
  let added = [];
  const flush = () => {
    if (gone.length) pieces.push({ kind: "gone", items: gone });
    if (added.length) pieces.push({ kind: "new", items: added });
    [gone, added] = [[], []];
  };
  for (const [kind, items] of found) {
    if (kind === "gone") gone = gone.concat(items);
    else if (kind === "new") added = added.concat(items);
    else if (items.length) {
      flush();
      const last = pieces.at(-1);
      if (last?.kind === "same") last.items = last.items.concat(items);
      else pieces.push({ kind: "same", items });
    }
  }
  flush();
  return pieces;
}
