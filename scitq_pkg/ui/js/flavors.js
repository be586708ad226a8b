/** Providers, the sizes of machines that they have, and money. */

import { get } from "./api.js";
import { el } from "./dom.js";
import { count, duration } from "./format.js";
import { named } from "./hidden.js";

const SHOWN = 12; // flavors

/** An amount as "€0.13", "0.0042 XYZ"; nothing known is "–". Below `fine` more of it is told. */
export function money(amount, currency, fine = 0.1) {
  if (amount === null || amount === undefined) return "–";
  const digits = { minimumFractionDigits: 2, maximumFractionDigits: amount !== 0 && Math.abs(amount) < fine ? 4 : 2 };
  const isCode = /^[A-Z]{3}$/.test(currency ?? "");
  const text = new Intl.NumberFormat("en", isCode ? { style: "currency", currency, currencyDisplay: "narrowSymbol", ...digits } : digits).format(amount);
  return currency && !isCode ? `${text} ${named(currency)}` : text;
}

/** What an hour of a machine costs. */
export const hourly = ({ price, currency }) => money(price, currency, 1);

/** Choices of a provider: what is always there, those that are configured, the one that is chosen. */
export async function providerOptions(first, chosen) {
  const { items } = await get("/providers");
  const made = [...first, ...items.map(({ name, trouble }) => [name, `${named(name)}${trouble ? ": in trouble now" : ""}`])];
  return !chosen || made.some(([name]) => name === chosen) ? made : [...made, [chosen, chosen]];
}

/**
 * The flavors that pass, the cheapest first; a click on one chooses it alone, in the form around.
 * @param {{provider: string, region: string, flavor: string}} wish `auto` or empty: any
 * @returns {Promise<HTMLElement>}
 */
export async function passing({ provider, region, flavor }) {
  const any = (value) => (!value || value === "auto" ? null : value);
  const { items } = await get("/flavors", { provider: any(provider), region: any(region), filter: flavor.trim() || null, limit: SHOWN + 1 });
  if (!items.length) return el("p", { class: "notice", data: { kind: "warn" } }, "No known flavor passes. What providers have is asked for on the page of jobs.");
  const more = items.length > SHOWN ? el("p", { class: "muted", text: `The ${SHOWN} cheapest; there are more.` }) : null;
  const rows = items.slice(0, SHOWN).map((item) => el("tr", null, COLUMNS.map(([, cell, kind]) => el("td", { class: kind }, cell(item)))));
  return el("div", null, el("table", { class: "plain" }, el("caption", { class: "unseen", text: "Flavors that pass, the cheapest first" }),
    el("thead", null, el("tr", null, COLUMNS.map(([label, , kind]) => el("th", { scope: "col", class: kind, text: label })))), el("tbody", null, rows)), more);
}

const size = (gigabytes) => (gigabytes === null ? "–" : `${count(gigabytes)} GB`);

const COLUMNS = [
  ["Flavor", (item) => el("button", { class: "as-link", title: "Choose this one", on: { click: (event) => choose(event.target.form, item) } }, named(item.name))],
  ["Where", ({ provider, region }) => named(`${provider} ${region}`)],
  ["CPUs", ({ cpu }) => count(cpu), "num"],
  ["Memory", ({ ram }) => size(ram), "num"],
  ["Disk", ({ disk }) => size(disk), "num"],
  ["GPU", ({ gpus, gpu }) => (gpus ? named(`${gpus} ${gpu ?? "GPU"}`) : "")],
  ["An hour", hourly, "num"],
  ["Evicted", ({ eviction }) => (eviction ? `${eviction} %` : ""), "num"],
  ["Left", ({ available, planned }) => (available === null ? "" : count(Math.max(0, available - planned))), "num"],
];

function choose({ elements }, { provider, region, name }) {
  for (const [field, value] of Object.entries({ provider, region, flavor: name })) elements[field].value = value;
  elements.flavor.dispatchEvent(new Event("input", { bubbles: true }));
}

/** "b3-8 of ovh in GRA11". */
export function placeOf({ provider, region, flavor }) {
  return [flavor, provider && (flavor ? `of ${provider}` : provider), region && `in ${region}`].filter(Boolean).map(named).join(" ");
}

/** "€0.42 in 3 h 12 min", with the price of an hour. */
export function spent({ cost, hours, price, currency }) {
  const time = duration(3600 * (hours ?? 0));
  if (cost === null || cost === undefined) return hours ? time : "–";
  return el("span", { title: price ? `${hourly({ price, currency })} an hour` : null }, `${money(cost, currency)} `, el("span", { class: "nowrap", text: `in ${time}` }));
}
