/** Files made in the browser and given to the user. */

import { pages, raw } from "./api.js";
import { el } from "./dom.js";

/** Offers bytes or texts as a file of this name. */
export function save(name, parts, type) {
  const address = URL.createObjectURL(new Blob(parts, { type }));
  const anchor = el("a", { href: address, download: name });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // the browser has begun to write it by then
}

/** A name of a file from any text. */
export function fileName(text, ending) {
  const plain = text.replace(/[^\p{L}\p{N}._-]+/gu, "_").replace(/^[._]+|_+$/g, "");
  return `${plain || "batch"}.${ending}`;
}

/** Saves what a path of the API answers. */
export async function saveAnswer(path, query, name) {
  const response = await raw(path, query);
  save(name, [await response.blob()], response.headers.get("Content-Type") ?? "application/octet-stream");
}

/** All rows of a list as a JSON array; `onCount` is told how many have come. @returns {Promise<number>} */
export async function saveJson(path, query, name, onCount) {
  let count = 0;
  const parts = ["[\n"];
  for await (const row of pages(path, query)) {
    parts.push(count ? ",\n" : "", JSON.stringify(row));
    count = told(count + 1, onCount);
  }
  save(name, [...parts, "\n]\n"], "application/json");
  return count;
}

/** All rows of a list as CSV (RFC 4180), with the columns of the first row; lists and objects are JSON texts. @returns {Promise<number>} */
export async function saveCsv(path, query, name, onCount) {
  let count = 0;
  let columns = null;
  const parts = [];
  for await (const row of pages(path, query)) {
    if (!columns) parts.push(line((columns = Object.keys(row))));
    parts.push(line(columns.map((column) => row[column])));
    count = told(count + 1, onCount);
  }
  save(name, parts, "text/csv;charset=utf-8");
  return count;
}

function told(count, onCount) {
  if (count % 5000 === 0) onCount?.(count);
  return count;
}

const line = (values) => `${values.map(field).join(",")}\r\n`;

function field(value) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
