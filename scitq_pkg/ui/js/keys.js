/** Keys: bound where they are meant, listed by `?`, silent where somebody types. */

import { el } from "./dom.js";

const SEQUENCE = 1200; // milliseconds between the two keys of "g o"
const NAMES = { ArrowDown: "↓", ArrowUp: "↑", ArrowLeft: "←", ArrowRight: "→", Enter: "Enter", Escape: "Esc", " ": "Space" };
const bound = new Set();
let first = null; // the first key of a sequence, and when it came

/**
 * Binds keys while `scope` is in the document: they fire when the focus is within it or nowhere.
 * @param {Element|null} scope null: everywhere, always
 * @param {Object<string, [string, Function]>} map `{"g o": ["Overview", fn], "j": ["", fn]}`; without words a key is not listed
 * @returns {() => void} off
 */
export function keys(scope, map) {
  forgetGone();
  const entry = { scope, map, seen: false };
  bound.add(entry);
  return () => bound.delete(entry);
}

/** All that `?` tells, as a list of [key, what]. */
export function listed() {
  const rows = new Map();
  for (const { scope, map } of bound) {
    if (scope && !scope.isConnected) continue;
    for (const [key, [what]] of Object.entries(map)) if (what) rows.set(what, (rows.get(what) ?? new Set()).add(key));
  }
  return [...rows].map(([what, names]) => [[...names], what]);
}

/** Shows what keys there are. */
export function help() {
  const rows = listed().map(([names, what]) => el("tr", null, el("td", null, names.map(key)), el("td", null, what)));
  const close = el("button", { class: "primary", autofocus: true, on: { click: () => dialog.close() } }, "Close");
  const dialog = el(
    "dialog",
    { class: "dialog", "aria-labelledby": "keys-title", on: { close: () => dialog.remove() } },
    el("h2", { id: "keys-title" }, "Keys"),
    el("table", { class: "keys" }, el("tbody", null, rows)),
    el("div", { class: "dialog-buttons" }, close),
  );
  document.body.append(dialog);
  dialog.showModal();
}

/** Nodes that were shown once and are not any more. */
function forgetGone() {
  for (const entry of bound) {
    if (entry.scope?.isConnected) entry.seen = true;
    else if (entry.seen) bound.delete(entry);
  }
}

function key(name) {
  return el("span", { class: "key-set" }, name.split(" ").map((part) => el("kbd", null, NAMES[part] ?? (part || "Space"))));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
  if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
  const now = event.timeStamp;
  const both = first && now - first.at < SEQUENCE ? `${first.key} ${event.key}` : null;
  const done = (both && fire(both, event)) || fire(event.key, event);
  first = done || event.key.length > 1 ? null : { key: event.key, at: now };
});

function fire(name, event) {
  for (const { scope, map } of [...bound].reverse()) {
    if (!Object.hasOwn(map, name) || !isMeant(scope, event.target)) continue;
    if (map[name][1](event) === false) continue; // not now: let others have it
    event.preventDefault();
    return true;
  }
  return false;
}

function isMeant(scope, target) {
  if (!scope) return true;
  return scope.isConnected && (scope.contains(target) || target === document.body || target.id === "main");
}

function isTyping(target) {
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) && !/^(checkbox|radio|button|submit)$/.test(target.type);
}
