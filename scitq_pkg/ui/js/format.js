/** Numbers, times and sizes as people read them. */

import { el } from "./dom.js";

const COUNT = new Intl.NumberFormat("en");
const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;

/** Seconds as "30 ms", "0.4 s", "42 s", "3 min 20 s", "2 h 05 min", "3 d 4 h". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  if (seconds > 0 && seconds < 0.095) return `${Math.ceil(seconds * 1000)} ms`;
  if (seconds < 10) return `${trimmed(Math.max(0, seconds))} s`;
  const whole = Math.round(seconds);
  if (whole < MINUTE) return `${whole} s`;
  if (whole < HOUR) return pair(whole, MINUTE, "min", 1, "s", 10 * MINUTE);
  if (whole < DAY) return pair(whole, HOUR, "h", MINUTE, "min", DAY);
  return pair(whole, DAY, "d", HOUR, "h", 30 * DAY);
}

/** A length of time that is not known better: "10–20 min". null: it cannot be told. */
export function range(bounds) {
  if (!bounds) return "unknown";
  const [low, high] = bounds.map(rough);
  if (low === high) return `about ${low}`;
  const [lowNumber, lowUnit] = low.split(" ");
  const [, highUnit, more] = high.split(" ");
  return lowUnit === highUnit && !more && low.split(" ").length === 2 ? `${lowNumber}–${high}` : `${low} – ${high}`;
}

/** Bytes as "1.5 GB" (powers of 1000). */
export function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let value = n;
  let index = 0;
  while (value >= 999.5 && index < units.length - 1) (value /= 1000), (index += 1);
  return `${index === 0 ? value : trimmed(value)} ${units[index]}`;
}

/** An ISO time as "3 min ago", "in 2 h", "just now". */
export function ago(iso) {
  if (!iso) return "never";
  const seconds = (Date.now() - Date.parse(iso)) / 1000;
  if (Math.abs(seconds) < 2) return "just now";
  const words = coarse(Math.abs(seconds));
  return seconds < 0 ? `in ${words}` : `${words} ago`;
}

/** An ISO time in the time of this place; the ISO time in its title. */
export function when(iso) {
  if (!iso) return el("span", { class: "muted" }, "–");
  const at = new Date(iso);
  const sameDay = at.toDateString() === new Date().toDateString();
  const day = [at.getFullYear(), at.getMonth() + 1, at.getDate()].map(two).join("-");
  const clock = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(":");
  return el("time", { datetime: iso, title: `${iso} (${ago(iso)})`, class: "when" }, sameDay ? clock : `${day} ${clock}`);
}

/** "12,345". */
export function count(n) {
  return n === null || n === undefined ? "–" : COUNT.format(n);
}

/** "1 worker", "12,345 workers". */
export function many(n, word, words = `${word}s`) {
  return `${count(n)} ${n === 1 ? word : words}`;
}

/** How many tasks there are in all states. */
export function total(counts) {
  return Object.values(counts).reduce((sum, number) => sum + number, 0);
}

/** How many in an hour, as "120 / h"; "0 / h" is "–". */
export function rate(perHour) {
  if (!perHour) return "–";
  if (perHour >= 36_000) return `${count(Math.round(perHour / 3600))} / s`;
  return `${perHour >= 10 ? count(Math.round(perHour)) : trimmed(perHour)} / h`;
}

function pair(whole, big, bigUnit, small, smallUnit, until) {
  const first = Math.floor(whole / big);
  const second = Math.floor((whole % big) / small);
  return second && whole < until ? `${first} ${bigUnit} ${smallUnit === "min" ? two(second) : second} ${smallUnit}` : `${first} ${bigUnit}`;
}

/** One unit, the one that says enough. */
function coarse(seconds) {
  if (seconds < MINUTE) return `${Math.round(seconds)} s`;
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)} min`;
  if (seconds < 2 * DAY) return `${Math.floor(seconds / HOUR)} h`;
  return `${Math.floor(seconds / DAY)} d`;
}

/** An estimate has no more than two figures. */
function rough(seconds) {
  if (seconds < MINUTE) return `${seconds < 10 ? Math.max(1, Math.round(seconds)) : Math.round(seconds / 5) * 5} s`;
  if (seconds < 99 * MINUTE) return `${Math.round(seconds / MINUTE)} min`;
  if (seconds < 10 * HOUR) return `${trimmed(seconds / HOUR)} h`;
  if (seconds < 2 * DAY) return `${Math.round(seconds / HOUR)} h`;
  return `${seconds < 10 * DAY ? trimmed(seconds / DAY) : Math.round(seconds / DAY)} d`;
}

function trimmed(value) {
  return value >= 10 ? String(Math.round(value)) : value.toFixed(1).replace(/\.0$/, "");
}

function two(number) {
  return String(number).padStart(2, "0");
}
