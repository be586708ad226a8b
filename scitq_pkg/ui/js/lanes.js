/** Executions laid into the slots of their workers: what ran at the same time lies in different lanes. */

/**
 * The lanes of a timeline, by worker and slot.
 * @param {{execution_id: number, worker: string|null, started_at: string, ended_at: string|null}[]} items
 * @param {number} now milliseconds; where those end that still run
 * @returns {{worker: string, slot: number, items: {item: object, from: number, to: number}[]}[]}
 */
export function lanesOf(items, now) {
  const workers = new Map();
  for (const span of spans(items, now)) {
    const name = span.item.worker ?? "a deleted worker";
    if (!workers.has(name)) workers.set(name, []);
    put(workers.get(name), span);
  }
  const names = [...workers.keys()].sort((one, other) => one.localeCompare(other, undefined, { numeric: true }));
  return names.flatMap((worker) => workers.get(worker).map((lane, index) => ({ worker, slot: index + 1, items: lane })));
}

function spans(items, now) {
  return items
    .filter((item) => item.started_at)
    .map((item) => ({ item, from: Date.parse(item.started_at), to: item.ended_at ? Date.parse(item.ended_at) : now }))
    .sort((one, other) => one.from - other.from);
}

/** Puts a span into the first lane that is free then. */
function put(lanes, span) {
  const free = lanes.find((lane) => lane.at(-1).to <= span.from);
  if (free) free.push(span);
  else lanes.push([span]);
}
