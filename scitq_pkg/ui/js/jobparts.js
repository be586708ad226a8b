/** What a job is shown by, and what can be done about it. */

import { del, post } from "./api.js";
import { confirm, failed, toast } from "./dialogs.js";
import { el } from "./dom.js";
import { ago } from "./format.js";
import { named } from "./hidden.js";
import { link } from "./router.js";
import { badge } from "./states.js";

export const UNFINISHED = ["pending", "running"];

/** "deploy gra-1", "ask ovh for its flavors". */
export function titleOf(job) {
  if (job.kind === "flavors") return `ask ${named(job.provider)} for its flavors`;
  return `${job.kind} ${named((job.kind === "deploy" ? job.worker : null) ?? job.machine_name ?? job.worker ?? "a machine")}`;
}

/** How far it is, and what it does now or waits for. */
export function progressOf(job) {
  const isOpen = UNFINISHED.includes(job.state);
  const waits = job.state === "pending" && job.not_before_at ? `again ${ago(job.not_before_at)}` : null;
  const words = [isOpen ? (waits ?? job.step) : null, job.message].filter(Boolean).join(": ");
  const bar = job.state === "running" ? el("progress", { max: 100, value: job.progress, "aria-label": `${titleOf(job)}: ${job.progress} %` }) : null;
  return [bar, words ? el("span", { class: job.state === "failed" ? "problem" : "muted", text: named(words) }) : null];
}

/** The job of a worker that comes or goes, in short. */
export function jobInShort(job) {
  return [el("span", { class: "row" }, badge(job.state), link(`/jobs/${job.id}`, `job ${job.id}`)), progressOf(job)];
}

/**
 * Buttons for what can be done about a job now.
 * @param {(job: object|null) => void} done the job as it is then, null when it is gone
 */
export function jobActions(job, done) {
  const button = (text, title, work, danger) => el("button", { class: `small ${danger ? "danger" : ""}`.trim(), title, "aria-label": `${text}: ${titleOf(job)}`, on: { click: work }, text });
  if (UNFINISHED.includes(job.state)) return [button("Cancel…", "End it", () => cancel(job, done), true)];
  const tried = (work, said) => () => work().then((answer) => (toast(said), done(answer)), failed);
  const again = job.state === "succeeded" ? null : button("Relaunch", "Try it anew", tried(() => post(`/jobs/${job.id}/relaunch`), `Tried anew: ${titleOf(job)}.`));
  return [again, button("Forget", "Delete it with its log", tried(() => del(`/jobs/${job.id}`), `Forgotten: ${titleOf(job)}.`))];
}

async function cancel(job, done) {
  const body = { deploy: "The machine is destroyed as far as it was made, and its worker is gone.", destroy: "The machine stays as it is then, and may go on to cost.", flavors: "What is known of its flavors stays as it is." };
  if (!(await confirm({ title: `Cancel: ${titleOf(job)}?`, body: body[job.kind], verb: "Cancel the job", no: "Leave it", danger: true }))) return;
  await post(`/jobs/${job.id}/cancel`).then(done, failed);
}
