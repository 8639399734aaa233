// @ts-check
// The address holds the whole view: `#/run/ID/samples?axis=tokens&smooth=0.6`.
import { useEffect, useState } from "./vendor/preact.js";

/** @typedef {{parts: string[], query: Record<string, string>}} Route */

/** @param {string} hash @returns {Route} */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decode);
  return { parts, query: Object.fromEntries(new URLSearchParams(query)) };
}

/** An address in the page. @param {string[]} parts @param {Record<string, any>} [query] values that are null or "" are left out */
export function link(parts, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/** Go to an address in the page. @param {string} to */
export function go(to) {
  location.hash = to;
}

/** Change values of the view and keep the page; no step back is made of it. @param {Record<string, any>} values */
export function change(values) {
  const { parts, query } = parse(location.hash);
  history.replaceState(null, "", link(parts, { ...query, ...values }));
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

/** The parts of a list in an address. @param {string | undefined} text */
export const listOf = (text) => (text ? text.split(",").filter(Boolean) : []);
/** A list for an address, with an entry put in or taken out. @param {string[]} list @param {string} entry */
export const toggled = (list, entry) => (list.includes(entry) ? list.filter((each) => each !== entry) : [...list, entry]).join(",");

/** The view that the address holds now. @returns {Route} */
export function useRoute() {
  const [route, setRoute] = useState(() => parse(location.hash));
  useEffect(() => {
    const look = () => setRoute(parse(location.hash));
    window.addEventListener("hashchange", look);
    return () => window.removeEventListener("hashchange", look);
  }, []);
  return route;
}

/** @param {string} part */
function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
