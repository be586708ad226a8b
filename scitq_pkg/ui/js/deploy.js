/** Deploying workers: which machine, how many, for what. */

import { get, post } from "./api.js";
import { failed, form, toast } from "./dialogs.js";
import { passing, providerOptions } from "./flavors.js";
import { many } from "./format.js";
import { live } from "./live.js";

/** Asks what to deploy, shows what it would cost, and has it deployed. @param {string} [batch] */
export async function deploy(batch = "Default") {
  try {
    const { items } = await get("/providers");
    const regions = [...new Set(items.flatMap((provider) => provider.regions))];
    const made = await form({ title: "Deploy workers", fields: fieldsOf(batch, await providerOptions([["auto", "the cheapest"]]), regions), preview: passing, verb: "Deploy", work: send });
    if (made) toast(`${many(made.items.length, "worker is", "workers are")} being deployed.`);
  } catch (error) {
    failed(error);
  }
}

function fieldsOf(batch, providers, regions) {
  return [
    { name: "number", label: "Workers", type: "number", min: 1, max: 1000, value: 1, required: true },
    { name: "batch", label: "Batch", value: batch, required: true, list: [...live.batches.keys()].sort() },
    { name: "provider", label: "Provider", type: "select", options: providers, value: "auto" },
    { name: "region", label: "Region", value: "auto", list: ["auto", ...regions], required: true },
    { name: "flavor", label: "Flavor", hint: "a name, or auto:cpu>=8:ram>=30", value: "auto", required: true },
    { name: "concurrency", label: "Concurrency", type: "number", min: 1, hint: "empty: one a processor" },
    { name: "prefetch", label: "Prefetch", type: "number", min: 0, value: 0 },
    { name: "name", label: "Name", hint: "empty: made up; of several NAME-1, NAME-2…" },
    { name: "permanent", label: "kept when they idle", type: "checkbox" },
  ];
}

const send = ({ name, ...values }) => post("/workers/deploy", { ...values, flavor: values.flavor.trim(), name: name.trim() || null });
