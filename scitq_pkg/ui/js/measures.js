/** What is measured of a machine: how each is called, read, shown, and when it is worrying. */

import { bytes } from "./format.js";

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
