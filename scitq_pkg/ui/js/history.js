/** What the machines of workers measure: how each is called and shown; the last hour, fetched for those that are looked at, then added to from live rows. */

import { get } from "./api.js";
import { bytes } from "./format.js";

const KEPT_MS = 3_600_000;
const AT_ONCE = 4; // requests at the same time
const LEAST_MS = 4000; // between two looks at a row
const SPACING_MS = 20_000; // between two points that are kept: an hour of many workers is no burden

/** The measured values of a worker's row, as a point of its history. */
export function pointOf(row) {
  const { gpus, ...measured } = row.stats ?? {};
  return { at: row.contact_at, ...measured };
}

/** Points of many workers; `onLoad(id)` is called when those of one have come. */
export class Histories {
  #points = new Map();
  #wanted = [];
  #loading = 0;
  #onLoad;

  constructor(onLoad) {
    this.#onLoad = onLoad;
  }

  /** The points of a worker, oldest first; asks the server for them the first time. */
  want(id) {
    if (this.#points.has(id)) return;
    this.#points.set(id, []);
    this.#wanted.push(id);
    this.#next();
  }

  of(id) {
    return this.#points.get(id) ?? [];
  }

  /** Adds what a live row says, when it is newer. @returns {boolean} whether it was */
  add(row) {
    const points = this.#points.get(row.id);
    const at = Date.parse(row.contact_at);
    if (!points || !row.stats || !(at - Date.parse(points.at(-1)?.at ?? 0) >= LEAST_MS)) return false;
    if (points.length > 1 && Date.parse(points.at(-1).at) - Date.parse(points.at(-2).at) < SPACING_MS) points.pop();
    points.push(pointOf(row));
    while (at - Date.parse(points[0].at) > KEPT_MS) points.shift();
    return true;
  }

  /** Lets go of workers that are gone. */
  keepOnly(ids) {
    for (const id of this.#points.keys()) if (!ids.has(id)) this.#points.delete(id);
  }

  #next() {
    while (this.#loading < AT_ONCE && this.#wanted.length) this.#load(this.#wanted.shift());
  }

  async #load(id) {
    this.#loading += 1;
    try {
      const { items } = await get(`/workers/${id}/history`);
      const newest = Date.parse(items.at(-1)?.at ?? 0);
      const since = this.of(id).filter((point) => Date.parse(point.at) > newest);
      if (this.#points.has(id)) this.#points.set(id, [...items, ...since]);
    } catch {
      // a worker that was deleted meanwhile, or a lost connection: the live points make the line
    } finally {
      this.#loading -= 1;
      this.#next();
    }
    this.#onLoad(id);
  }
}

/** At most `most` values of points, evenly chosen; the newest is among them. */
export function thin(values, most) {
  if (values.length <= most) return values;
  const step = (values.length - 1) / (most - 1);
  return Array.from({ length: most }, (_, index) => values[Math.round(index * step)]);
}

const ratio = (used, total) => (total > 0 ? used / total : null);
const percent = (share) => (share === null ? "–" : `${Math.round(100 * share)} %`);
const perSecond = (value) => (value === null ? "–" : `${bytes(value)}/s`);

/**
 * `value(point)` is a number or null, `max(row, values)` the top of its chart, `text(point)` what it is now, `worry(point)` whether that
 * is marked.
 */
export const MEASURES = [
  {
    key: "load",
    label: "Load",
    value: (point) => point.load1 ?? null,
    max: (row, values) => Math.max(row.cpus ?? 1, ...values),
    text: (point) => (point.load1 == null ? "–" : point.load1.toFixed(1)),
    detail: (point, row) => `load ${point.load1?.toFixed(2) ?? "–"} on ${row.cpus ?? "?"} processors, busy ${point.cpu_percent == null ? "–" : Math.round(point.cpu_percent)} %`,
    worry: (point, row) => point.load1 > 2 * (row.cpus ?? Infinity),
  },
  {
    key: "memory",
    label: "Memory",
    value: (point) => ratio(point.memory_used, point.memory_total),
    max: () => 1,
    text: (point) => percent(ratio(point.memory_used, point.memory_total)),
    detail: (point) => `${bytes(point.memory_used ?? 0)} of ${bytes(point.memory_total ?? 0)} used`,
    worry: (point) => ratio(point.memory_used, point.memory_total) > 0.95,
  },
  {
    key: "disk",
    label: "Disk",
    value: (point) => ratio(point.disk_used, point.disk_total),
    max: () => 1,
    text: (point) => percent(ratio(point.disk_used, point.disk_total)),
    detail: (point) => `${bytes(Math.max(0, (point.disk_total ?? 0) - (point.disk_used ?? 0)))} free of ${bytes(point.disk_total ?? 0)}, where tasks work`,
    worry: (point) => ratio(point.disk_used, point.disk_total) > 0.95,
  },
  {
    key: "network",
    label: "Network",
    value: (point) => (point.received == null ? null : point.received + (point.sent ?? 0)),
    max: (row, values) => Math.max(1e6, ...values),
    text: (point) => perSecond(point.received == null ? null : point.received + (point.sent ?? 0)),
    detail: (point) => `${perSecond(point.received ?? null)} received, ${perSecond(point.sent ?? null)} sent`,
    worry: () => false,
  },
];
