/** Finds a text in what a log shows: how many times, the next, the one before. It marks without changing the text. */

import { count } from "./format.js";
import { el } from "./dom.js";

const MOST = 5_000; // places that are marked
const canMark = typeof Highlight === "function" && "highlights" in CSS;

export class Finder {
  #places = [];
  #at = -1;
  #timer = null;

  /**
   * @param {() => HTMLElement[]} where the elements whose text is searched, now
   * @param {(place: Range) => void} reveal brings a place into view
   */
  constructor(where, reveal) {
    Object.assign(this, { where, reveal });
    this.input = el("input", {
      type: "search", placeholder: "Find in the output", "aria-label": "Find in the output", spellcheck: "false",
      on: { input: () => this.#search(true), keydown: (event) => this.#key(event) },
    });
    this.told = el("output", { class: "muted log-found", "aria-live": "polite" });
    const step = (text, label, by) => el("button", { "aria-label": label, title: label, on: { click: () => this.#go(by) } }, text);
    this.node = el("span", { class: "log-find" }, this.input, this.told, step("↑", "Found before", -1), step("↓", "Found next", 1));
  }

  focus() {
    this.input.focus();
    this.input.select();
  }

  /** Searches again, other text is shown. */
  again() {
    this.#search(false);
  }

  /** Searches again in a while: more text came. */
  soon() {
    if (this.#timer || !this.input.value) return;
    this.#timer = setTimeout(() => ((this.#timer = null), this.again()), 500);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#mark([]);
  }

  #key(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      this.#go(event.shiftKey ? -1 : 1);
    } else if (event.key === "Escape" && this.input.value) {
      event.preventDefault();
      this.input.value = "";
      this.#search(true);
    }
  }

  #search(fresh) {
    const current = this.#places[this.#at];
    this.#places = this.input.value ? this.where().flatMap((node) => placesIn(node, this.input.value)).slice(0, MOST) : [];
    this.#at = current && !fresh ? this.#places.findIndex((place) => isSame(place, current)) : -1;
    this.#mark(this.#places);
    this.#tell();
  }

  #go(by) {
    if (!this.#places.length) return;
    const total = this.#places.length;
    this.#at = this.#at < 0 ? total - 1 : (this.#at + by + total) % total; // an output is read from its end
    this.#mark(this.#places);
    this.#tell();
    this.reveal(this.#places[this.#at]);
  }

  #mark(places) {
    if (!canMark) return;
    CSS.highlights.set("log-found", new Highlight(...places));
    CSS.highlights.set("log-current", new Highlight(...(places[this.#at] ? [places[this.#at]] : [])));
  }

  #tell() {
    const total = this.#places.length;
    const all = total >= MOST ? `${count(MOST)}+` : count(total);
    this.told.textContent = !this.input.value ? "" : total === 0 ? "none in what is loaded" : this.#at < 0 ? all : `${count(this.#at + 1)} of ${all}`;
  }
}

const isSame = (one, other) => one.startContainer === other.startContainer && one.startOffset === other.startOffset;

/** Every place of a text below a node, in capital or small letters, across spans. */
function placesIn(node, wanted) {
  const expression = new RegExp(wanted.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&"), "gi");
  const found = [];
  for (const block of node.children) {
    if (found.length >= MOST) break;
    const texts = textNodes(block);
    const text = texts.map((part) => part.data).join("");
    const at = positions(texts);
    for (const match of text.matchAll(expression)) {
      found.push(range(at(match.index), at(match.index + match[0].length - 1)));
      if (found.length >= MOST) break;
    }
  }
  return found;
}

function textNodes(block) {
  const walker = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) found.push(walker.currentNode);
  return found;
}

/** Finds the text node of a character; asked about in rising order. */
function positions(texts) {
  let index = 0;
  let start = 0;
  return (place) => {
    while (place >= start + texts[index].length) {
      start += texts[index].length;
      index += 1;
    }
    return { node: texts[index], offset: place - start };
  };
}

/** From the first character to the last one. */
function range(first, last) {
  const made = document.createRange();
  made.setStart(first.node, first.offset);
  made.setEnd(last.node, last.offset + 1);
  return made;
}
