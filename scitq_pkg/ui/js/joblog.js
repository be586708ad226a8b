/** The log of a job, as it is written. */

import { get } from "./api.js";
import { el } from "./dom.js";
import { when } from "./format.js";
import { UNFINISHED } from "./jobparts.js";

const WAIT = 20; // seconds that the server may hold a request
const REST_MS = 1000; // after an answer without lines
const NEAR = 30; // pixels: who is so near to the end follows it

/**
 * @param {object} ctx of the page: with it the log ends
 * @param {number} id of the job
 * @returns {HTMLElement}
 */
export function jobLog(ctx, id) {
  const list = el("div", { class: "job-log", tabindex: 0, role: "log", "aria-label": "Log of the job" });
  const none = el("p", { class: "muted" }, "Nothing was written yet.");
  list.append(none);
  const over = new AbortController();
  ctx.onLeave(() => over.abort());
  follow(id, over.signal, (items) => {
    none.remove();
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR;
    list.append(...items.map(({ at, line }) => el("div", null, when(at), el("span", { text: line }))));
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  });
  return list;
}

/** Until the job has ended and all was read, or the page is left. */
async function follow(id, signal, take) {
  let after = 0;
  while (!signal.aborted) {
    const told = await get(`/jobs/${id}/log`, { after, wait: WAIT }, { signal, tries: 1 }).catch((error) => ({ error }));
    if (told.error?.status >= 400 && told.error.status < 500) return; // the page itself says that it is gone
    after = told.next ?? after;
    if (told.items?.length) take(told.items);
    else if (told.state && !UNFINISHED.includes(told.state)) return;
    else await new Promise((resolve) => setTimeout(resolve, REST_MS));
  }
}
