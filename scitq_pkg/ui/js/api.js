/** The public API, as everybody may call it. Paths are without `/api/v1`. */

/** Where the server is, behind whatever prefix a proxy gives it. */
export const root = new URL("../../", import.meta.url);
const API = new URL("api/v1/", root);
const TRIES = 4; // of a request that got no answer
const PAGE = 5000;

/** Says "signed-out" when the server does not know us any more. */
export const session = new EventTarget();

/** What the API said, in its own words. `status` is 0 when there was no answer. */
export class ApiError extends Error {
  constructor(status, { code, message, field }) {
    super(message);
    Object.assign(this, { name: "ApiError", status, code, field: field ?? null });
  }
}

/** @returns {Promise<any>} */
export const get = async (path, query, options) => json(await request("GET", path, { query, ...options }));
/** @returns {Promise<any>} */
export const post = async (path, body = {}) => json(await request("POST", path, { body }));
/** @returns {Promise<any>} */
export const patch = async (path, body) => json(await request("PATCH", path, { body }));
/** @returns {Promise<any>} */
export const del = async (path, query) => json(await request("DELETE", path, { query }));
/**
 * The answer itself, for bytes and streams. `options.signal` gives it up.
 * @returns {Promise<Response>}
 */
export const raw = (path, query, options) => request("GET", path, { query, ...options });

/** Every item of a list, page after page. */
export async function* pages(path, query = {}) {
  let after = null;
  do {
    const page = await get(path, { limit: PAGE, ...query, after });
    yield* page.items;
    after = page.next;
  } while (after !== null);
}

/** The address of something of the API, for links and downloads. */
export function address(path, query) {
  const url = new URL(path.replace(/^\//, ""), API);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

/** A request to the server, outside of `/api/v1` too; tried again while no answer comes. Throws ApiError. */
export async function send(url, { method = "GET", body, headers = {}, signal, tries = TRIES } = {}) {
  const options = { method, signal, headers: { ...headers }, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  for (let attempt = 1; ; attempt++) {
    const { response, error } = await once(url, options);
    if (response?.ok) return response;
    if (attempt >= tries || !(error || response.status === 503)) throw error ?? (await failure(response));
    await pause(Math.min(250 * 2 ** attempt, 4000), signal);
  }
}

async function request(method, path, { query, body, signal, tries }) {
  const headers = method === "GET" ? {} : { "Idempotency-Key": randomKey() };
  try {
    return await send(address(path, query), { method, body, headers, signal, tries });
  } catch (error) {
    if (error.status === 401) session.dispatchEvent(new Event("signed-out"));
    throw error;
  }
}

async function once(url, options) {
  try {
    return { response: await fetch(url, options) };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const message = "The server does not answer. It may be stopped, or the network between is cut; nothing else is known.";
    return { error: new ApiError(0, { code: "unreachable", message }) };
  }
}

async function failure(response) {
  const told = await response.json().catch(() => null); // a proxy's page is no JSON
  return new ApiError(response.status, told?.error ?? { code: "error", message: `The answer was ${response.status} ${response.statusText}` });
}

async function json(response) {
  return response.status === 204 ? null : response.json();
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

/** Not `randomUUID`: browsers have that on HTTPS and this machine only. */
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
