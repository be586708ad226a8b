/** What a batch has cost, and may cost. */

import { patch } from "./api.js";
import { form, toast } from "./dialogs.js";
import { el } from "./dom.js";
import { money } from "./flavors.js";
import { live } from "./live.js";

/** "€3.20 of €50.00"; what is spent is marked. */
export function spending({ cost, budget, currency }) {
  const so = money(cost ?? 0, currency);
  if (budget === null || budget === undefined) return el("span", { title: "what machines that were deployed have cost" }, so);
  const isSpent = (cost ?? 0) >= budget;
  return el("span", { class: isSpent ? "warn" : null, title: isSpent ? "the budget is spent: nothing more is deployed for it" : "of its budget" }, `${so} of ${money(budget, currency)}`);
}

/** Asks for the budget of a batch. */
export async function askBudget(row) {
  const changed = await form({
    title: `Budget of ${row.name}`,
    body: `Machines that were deployed for it have cost ${money(row.cost ?? 0, row.currency)}. When the budget is spent its recruiters deploy nothing more; what is there goes on.`,
    fields: [{ name: "budget", label: row.currency ? `Budget in ${row.currency}` : "Budget", type: "number", min: 0, step: "any", value: row.budget ?? "", hint: "empty: none" }],
    verb: "Set",
    work: (values) => patch(`/batches/${encodeURIComponent(row.name)}`, values),
  });
  if (!changed) return;
  live.put("batches", changed);
  toast(changed.budget === null ? `${row.name} has no budget.` : `The budget of ${row.name} is ${money(changed.budget, changed.currency)}.`);
}
