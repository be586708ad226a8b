/**
 * What the server tells of its own accord: batches, workers, itself, and that tasks changed. One event stream for all pages;
 * polling where no stream comes through; every gap is healed by a whole snapshot.
 */

import { address, get, session } from "./api.js";

const SILENCE = 25_000; // without an event for so long the line is tried
const HIDDEN = 5_000; // a page that nobody sees gives its line back after this: a browser has six for all its tabs
const POLL_WAIT = 20; // seconds that the server may hold a poll
const POLL_LIMIT = 35_000;
const STREAM_AGAIN = 300_000; // after so long with polls alone a stream is tried again
const TASKS_EVERY = 1000;

const listeners = { batches: new Set(), workers: new Set(), jobs: new Set(), tasks: new Set(), connection: new Set() };
let source = null;
let polling = null; // AbortController of the polls
let last = null; // the id of the newest event
let heardAt = 0;
let failures = 0;
let hiddenTimer = 0;
let isWanted = false;
let tasksTimer = 0;
let tasksAt = 0;

export const live = {
  batches: new Map(),
  workers: new Map(),
  jobs: new Map(),
  server: null,
  version: null,
  connected: "lost",
  /** When the newest news came, in milliseconds; 0: none yet. */
  freshAt: 0,
  on(kind, fn) {
    listeners[kind].add(fn);
    return () => listeners[kind].delete(fn);
  },
  /** Begins, as soon as somebody sees the page; what is known is kept. */
  start() {
    isWanted = true;
    if (!source && !polling && !document.hidden) listen();
  },
  /** Ends, until the next start. */
  stop() {
    isWanted = false;
    hangUp();
  },
  /** Takes in what a write answered, before the news of it comes. */
  put(kind, row) {
    const known = kind === "batches" ? live.batches : live.workers;
    const key = kind === "batches" ? row.name : row.id;
    known.set(key, { ...known.get(key), ...row });
    tell(kind);
  },
};

session.addEventListener("signed-out", () => live.stop());
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  if (document.hidden) hiddenTimer = setTimeout(hangUp, HIDDEN);
  else if (isWanted) live.start();
});
setInterval(watch, 5000);

function hangUp() {
  source?.close();
  polling?.abort();
  source = polling = null;
}

function listen() {
  const mine = (source = new EventSource(address("/stream", { after: last })));
  const take = (event) => source === mine && heard(event.type, event.data, event.lastEventId, "live");
  mine.addEventListener("snapshot", take);
  mine.addEventListener("changes", take);
  mine.onopen = () => source === mine && opened();
  mine.onerror = () => source === mine && broken();
}

/** What was missed, if anything, comes now: after polls there may be nothing to tell for long. */
function opened() {
  heardAt = Date.now();
  if (live.freshAt) connection("live");
}

/** A stream that ends after it brought something is asked for again by the browser; one that brings nothing is given up, at once when nothing is shown yet. */
function broken() {
  failures += 1;
  if (failures === 2) connection("lost");
  const enough = live.freshAt ? 3 : 1;
  if (failures < enough && source.readyState !== EventSource.CLOSED) return;
  source.close();
  source = null;
  poll();
}

async function poll() {
  const mine = (polling = new AbortController());
  const since = Date.now();
  let away = live.freshAt > 0 && live.connected === "lost"; // a stream came through before
  while (polling === mine) {
    const answered = await pollOnce(mine);
    if (polling !== mine) return;
    if (answered && (away || Date.now() - since > STREAM_AGAIN)) return backToStream();
    if (!answered) await new Promise((resolve) => setTimeout(resolve, 1000));
    away ||= !answered;
  }
}

function backToStream() {
  polling = null;
  failures = 2; // one more and the polls go on
  listen();
}

async function pollOnce(mine) {
  const limit = setTimeout(() => mine.abort(), POLL_LIMIT);
  try {
    const wait = live.connected === "lost" ? 0 : POLL_WAIT;
    const told = await get("/changes", { after: last, wait }, { signal: mine.signal, tries: 1 });
    if (polling !== mine) return false;
    for (const { id, event, data } of told.events) heard(event, data, id, "polling");
    last = told.next ?? last;
    connection("polling");
    live.freshAt = Date.now();
    return true;
  } catch (error) {
    if (mine.signal.aborted && polling === mine) polling = null, poll();
    else connection("lost");
    return false;
  } finally {
    clearTimeout(limit);
  }
}

/** A line that is dead without having said so: ask past it. */
async function watch() {
  if (!source || Date.now() - heardAt < SILENCE) return;
  const mine = source;
  heardAt = Date.now();
  try {
    const told = await get("/changes", { after: last, wait: 0 }, { signal: AbortSignal.timeout(10_000), tries: 1 });
    live.freshAt = Date.now();
    if (mine === source && told.events.length) await missed(mine, told.events.at(-1).id);
  } catch {
    if (mine === source) instead();
  }
}

/** The polls know of events that the stream has not brought, a while later neither: something between holds it back. */
async function missed(mine, id) {
  const before = last;
  await new Promise((resolve) => setTimeout(resolve, 3000));
  if (mine === source && last === before && last !== id) instead();
}

function instead() {
  source.close();
  source = null;
  connection("lost");
  poll();
}

function heard(kind, data, id, how) {
  const news = typeof data === "string" ? JSON.parse(data) : data;
  heardAt = live.freshAt = Date.now();
  last = id || last;
  failures = 0;
  take(kind, news);
  connection(how);
}

function take(kind, news) {
  if (news.server) live.server = { ...live.server, ...news.server };
  const whole = kind === "snapshot";
  const batches = merge(live.batches, news.batches, whole ? null : news.batches_gone, "name");
  const workers = merge(live.workers, news.workers, whole ? null : news.workers_gone, "id");
  const jobs = merge(live.jobs, news.jobs, whole ? null : news.jobs_gone, "id");
  if (batches) tell("batches");
  if (jobs) tell("jobs");
  if (workers) tell("workers");
  if (whole || news.version !== live.version) tellTasks();
  live.version = news.version ?? live.version;
}

/** `gone` null: what is not in `rows` is gone. Says whether anything came or went. */
function merge(known, rows = [], gone, key) {
  if (gone === null) known.clear();
  for (const name of gone ?? []) known.delete(name);
  for (const row of rows) known.set(row[key], row);
  return gone === null || rows.length > 0 || Boolean(gone?.length);
}

function tellTasks() {
  if (tasksTimer) return;
  const wait = Math.max(0, tasksAt + TASKS_EVERY - Date.now());
  tasksTimer = setTimeout(() => {
    tasksTimer = 0;
    tasksAt = Date.now();
    tell("tasks");
  }, wait);
}

function connection(state) {
  const changed = live.connected !== state;
  live.connected = state;
  if (changed) tell("connection");
}

function tell(kind) {
  for (const fn of [...listeners[kind]]) {
    try {
      fn(live);
    } catch (error) {
      console.error(error); // of one listener: the others hear it all the same
    }
  }
}
