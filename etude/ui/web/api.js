// @ts-check
// The server's answers. A page that was exported as one file has them in itself and asks nobody.

const FIRST_WAIT = 1000, LONGEST_WAIT = 15000; // milliseconds between attempts to listen again

const kept = document.getElementById("etude-data");
/** @type {Record<string, any> | null} The answers by path, in an exported page. */
const embedded = kept ? JSON.parse(kept.textContent || "{}") : null;
export const isExported = embedded !== null;

/** An answer that is an error, in the server's words. */
export class Refused extends Error {
  /** @param {string} message @param {number} status */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The address of something the server has, beside the page's own. @param {string} path */
export const address = (path) => path.replace(/^\//, "");

/** The answer to a path, as `/api/runs`. @param {string} path @param {AbortSignal} [signal] @returns {Promise<any>} */
export async function get(path, signal) {
  if (embedded) {
    const [base, query] = path.split("?");
    const found = embedded[path] ?? embedded[`${base}?axis=${new URLSearchParams(query).get("axis") ?? "step"}`] ?? embedded[base];
    if (found === undefined) throw new Refused("this exported page does not hold that; the page of etude ui does", 404);
    return found;
  }
  return answer(fetch(address(path), { signal, headers: { accept: "application/json" } }));
}

/** Ask the server to do something. @param {string} path @param {any} body @param {AbortSignal} [signal] @returns {Promise<any>} */
export async function post(path, body, signal) {
  if (embedded) throw new Refused("an exported page cannot act on runs; open them with etude ui", 403);
  const headers = { "content-type": "application/json", "x-etude": "1", accept: "application/json" };
  return answer(fetch(address(path), { method: "POST", headers, body: JSON.stringify(body), signal }));
}

/**
 * Listen to runs from a size of their journals on; listens again by itself, from where it was.
 * @param {string[]} runs
 * @param {number[]} since
 * @param {Record<string, (value: any) => void>} handlers by event; `connected` is told true or false
 * @returns {() => void} stops listening
 */
export function listen(runs, since, handlers) {
  if (embedded) return () => {};
  const sizes = new Map(runs.map((run, index) => [run, since[index] ?? 0]));
  let wait = FIRST_WAIT, timer = 0, isLost = false;
  /** @type {EventSource | null} */
  let source = null;
  const open = () => {
    const query = new URLSearchParams({ runs: runs.join(","), since: [...sizes.values()].join(",") });
    source = new EventSource(address(`/api/events?${query}`));
    source.onopen = () => {
      wait = FIRST_WAIT;
      handlers.connected?.(true);
      if (isLost) handlers.again?.(null);
      isLost = false;
    };
    source.onerror = () => {
      source?.close();
      isLost = true;
      handlers.connected?.(false);
      timer = window.setTimeout(open, wait);
      wait = Math.min(2 * wait, LONGEST_WAIT);
    };
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => {
        if (!("data" in event) || typeof event.data !== "string") return;
        const value = JSON.parse(event.data);
        if (value.run && value.size) sizes.set(value.run, value.size);
        handle(value);
      });
    }
  };
  const look = () => {
    if (document.hidden) {
      window.clearTimeout(timer);
      source?.close();
      source = null;
      isLost = true;
    } else if (!source) open();
  };
  document.addEventListener("visibilitychange", look);
  look();
  return () => {
    document.removeEventListener("visibilitychange", look);
    window.clearTimeout(timer);
    source?.close();
  };
}

/** The bytes of the journals of runs that the server has read, from which on `listen` tells what is new. @param {string[]} runs */
export const sizesOf = (runs) => Promise.all(runs.map((run) => get(`/api/runs/${encodeURIComponent(run)}/series?names=train%2Floss&points=2`).then((found) => found.size ?? 0, () => 0)));

/** @param {Promise<Response>} asked */
async function answer(asked) {
  let response;
  try {
    response = await asked;
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Refused("the server does not answer; start etude ui again, and open its link", 0);
  }
  const value = await response.json().catch(() => ({}));
  if (response.ok) return value;
  if (response.status === 401) throw new Refused("this page is not known to the server; open the link that etude ui printed", 401);
  throw new Refused(String(value.error || `the server answered ${response.status}`), response.status);
}
