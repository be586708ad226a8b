/** The page of a job: what it does, and its log as it is written. */

import { get } from "./api.js";
import { el, replace } from "./dom.js";
import { placeOf } from "./flavors.js";
import { count, when } from "./format.js";
import { named } from "./hidden.js";
import { jobLog } from "./joblog.js";
import { jobActions, progressOf, titleOf } from "./jobparts.js";
import { refresher } from "./refresh.js";
import { go, link } from "./router.js";
import { badge } from "./states.js";

/** @param {object} ctx see router.js */
export async function page(ctx) {
  const id = Number(ctx.params.id);
  const parts = Object.fromEntries(["title", "state", "actions", "progress", "facts"].map((name) => [name, el({ title: "h1", facts: "dl" }[name] ?? "div", { class: { actions: "actions", facts: "facts-list", progress: "job-progress" }[name] })]));
  let shown = "";
  const draw = (job) => {
    const key = JSON.stringify(job);
    if (key === shown) return;
    shown = key;
    ctx.title(titleOf(job));
    parts.title.textContent = `Job ${id}: ${titleOf(job)}`;
    replace(parts.state, badge(job.state));
    replace(parts.actions, jobActions(job, (now) => (now ? go(`/jobs/${now.id}`, { replace: true }) : go("/jobs"))));
    replace(parts.progress, progressOf(job));
    replace(parts.facts, factsOf(job).map(([name, value]) => el("div", null, el("dt", { text: name }), el("dd", null, value))));
  };
  draw(await get(`/jobs/${id}`));
  replace(ctx.main, el("header", { class: "page-head" }, parts.title, parts.state, parts.actions), parts.progress, parts.facts,
    el("section", { class: "panel", "aria-labelledby": "log-title" }, el("h2", { id: "log-title", text: "Log" }), jobLog(ctx, id)));
  const look = refresher(ctx, async () => draw(await get(`/jobs/${id}`)), (error) => error?.status === 404 && go("/jobs", { replace: true }), 500);
  for (const kind of ["jobs", "tasks", "workers"]) ctx.listen(kind, look);
}

function factsOf(job) {
  return [
    ["Where", placeOf(job) || "–"],
    ["Worker", job.worker ? link(`/workers/${job.worker_id}`, named(job.worker)) : "–"],
    ["Batch", job.batch ? link(`/batches/${encodeURIComponent(job.batch)}`, named(job.batch)) : "–"],
    ["Machine", named(job.machine_name ?? "–")],
    ["Attempt", `${count(job.attempt)} of ${count(job.retry + 1)}`],
    ["Asked by", named(job.asked_by)],
    ["Asked", when(job.created_at)],
    ["Started", when(job.started_at)],
    ["Ended", when(job.finished_at)],
  ];
}
