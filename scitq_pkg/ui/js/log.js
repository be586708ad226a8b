/** What a command writes, live: one pane a stream, followed by long polls; whatever it wrote is text. */

import { raw } from "./api.js";
import { Feed, firstLine } from "./logfeed.js";
import { Finder } from "./logfind.js";
import { save } from "./download.js";
import { failed } from "./dialogs.js";
import { bytes } from "./format.js";
import { el, replace, show } from "./dom.js";
import { FINAL } from "./states.js";

const STREAMS = ["stdout", "stderr"];
const ENDED = new Set([...FINAL, "lost"]);
const PART = 512 * 1024; // bytes that are asked for at once
const EARLIER = PART / 2; // of what was before
const BEHIND = 4 * PART; // further behind a live output its end is shown, not all in between
const MOST_BYTES = 5 * 2 ** 20; // in the page, or
const MOST_LINES = 200_000;
const HEAD = 32 * 2 ** 20; // the server keeps so much from the beginning, and so much of the end
const SMALL = 16 * 1024; // bytes up to which pieces are put together
const WAIT = 25; // seconds a request is held
const REST = 300; // milliseconds between two requests
const AGAIN = 3000; // milliseconds after no answer

/**
 * The output of one execution.
 * @param {{id: number, state: string, stdout_size: number, stderr_size: number}} execution
 * @param {{stream?: string|null, onStream?: (stream: string) => void}} options
 * @returns {{node: HTMLElement, update: (execution: object) => void, stop: () => void, focusSearch: () => void, toggleFollow: () => void}}
 */
export function log(execution, { stream = null, onStream = () => {} } = {}) {
  const panes = Object.fromEntries(STREAMS.map((name) => [name, new Pane(execution, name, changed)]));
  const body = el("div", { class: "log-panes" });
  const finder = new Finder(() => shown().map((pane) => pane.searchable()), (place) => reveal(place));
  const tabs = tabList(choose);
  const follow = button("Follow", () => toggleFollow(), { title: "Keep the newest line in view; scrolling up pauses" });
  const wrap = button("Wrap", () => setWrap(!body.classList.contains("wrap")), { title: "Break long lines" });
  const download = button("Download", () => saveAll(), { title: "The kept output, byte for byte" });
  const bar = el("div", { class: "log-bar" }, tabs.node, el("span", { class: "row" }, follow, wrap, download), finder.node);
  const node = el("div", { class: "log" }, bar, body);
  let chosen = STREAMS.includes(stream) || stream === "both" ? stream : likely(execution);
  let told = stream !== null;

  const shown = () => (chosen === "both" ? STREAMS : [chosen]).map((name) => panes[name]);

  function choose(name) {
    told = true;
    onStream(name);
    open(name);
  }
  function open(name) {
    chosen = name;
    tabs.set(name);
    for (const pane of Object.values(panes)) if (!shown().includes(pane)) pane.rest();
    replace(body, shown().map((pane) => pane.node));
    for (const pane of shown()) pane.start();
    finder.again();
    changed();
  }
  function changed() {
    const following = shown().every((pane) => pane.following);
    const ended = shown().every((pane) => pane.ended);
    follow.setAttribute("aria-pressed", String(following && !ended));
    follow.textContent = ended ? "To the end" : following ? "Following" : "Follow";
    finder.soon();
  }
  function toggleFollow() {
    const on = shown().every((pane) => pane.ended) || !shown().every((pane) => pane.following);
    for (const pane of shown()) pane.follow(on);
  }
  function setWrap(on) {
    body.classList.toggle("wrap", on);
    wrap.setAttribute("aria-pressed", String(on));
    localStorage.setItem("scitq-wrap", on ? "yes" : "no");
  }
  function reveal(place) {
    for (const pane of shown()) if (pane.node.contains(place.startContainer)) pane.reveal(place);
  }
  async function saveAll() {
    download.disabled = true;
    try {
      for (const pane of shown()) await pane.download((part) => (download.textContent = `${Math.floor(100 * part)} %`));
    } catch (error) {
      failed(error);
    }
    download.disabled = false;
    download.textContent = "Download";
  }
  function update(row) {
    for (const name of STREAMS) panes[name].learn(row);
    tabs.sizes(row);
    const better = likely(row);
    if (!told && shown().every((pane) => pane.isEmpty()) && better !== chosen) open(better);
  }

  setWrap(localStorage.getItem("scitq-wrap") !== "no");
  tabs.sizes(execution);
  open(chosen);
  const stop = () => (Object.values(panes).forEach((pane) => pane.stop()), finder.stop());
  return { node, update, stop, toggleFollow, focusSearch: () => finder.focus() };
}

/** The stream that tells most: of what failed the errors, else what there is. */
function likely({ state, stdout_size: out, stderr_size: err }) {
  if (state === "failed" && err) return "stderr";
  return err && !out ? "stderr" : "stdout";
}

function button(text, click, props) {
  return el("button", { ...props, on: { click } }, text);
}

function tabList(choose) {
  const labels = { stdout: "stdout", stderr: "stderr", both: "both" };
  const parts = Object.entries(labels).map(([name, text]) => {
    const size = el("small", { class: "muted" });
    const tab = el("button", { "aria-pressed": "false", on: { click: () => choose(name) } }, text, " ", size);
    return { name, tab, size };
  });
  return {
    node: el("div", { class: "segments", role: "group", "aria-label": "Which output" }, parts.map((part) => part.tab)),
    set: (name) => parts.forEach((part) => part.tab.setAttribute("aria-pressed", String(part.name === name))),
    sizes: (row) => parts.forEach((part) => part.name !== "both" && (part.size.textContent = bytes(row[`${part.name}_size`] ?? 0))),
  };
}

/** One stream: what of it is in the page, and the requests that bring more. */
class Pane {
  following = true;
  ended = false; // all that will ever be is here
  #blocks = []; // {from, to, lines: how many, node}
  #feed = null;
  #size = 0;
  #state;
  #control = null; // of the request that waits
  #problem = "";

  constructor(execution, name, changed) {
    Object.assign(this, { id: execution.id, name, changed });
    this.#state = execution.state;
    this.#size = execution[`${name}_size`] ?? 0;
    this.earlier = el("button", { class: "log-more", on: { click: () => this.#loadEarlier() } });
    this.later = el("button", { class: "log-more", on: { click: () => this.follow(true) } });
    this.text = el("div", { class: "log-text" });
    this.tail = el("div", { class: "log-block" });
    this.status = el("p", { class: "log-status muted", role: "status" });
    this.scroller = el(
      "div",
      { class: "log-scroll", tabindex: "0", role: "region", "aria-label": `${name} of attempt ${execution.id}`, on: { scroll: () => this.#scrolled() } },
      this.earlier, this.text, this.tail,
    );
    this.node = el("section", { class: "log-pane", "aria-label": name }, el("h3", { text: name }), this.scroller, this.later, this.status);
    this.#hidden = () => (document.hidden ? this.#control?.abort() : this.#wake());
    document.addEventListener("visibilitychange", this.#hidden);
    this.#grown = new ResizeObserver(() => this.following && this.#toEnd());
    this.#grown.observe(this.text);
  }

  #hidden;
  #grown; // heights of blocks that were never shown are estimates until they are drawn
  #running = false;
  #stopped = false;
  #resting = true;
  #rouse = null;

  /** Begins, or goes on. */
  start() {
    this.#resting = false;
    if (!this.#feed) this.#beginAtEnd();
    if (!this.#running) this.#run();
    else this.#wake();
    if (this.following) this.#toEnd();
  }

  /** Asks for nothing until `start`. */
  rest() {
    this.#resting = true;
    this.#control?.abort();
  }

  stop() {
    this.#stopped = true;
    document.removeEventListener("visibilitychange", this.#hidden);
    this.#grown.disconnect();
    this.#control?.abort();
    this.#wake();
  }

  /** What the execution's row says now. */
  learn(row) {
    this.#size = Math.max(this.#size, row[`${this.name}_size`] ?? 0);
    if (row.state !== this.#state) {
      this.#state = row.state;
      if (!this.ended) this.#tell();
    }
  }

  isEmpty() {
    return this.#blocks.length === 0 && !this.tail.hasChildNodes();
  }

  follow(on) {
    this.following = on;
    if (on && this.#isBehind()) this.#beginAtEnd();
    if (on) this.#toEnd();
    this.#wake();
    if (!on) this.#control?.abort();
    this.#tell();
  }

  searchable() {
    return this.text;
  }

  reveal(range) {
    this.following = false;
    this.#tell();
    const block = range.startContainer.parentElement.closest(".log-block");
    block?.scrollIntoView({ block: "nearest" });
    const place = range.getBoundingClientRect();
    const frame = this.scroller.getBoundingClientRect();
    this.scroller.scrollTop += place.top - frame.top - frame.height / 3;
    if (!this.scroller.classList.contains("wrap")) this.scroller.scrollLeft += Math.max(0, place.right - frame.right + 40);
  }

  // --- asking ---------------------------------------------------------------------------------------------------

  async #run() {
    this.#running = true;
    while (!this.#stopped) {
      if (this.#resting || document.hidden || !this.following || this.ended) await this.#woken();
      else await this.#step();
    }
    this.#running = false;
  }

  #woken() {
    return new Promise((resolve) => (this.#rouse = resolve));
  }

  #wake() {
    this.#rouse?.();
    this.#rouse = null;
  }

  async #step() {
    const feed = this.#feed;
    try {
      const part = await this.#ask({ offset: feed.next, limit: PART, wait: WAIT });
      this.#problem = "";
      if (feed !== this.#feed) return; // begun anew meanwhile
      this.#take(part);
      await sleep(part.data.length < PART ? REST : 0);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#problem = error.message;
      this.ended = error.status === 404 || error.status === 401;
      this.#tell();
      if (!this.ended) await sleep(AGAIN);
    }
  }

  async #ask(query) {
    this.#control = new AbortController();
    const response = await raw(`/executions/${this.id}/${this.name}`, query, { signal: this.#control.signal });
    const data = new Uint8Array(await response.arrayBuffer());
    const number = (name) => Number(response.headers.get(`X-Scitq-${name}`));
    const part = { data, offset: number("Offset"), next: number("Next"), size: number("Size"), state: response.headers.get("X-Scitq-State") };
    this.#size = Math.max(this.#size, part.size);
    this.#state = part.state;
    return part;
  }

  // --- what is in the page ----------------------------------------------------------------------------------------

  #beginAtEnd() {
    this.#blocks = [];
    replace(this.text);
    replace(this.tail);
    const offset = Math.max(0, this.#size - PART);
    this.#feed = new Feed(offset);
    this.#cut = offset > 0;
    this.ended = false;
    this.#control?.abort();
    this.#tell();
  }

  #cut = false; // the next bytes begin within a line

  #take({ data, offset, size, state }) {
    let bytes = data;
    if (offset > this.#feed.next) this.#passOver(offset);
    if (this.#cut && bytes.length) bytes = this.#fromFirstLine(bytes, offset);
    this.#show(this.#feed.take(bytes));
    if (ENDED.has(state) && this.#feed.next >= size) this.#finish();
    else if (size - this.#feed.next > BEHIND && !ENDED.has(state)) return this.#beginAtEnd();
    this.#showTail();
    if (this.following) this.#toEnd();
    this.#tell();
  }

  #fromFirstLine(bytes, offset) {
    this.#cut = false;
    const start = offset === 0 ? 0 : firstLine(bytes);
    this.#feed = new Feed(offset + start);
    return bytes.subarray(start);
  }

  /** Bytes that the server did not keep. */
  #passOver(offset) {
    this.#show(this.#feed.rest());
    if (this.#blocks.length) this.text.append(gap(offset - this.#blocks.at(-1).to));
    this.#feed = new Feed(offset);
    this.#cut = true;
  }

  #finish() {
    this.#show(this.#feed.rest());
    this.ended = true;
  }

  #show(blocks) {
    for (const block of blocks) {
      const last = this.#blocks.at(-1);
      if (last && last.to === block.from && block.to - last.from < SMALL) join(last, block);
      else {
        this.#blocks.push(drawn(block));
        this.text.append(this.#blocks.at(-1).node);
      }
    }
    this.#trim(() => this.#dropFirst());
  }

  #showTail() {
    replace(this.tail, drawLines(this.#feed.unfinished()));
  }

  #trim(drop) {
    let lines = this.#blocks.reduce((sum, block) => sum + block.lines, 0);
    let size = this.#blocks.reduce((sum, block) => sum + block.to - block.from, 0);
    while (this.#blocks.length > 1 && (lines > MOST_LINES || size > MOST_BYTES)) {
      const block = drop();
      lines -= block.lines;
      size -= block.to - block.from;
    }
  }

  #dropFirst() {
    const block = this.#blocks.shift();
    while (this.text.firstChild !== block.node) this.text.firstChild.remove(); // a gap before it
    block.node.remove();
    return block;
  }

  #dropLast() {
    const block = this.#blocks.pop();
    while (this.text.lastChild !== block.node) this.text.lastChild.remove();
    block.node.remove();
    return block;
  }

  get #first() {
    return this.#blocks[0]?.from ?? this.#feed?.next ?? 0;
  }

  /** Whether later output than the page shows is not the next that comes: it was dropped for earlier one. */
  #isBehind() {
    return this.#blocks.length > 0 && this.#blocks.at(-1).to < this.#feed.next && !this.tail.hasChildNodes();
  }

  async #loadEarlier() {
    this.following = false;
    this.earlier.disabled = true;
    try {
      await this.#before(this.#first);
    } catch (error) {
      if (error.name !== "AbortError") failed(error);
    }
    this.earlier.disabled = false;
    this.#tell();
  }

  async #before(end) {
    let offset = Math.max(0, end - EARLIER);
    let part = await this.#ask({ offset, limit: end - offset });
    let missing = 0;
    if (part.offset >= end) {
      missing = end - HEAD; // nothing between is kept: it goes on at the end of the head
      offset = HEAD - EARLIER;
      part = await this.#ask({ offset, limit: EARLIER });
    }
    const isCut = part.offset === offset && offset > 0; // else it begins where the output does, or what is kept of its end
    this.#prepend(part, isCut ? firstLine(part.data) : 0, missing);
  }

  #prepend(part, start, missing) {
    const feed = new Feed(part.offset + start);
    const blocks = [...feed.take(part.data.subarray(start)), ...feed.rest()].map(drawn);
    const anchor = this.text.firstElementChild;
    const before = anchor?.getBoundingClientRect().top ?? 0;
    this.text.prepend(...blocks.map((block) => block.node), ...(missing > 0 ? [gap(missing)] : []));
    this.#blocks.unshift(...blocks);
    this.#trim(() => this.#dropLatest());
    if (anchor?.isConnected) this.scroller.scrollTop += anchor.getBoundingClientRect().top - before;
    this.changed();
  }

  #dropLatest() {
    replace(this.tail);
    this.ended = false;
    return this.#dropLast();
  }

  // --- how it is shown --------------------------------------------------------------------------------------------

  #toEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const atEnd = scrollHeight - scrollTop - clientHeight < 24;
    const up = scrollTop < this.#lastTop - 2;
    this.#lastTop = scrollTop;
    if (this.following && up && !atEnd) this.follow(false);
    else if (!this.following && atEnd && !up && !this.#isBehind()) this.follow(true);
  }

  #lastTop = 0;

  #tell() {
    const first = this.#first;
    show(this.earlier, first > 0 && !this.isEmpty());
    this.earlier.textContent = `Load earlier output (${bytes(first)} before this)`;
    show(this.later, this.#isBehind());
    this.later.textContent = "Later output is not loaded: to the end";
    this.status.textContent = this.#words();
    this.node.classList.toggle("empty-log", this.isEmpty());
    this.changed();
  }

  #words() {
    if (this.#problem) return `${this.#problem}${this.ended ? "" : " Trying again."}`;
    const over = ENDED.has(this.#state);
    if (this.isEmpty() && this.#size === 0) return over ? `It wrote nothing to ${this.name}.` : `Nothing was written to ${this.name} yet.`;
    if (this.ended) return `The end: ${bytes(this.#size)} in all.`;
    if (this.following) return over ? "Loading." : "Following: new output appears here.";
    return over ? "" : "Paused here: scroll to the end, or press Follow, to go on.";
  }

  /** Every kept byte, as a file. */
  async download(progress) {
    const parts = [];
    for (let offset = 0; ; ) {
      const response = await raw(`/executions/${this.id}/${this.name}`, { offset });
      const data = await response.arrayBuffer();
      const skipped = Number(response.headers.get("X-Scitq-Skipped"));
      if (skipped && data.byteLength) parts.push(`\n[... ${skipped} bytes were not kept ...]\n`);
      if (!data.byteLength) break;
      parts.push(data);
      offset = Number(response.headers.get("X-Scitq-Next"));
      progress(Math.min(1, offset / Math.max(1, Number(response.headers.get("X-Scitq-Size")))));
    }
    save(`execution-${this.id}.${this.name}.txt`, parts, "text/plain");
  }
}

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function gap(missing) {
  return el("div", { class: "log-gap", text: `${bytes(missing)} were not kept: the server keeps the first and the last ${bytes(HEAD)}` });
}

function drawn({ from, to, lines }) {
  return { from, to, lines: lines.length, endsEmpty: endsEmpty(lines), node: el("div", { class: "log-block", style: { "--lines": lines.length } }, drawLines(lines)) };
}

/** Many small pieces become one node; where the last line is empty its end is written already. */
function join(last, { to, lines }) {
  if (lines.length) {
    last.node.append(last.lines && !last.endsEmpty ? "\n" : "", ...drawLines(lines));
    last.node.normalize();
    last.endsEmpty = endsEmpty(lines);
  }
  last.lines += lines.length;
  last.to = to;
}

const endsEmpty = (lines) => lines.length > 0 && lines.at(-1).length === 0;

/** Lines as few nodes: plain text in one, a span for each run in colour. */
function drawLines(lines) {
  const nodes = [];
  let plain = "";
  const flush = () => {
    if (plain) nodes.push(document.createTextNode(plain));
    plain = "";
  };
  lines.forEach((runs, index) => {
    if (index) plain += "\n";
    for (const run of runs) {
      if (!run.style) plain += run.text;
      else flush(), nodes.push(el("span", { class: run.style, text: run.text }));
    }
  });
  if (endsEmpty(lines)) plain += "\n"; // an empty last line has its height too
  flush();
  return nodes;
}
