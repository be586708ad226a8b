/** Small charts as SVG: each says what it shows, and carries its data as a table where there is much. */

import { el, svg } from "./dom.js";
import { bytes, count, duration } from "./format.js";

const MANY_LANES = 40; // of a timeline: more are drawn lower
const NUMBER_PX = 28; // of a bar from which on its number has room
const LABEL_PX = 90; // that a label on an axis needs

/**
 * A line of values, the newest at the right. null: not known.
 * @param {number[]} values
 */
export function sparkline(values, { max = null, label = "" } = {}) {
  const [width, height] = [120, 28];
  const top = max || Math.max(1e-9, ...values.map((value) => value ?? 0));
  const step = width / Math.max(1, values.length - 1);
  const points = values.map((value, index) => (value === null || value === undefined ? null : [index * step, height - 1 - Math.min(1, value / top) * (height - 2)]));
  const line = points.map((point, index) => (point ? `${points[index - 1] ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}` : "")).join("");
  const known = points.filter(Boolean);
  const area = known.length > 1 ? `${line.replaceAll("M", "L").replace("L", "M")}L${known.at(-1)[0].toFixed(1)} ${height}L${known[0][0].toFixed(1)} ${height}Z` : "";
  return svg(
    "svg",
    { class: "sparkline", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label || "no name" },
    svg("path", { class: "spark-area", d: area }),
    svg("path", { class: "spark-line", d: line, fill: "none", "vector-effect": "non-scaling-stroke" }),
  );
}

/**
 * Bars.
 * @param {{from: number, to: number, count: number}[]} bins
 * @param {{unit: string, label: string, width: number}} options unit: "s", "B", or a word; width: in CSS pixels, of where it will be
 */
export function histogram(bins, { unit = "s", label = "", width = 640 } = {}) {
  const [height, foot] = [130, 18];
  const most = Math.max(1, ...bins.map((bin) => bin.count));
  const step = width / Math.max(1, bins.length);
  const bars = bins.map((bin, index) => {
    const tall = bin.count ? Math.max(2, (bin.count / most) * (height - 16)) : 0;
    const title = svg("title", null, `${amount(bin.from, unit)} to ${amount(bin.to, unit)}: ${count(bin.count)}`);
    const bar = svg("rect", { class: "hist-bar", x: index * step + 1, y: height - tall, width: Math.max(1, step - 2), height: tall, rx: 1 }, title);
    const number = bin.count && step >= NUMBER_PX ? svg("text", { class: "tick", x: (index + 0.5) * step, y: height - tall - 4, "text-anchor": "middle" }, count(bin.count)) : null;
    return [bar, number];
  });
  const axis = svg("line", { class: "axis", x1: 0, x2: width, y1: height, y2: height });
  const drawing = svg("svg", { class: "histogram", viewBox: `0 0 ${width} ${height + foot}`, role: "img", "aria-label": label }, ...bars, axis, ...edgeLabels(bins, step, height + foot - 4, unit));
  const rows = () => bins.map((bin) => [`${amount(bin.from, unit)} – ${amount(bin.to, unit)}`, count(bin.count)]);
  return figure(drawing, label, ["from – to", "count"], rows);
}

/** The edges of bins, as many as there is room for: bins need not be of the same width. */
function edgeLabels(bins, step, y, unit) {
  if (!bins.length) return [];
  const edges = [...bins.map((bin) => bin.from), bins.at(-1).to];
  const every = Math.ceil(LABEL_PX / step);
  const last = edges.length - 1;
  const isShown = (index) => index === 0 || index === last || (index % every === 0 && (last - index) * step >= 1.2 * LABEL_PX);
  const anchor = (index) => (index === 0 ? "start" : index === last ? "end" : "middle");
  return edges.map((edge, index) => isShown(index) && svg("text", { class: "tick", x: index * step, y, "text-anchor": anchor(index) }, amount(edge, unit)));
}

/**
 * What ran when, a lane each: lanes are `{label, tick, items: [{from, to, state, title, ...}]}`; `tick`: what stands before the lane, its label if
 * there is none; times are milliseconds, ISO texts or Dates; `to` null: still.
 * @param {{from, to, onOpen: (item) => void, label: string, width: number}} options width: in CSS pixels, of where it will be
 */
export function timeline(lanes, { from, to, onOpen = null, label = "", width = 1000 } = {}) {
  const [left, tall, foot] = [width < 500 ? 64 : 110, lanes.length > MANY_LANES ? 9 : 18, 20];
  const [start, end] = [moment(from), moment(to)];
  const gap = tall > 10 ? 2 : 1;
  const scale = (width - left) / Math.max(1, end - start);
  const x = (time) => left + (Math.min(Math.max(time, start), end) - start) * scale;
  const item = (it, row) => {
    const [begin, over] = [x(moment(it.from)), x(it.to ? moment(it.to) : end)];
    const props = { class: "time-item", "data-state": it.state, x: begin.toFixed(1), y: row * tall + gap, width: Math.max(1.5, over - begin - 0.5).toFixed(1), height: tall - 2 * gap, rx: gap };
    return svg("rect", { ...props, on: onOpen ? { click: () => onOpen(it) } : null }, svg("title", null, it.title ?? it.state));
  };
  const height = Math.max(1, lanes.length) * tall;
  const parts = lanes.map((lane, row) => [
    svg("text", { class: "tick", x: left - 6, y: row * tall + 13, "text-anchor": "end" }, short(lane.tick ?? lane.label, width < 500 ? 9 : 16)),
    svg("line", { class: "lane", x1: left, x2: width, y1: row * tall + tall, y2: row * tall + tall }),
    lane.items.map((it) => item(it, row)),
  ]);
  const ticks = (width < 500 ? [0, 1] : [0, 0.25, 0.5, 0.75, 1]).map((part) => {
    const at = left + (width - left) * part;
    const anchor = part === 0 ? "start" : part === 1 ? "end" : "middle";
    return svg("text", { class: "tick", x: at, y: height + foot - 5, "text-anchor": anchor }, clock(start + (end - start) * part, end - start, part === 0));
  });
  const drawing = svg("svg", { class: onOpen ? "timeline opens" : "timeline", viewBox: `0 0 ${width} ${height + foot}`, role: "img", "aria-label": label }, ...parts.flat(2), ...ticks);
  const rows = () =>
    lanes.flatMap((lane) =>
      lane.items.map((it) => [lane.label, onOpen ? opener(it, onOpen) : (it.title ?? ""), it.state, clock(moment(it.from), end - start), it.to ? duration((moment(it.to) - moment(it.from)) / 1000) : "still"]),
    );
  return figure(drawing, label, ["lane", "what", "state", "from", "for"], rows);
}

/**
 * How much of something is taken, as a bar.
 * @param {number} share 0 to 1
 * @param {boolean} isTooMuch
 */
export function meter(share, isTooMuch = false) {
  const width = Math.max(0.5, 100 * Math.min(1, share));
  return svg("svg", { class: `meter${isTooMuch ? " bad" : ""}`, viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "meter-back", width: 100, height: 10 }), svg("rect", { class: "meter-full", width, height: 10 }));
}

function opener(item, onOpen) {
  return el("button", { class: "as-link", on: { click: () => onOpen(item) } }, item.title ?? item.state);
}

/** The drawing, and its data as a table that is made when somebody opens it. */
function figure(drawing, label, heads, rows) {
  const details = el("details", { class: "chart-data" }, el("summary", null, "As a table"));
  const fill = () => {
    const body = rows().map((cells) => el("tr", null, cells.map((cell) => el("td", null, cell))));
    const head = el("thead", null, el("tr", null, heads.map((text) => el("th", { scope: "col" }, text))));
    details.append(el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, el("table", { class: "plain" }, el("caption", { class: "unseen" }, label), head, el("tbody", null, body))));
  };
  details.addEventListener("toggle", fill, { once: true });
  return el("figure", { class: "chart" }, drawing, details);
}

function amount(value, unit) {
  if (unit === "s") return duration(value);
  return unit === "B" ? bytes(value) : `${count(value)} ${unit}`;
}

function moment(value) {
  return typeof value === "string" ? Date.parse(value) : Number(value);
}

/** `dated`: with the day, if that is not today. */
function clock(time, span, dated = false) {
  const at = new Date(time);
  const two = (number) => String(number).padStart(2, "0");
  const day = span > 86_400_000 || (dated && at.toDateString() !== new Date().toDateString()) ? `${two(at.getMonth() + 1)}-${two(at.getDate())} ` : "";
  const minute = `${day}${two(at.getHours())}:${two(at.getMinutes())}`;
  if (span < 5000) return `${minute}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0").slice(0, span < 1000 ? 3 : 1)}`;
  return span < 600_000 ? `${minute}:${two(at.getSeconds())}` : minute;
}

function short(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
