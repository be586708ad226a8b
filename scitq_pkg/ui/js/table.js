/** Tables that live: rows are updated in place, and none moves while somebody is at them. */

import { el, replace, show } from "./dom.js";
import { count } from "./format.js";
import { keys } from "./keys.js";

/** The table whose rows the pointer is over, and the tables of the page that hold back something. */
let held = null;
const waiting = new Set();

const CONTROLS = "a, button, input, select, textarea, summary";

/**
 * A table of rows.
 *
 * A column: `{key, label, cell(row) -> node or text, sort, class, narrow, head}`; `sort`: true, or `row => value`; `narrow`: "hide" leaves it out on narrow
 * screens, "title" makes it the first line there; `head`: its cells name their rows.
 * While the pointer is over the rows, the focus within them or one of them selected, rows neither come nor go nor change places: a button says how many would.
 * `isPure`: cells are made of nothing but their row, so one that is as it was is left alone. `onSort(key, descending)`: the server sorts. `onSelect(keys)` hears of every change of the selection.
 * @returns {{node: HTMLElement, update: Function, selected: () => Set, clear: () => void, rows: () => object[]}}
 */
export function table(options) {
  const made = new Table(options);
  return {
    node: made.node,
    /** The rows that there are now. `more`: fetches further ones; `note`: a text beside the number; `force`: whoever is at them. */
    update: (rows, how = {}) => made.update(rows, how),
    selected: () => new Set(made.selection),
    clear: () => made.select([]),
    /** As they are shown. */
    rows: () => made.order.map((key) => made.entries.get(key).row),
  };
}

class Table {
  constructor({ columns, key, onOpen = null, selectable = false, empty = "Nothing here.", caption = "", onSort = null, onSelect = null, sorted = null, isPure = false }) {
    Object.assign(this, { columns, key, onOpen, selectable, empty, caption, onSort, onSelect, isPure });
    this.entries = new Map(); // key -> {row, tr, cells}
    this.order = []; // keys as they are shown
    this.wanted = []; // rows as they should be
    this.selection = new Set();
    this.anchor = null; // where a range of the selection begins
    this.sorting = sorted; // {key, descending}
    this.pressed = this.waits = this.isKnown = false;
    this.build();
    this.bind();
  }

  // --- what it is made of

  build() {
    this.number = el("span", { class: "table-count" });
    this.news = el("button", { class: "small table-news", hidden: true, on: { click: () => this.arrange() } });
    this.note = el("span", { class: "muted" });
    this.body = el("tbody", { role: "rowgroup" });
    this.head = el("tr", { role: "row" }, this.selectable ? this.allBox() : null, this.columns.map((column) => this.headCell(column)));
    this.more = el("button", { hidden: true }, "Show more");
    this.none = el("div", { class: "empty", hidden: true });
    const head = el("thead", { role: "rowgroup" }, this.head);
    this.grid = el("table", { class: "rows", role: "table", "aria-busy": "true" }, el("caption", { class: "unseen" }, this.caption), head, this.body);
    const top = el("div", { class: "table-top" }, this.number, this.note, el("span", { role: "status" }, this.news));
    this.node = el("div", { class: "table" }, top, el("div", { class: "table-scroll" }, this.grid), this.none, this.more);
  }

  headCell(column) {
    const label = column.sort ? el("button", { class: "sort", on: { click: () => this.sortBy(column) } }, column.label) : column.label;
    const sorted = this.sorting?.key === column.key && (this.sorting.descending ? "descending" : "ascending");
    return el("th", { scope: "col", role: "columnheader", class: column.class, "aria-sort": sorted, data: { key: column.key, narrow: column.narrow ?? "" } }, label);
  }

  allBox() {
    const change = () => this.select(this.all.checked ? this.order : []);
    this.all = el("input", { type: "checkbox", "aria-label": "Select all rows shown", on: { change } });
    return el("th", { scope: "col", role: "columnheader", class: "pick" }, this.all);
  }

  bind() {
    this.body.addEventListener("pointerenter", () => (held = this));
    this.body.addEventListener("pointerleave", () => ((held = null), waiting.forEach((other) => other.settle())));
    this.body.addEventListener("focusout", () => setTimeout(() => this.settle()));
    this.body.addEventListener("pointerdown", () => this.press());
    this.body.addEventListener("click", (event) => this.clicked(event));
    this.body.addEventListener("mousedown", (event) => event.shiftKey && this.selectable && event.preventDefault()); // selects rows, not text
    this.more.addEventListener("click", () => this.fetchMore());
    keys(this.node, {
      j: ["Next row", () => this.move(1)],
      k: ["Row before", () => this.move(-1)],
      ArrowDown: ["", () => this.hasFocus() && this.move(1)],
      ArrowUp: ["", () => this.hasFocus() && this.move(-1)],
      Home: ["", () => this.hasFocus() && this.moveTo(0)],
      End: ["", () => this.hasFocus() && this.moveTo(this.order.length - 1)],
      ...(this.onOpen ? { Enter: ["Open the row", (event) => this.openFocused(event)] } : {}),
      ...(this.selectable ? { x: ["Select the row", () => this.toggleFocused()], Escape: ["Select nothing", () => this.selection.size > 0 && this.select([])] } : {}),
    });
  }

  // --- rows that come, change and go

  update(rows, { more = null, note = "", force = false } = {}) {
    this.wanted = this.sort(rows);
    this.fetch = more;
    this.note.textContent = note;
    this.grid.removeAttribute("aria-busy");
    if (this.pressed) this.waits = true;
    else this.apply(force);
  }

  apply(force) {
    inPlace(() => {
      for (const row of this.wanted) {
        const entry = this.entries.get(this.key(row));
        if (entry) this.refresh(entry, row);
      }
    });
    if (force || !this.isBusy() || this.isSame()) this.arrange();
    else this.announce();
  }

  /** What held the rows in place has ended, perhaps. */
  settle() {
    if (!this.isBusy() && !this.news.hidden) this.arrange();
  }

  isBusy() {
    const isAbove = held?.body.isConnected && this.node.compareDocumentPosition(held.node) & Node.DOCUMENT_POSITION_FOLLOWING;
    if (isAbove) return this.isKnown; // what grows would push down the row under the pointer
    return this.order.length > 0 && (held === this || this.hasFocus() || this.selection.size > 0);
  }

  /** The same rows, or further ones at the end of a table that somebody is at himself. */
  isSame() {
    const grows = this.wanted.length - this.order.length;
    return grows >= 0 && (grows === 0 || held === this || held === null) && this.order.every((key, index) => this.key(this.wanted[index]) === key);
  }

  announce() {
    const wanted = new Set(this.wanted.map(this.key));
    const fresh = [...wanted].filter((key) => !this.entries.has(key)).length;
    const gone = this.order.filter((key) => !wanted.has(key));
    for (const key of this.order) this.entries.get(key).tr.classList.toggle("gone", !wanted.has(key));
    const parts = [fresh && `${count(fresh)} new`, gone.length && `${count(gone.length)} gone`].filter(Boolean);
    this.news.textContent = parts.length ? `${parts.join(", ")}: show` : "Another order: show";
    show(this.news, true);
    waiting.add(this);
  }

  arrange() {
    const before = this.order;
    this.order = this.wanted.map(this.key);
    const wanted = new Set(this.order);
    for (const key of before) if (!wanted.has(key)) this.drop(key);
    let place = this.body.firstChild;
    for (const row of this.wanted) {
      const { tr } = this.entries.get(this.key(row)) ?? this.add(row);
      tr.classList.remove("gone");
      if (tr === place) place = place.nextSibling;
      else this.body.insertBefore(tr, place);
    }
    show(this.news, false);
    waiting.delete(this);
    this.isKnown = true;
    this.foot();
  }

  foot() {
    const some = this.order.length > 0;
    this.number.textContent = some ? `${count(this.order.length)}${this.fetch ? "+" : ""} ${this.order.length === 1 ? "row" : "rows"}` : "";
    show(this.grid, some);
    show(this.none, !some);
    if (!some) replace(this.none, typeof this.empty === "function" ? this.empty() : this.empty);
    show(this.more, some && Boolean(this.fetch));
    if (some && !this.body.querySelector('tr[tabindex="0"]')) this.body.firstChild.tabIndex = 0;
    this.showSelection();
  }

  add(row) {
    const key = this.key(row);
    const cells = this.columns.map((column) => this.cell(column));
    const tr = el("tr", { role: "row", tabindex: -1, class: this.onOpen ? "opens" : null }, this.selectable ? this.box(key) : null, cells);
    tr.rowKey = key;
    const entry = { row: {}, tr, cells };
    this.entries.set(key, entry);
    this.refresh(entry, row);
    return entry;
  }

  drop(key) {
    this.entries.get(key).tr.remove();
    this.entries.delete(key);
    this.selection.delete(key);
  }

  cell(column) {
    const props = { class: column.class, data: { label: column.label, narrow: column.narrow ?? "" } };
    return column.head ? el("th", { ...props, scope: "row", role: "rowheader" }) : el("td", { ...props, role: "cell" });
  }

  box(key) {
    const input = el("input", { type: "checkbox", tabindex: -1, "aria-label": `Select ${key}` });
    return el("td", { class: "pick", role: "cell" }, input);
  }

  /** The object stays the same, so handlers within the cells know the newest values. */
  refresh(entry, row) {
    const text = this.isPure && JSON.stringify(row);
    if (text && text === entry.text) return;
    entry.text = text;
    for (const name of Object.keys(entry.row)) if (!(name in row)) delete entry.row[name];
    Object.assign(entry.row, row);
    this.columns.forEach((column, index) => fill(entry.cells[index], column.cell ? column.cell(entry.row) : entry.row[column.key]));
  }

  async fetchMore() {
    this.more.disabled = true;
    try {
      await this.fetch();
    } finally {
      this.more.disabled = false;
    }
  }

  // --- order

  sortBy(column) {
    const descending = this.sorting?.key === column.key && !this.sorting.descending;
    this.sorting = { key: column.key, descending };
    for (const th of this.head.children) {
      if (th.dataset.key === column.key) th.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    }
    if (this.onSort) return this.onSort(column.key, descending);
    this.wanted = this.sort(this.wanted);
    this.arrange();
  }

  sort(rows) {
    const column = !this.onSort && this.sorting && this.columns.find(({ key, sort }) => key === this.sorting.key && sort);
    if (!column) return [...rows];
    const value = typeof column.sort === "function" ? column.sort : (row) => row[column.key];
    const sign = this.sorting.descending ? -1 : 1;
    return [...rows].sort((a, b) => sign * compare(value(a), value(b)));
  }

  // --- moving and opening

  hasFocus() {
    return this.body.contains(document.activeElement);
  }

  focused() {
    return document.activeElement?.closest?.("tr") ?? null;
  }

  move(by) {
    if (!this.order.length) return false;
    const now = this.hasFocus() ? [...this.body.children].indexOf(this.focused()) : by > 0 ? -1 : this.order.length;
    return this.moveTo(Math.min(Math.max(now + by, 0), this.order.length - 1));
  }

  moveTo(index) {
    const row = this.body.children[index];
    for (const other of this.body.querySelectorAll('tr[tabindex="0"]')) other.tabIndex = -1;
    row.tabIndex = 0;
    row.focus();
    row.scrollIntoView({ block: "nearest" });
    return true;
  }

  openFocused(event) {
    if (!this.hasFocus() || event.target.closest(CONTROLS)) return false;
    this.onOpen(this.entries.get(this.focused().rowKey).row);
    return true;
  }

  /** Between the press of a mouse's button and its release nothing is replaced: else the click would be lost. */
  press() {
    this.pressed = true;
    const release = () =>
      setTimeout(() => {
        this.pressed = false;
        if (this.waits) this.apply(false);
        this.waits = false;
      });
    addEventListener("pointerup", release, { once: true });
    addEventListener("pointercancel", release, { once: true });
  }

  clicked(event) {
    const tr = event.target.closest("tr");
    if (!tr) return;
    const picks = event.target.closest(".pick");
    if (this.selectable && (picks || event.shiftKey || event.ctrlKey || event.metaKey)) return this.pick(tr.rowKey, event, picks);
    if (!this.onOpen || event.defaultPrevented || event.target.closest(`${CONTROLS}, label`) || String(getSelection())) return;
    this.onOpen(this.entries.get(tr.rowKey).row);
  }

  // --- selecting

  pick(key, event, picks) {
    if (!picks && event.target.closest(CONTROLS)) return; // ctrl-click on a link is the browser's
    if (event.shiftKey && this.anchor !== null && this.entries.has(this.anchor)) this.selectRange(key);
    else this.toggle(key);
  }

  selectRange(key) {
    const [from, to] = [this.order.indexOf(this.anchor), this.order.indexOf(key)].sort((a, b) => a - b);
    this.select([...this.selection, ...this.order.slice(from, to + 1)]);
  }

  toggle(key) {
    this.anchor = key;
    const others = [...this.selection].filter((other) => other !== key);
    this.select(this.selection.has(key) ? others : [...others, key]);
  }

  toggleFocused() {
    if (!this.hasFocus()) return false;
    this.toggle(this.focused().rowKey);
    return true;
  }

  select(chosen) {
    this.selection = new Set(chosen);
    this.showSelection();
    this.settle();
    this.onSelect?.(new Set(this.selection));
  }

  showSelection() {
    if (!this.selectable) return;
    for (const [key, { tr }] of this.entries) {
      const chosen = this.selection.has(key);
      tr.classList.toggle("selected", chosen);
      tr.querySelector(".pick input").checked = chosen;
    }
    this.all.checked = this.order.length > 0 && this.selection.size === this.order.length;
    this.all.indeterminate = this.selection.size > 0 && !this.all.checked;
  }
}

/** What stands in rows may make them taller: the row under the pointer stays under it. */
function inPlace(change) {
  const row = held?.body.querySelector("tr:hover");
  const before = row?.getBoundingClientRect().top;
  change();
  const by = row ? row.getBoundingClientRect().top - before : 0;
  if (by) scrollBy({ top: by, behavior: "instant" });
}

/** Only what is different is replaced; the focus stays where it was; what somebody types in is left alone. */
function fill(cell, content) {
  const nodes = [content].flat(Infinity).filter((item) => item !== null && item !== undefined && item !== false);
  const fresh = nodes.map((item) => (item instanceof Node ? item : document.createTextNode(String(item))));
  const old = [...cell.childNodes];
  if (old.length === fresh.length && old.every((node, index) => node === fresh[index] || node.isEqualNode(fresh[index]))) return;
  const active = cell.contains(document.activeElement) ? document.activeElement : null;
  if (active && /^(INPUT|SELECT|TEXTAREA)$/.test(active.tagName)) return;
  const place = active ? [...cell.querySelectorAll(CONTROLS)].indexOf(active) : -1;
  cell.replaceChildren(...fresh);
  if (place >= 0) cell.querySelectorAll(CONTROLS)[place]?.focus({ preventScroll: true });
}

/** Numbers before texts, nothing last. */
function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  if (typeof a === "string" && typeof b === "string") return a.localeCompare(b, "en", { numeric: true });
  return a < b ? -1 : 1;
}
