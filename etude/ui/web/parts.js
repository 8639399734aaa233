// @ts-check
// Parts that every page is made of: icons, states, messages, tabs, dialogs.
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { get } from "./api.js";
import { NOTHING, plural } from "./format.js";

const FEW = 50; // choices that a list has room for
const FIRST = 20; // of many things
const SAY_EVERY = 10000; // milliseconds between two changes of the line that screen readers speak

const ICONS = {
  running: "M5 3.500v9l7.500-4.500z",
  paused: "M4.500 3.500h2.500v9h-2.500zM9 3.500h2.500v9h-2.500z",
  stopped: "M4 4h8v8h-8z",
  finished: "M6.300 12.200 2.300 8.200l1.400-1.400 2.600 2.600 6-6 1.400 1.400z",
  failed: "M4.200 2.800 8 6.600l3.800-3.800 1.400 1.400L9.400 8l3.800 3.800-1.400 1.400L8 9.400l-3.800 3.800-1.400-1.400L6.600 8 2.800 4.200z",
  warning: "M8 1.500 15.200 14H.8zM7.200 6v4h1.600V6zm0 5v1.600h1.600V11z",
  info: "M8 1.200a6.800 6.800 0 1 1 0 13.600A6.800 6.800 0 0 1 8 1.200zM7.200 7v5h1.600V7zm0-3v1.700h1.600V4z",
  unknown: "M8 1.200a6.800 6.800 0 1 1 0 13.600A6.800 6.800 0 0 1 8 1.200zM7.200 10.800v1.600h1.600v-1.600zM5.400 6h1.500c0-.7.5-1.100 1.100-1.100.7 0 1.100.4 1.100 1 0 1.200-1.900 1.200-1.900 3.500h1.500c0-1.500 2-1.600 2-3.600 0-1.400-1.100-2.400-2.700-2.400C6.500 3.400 5.400 4.400 5.400 6z",
  left: "M8 2.200a5.800 5.800 0 1 1 0 11.600A5.800 5.800 0 0 1 8 2.200zm0 1.500a4.300 4.300 0 1 0 0 8.600 4.300 4.300 0 0 0 0-8.600z",
  pin: "M5 1.500h6v1.500l-1 .7v4l2.500 2v1.500H8.800v4h-1.600v-4H3.500V9.700L6 7.700v-4L5 3z",
  auto: "M8 1.500a6.500 6.500 0 1 1 0 13 6.500 6.500 0 0 1 0-13zM8 3v10A5 5 0 0 0 8 3z",
  light: "M8 5a3 3 0 1 1 0 6 3 3 0 0 1 0-6zM7.300 1h1.400v2.500H7.300zM7.300 12.500h1.400V15H7.300zM1 7.300h2.500v1.400H1zM12.500 7.300H15v1.400h-2.500zM2.600 3.600l1-1 1.800 1.800-1 1zM10.600 11.600l1-1 1.800 1.800-1 1zM2.600 12.400l1.800-1.800 1 1-1.800 1.800zM10.600 4.400l1.800-1.800 1 1-1.800 1.800z",
  dark: "M6.500 1.800a6.400 6.400 0 1 0 7.700 7.700A5.200 5.200 0 0 1 6.500 1.800z",
  star: "m8 1.500 2 4.300 4.700.6-3.500 3.200.9 4.700L8 12l-4.100 2.300.9-4.700L1.300 6.400 6 5.800z",
};
/** Words, icon and tone of what a run or a trial can be. @type {Record<string, [keyof ICONS, string]>} */
const STATES = {
  running: ["running", "accent"], censored: ["paused", "plain"], paused: ["paused", "plain"], stopped: ["stopped", "plain"], finished: ["finished", "good"],
  done: ["finished", "good"], "ended early": ["finished", "good"], failed: ["failed", "bad"], killed: ["warning", "warn"], damaged: ["warning", "bad"],
  error: ["failed", "bad"], warning: ["warning", "warn"], info: ["info", "plain"], unknown: ["unknown", "plain"],
  met: ["finished", "good"], removed: ["warning", "warn"], missing: ["left", "plain"], missed: ["failed", "bad"], open: ["left", "plain"], left: ["left", "plain"], waiting: ["left", "plain"],
};

/** The icon and the tone of a state. @param {string} name @returns {[string, string]} */
export const lookOf = (name) => STATES[name] ?? STATES[name.startsWith("not started") ? "left" : "unknown"];

/** @param {{name: string}} props */
export function Icon({ name }) {
  const path = ICONS[/** @type {keyof ICONS} */ (name)] ?? ICONS.unknown;
  return html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path fill-rule="evenodd" d=${path} /></svg>`;
}

/** A state by icon and word, never by colour alone. @param {{name: string, text?: string}} props */
export function State({ name, text }) {
  const [icon, tone] = lookOf(name);
  return html`<span class="state ${tone}"><${Icon} name=${icon} /><span class="word">${text ?? name}</span></span>`;
}

/** @param {{error: Error | null, again?: () => void}} props */
export function Problem({ error, again }) {
  if (!error) return null;
  return html`<div class="problem" role="alert"><${Icon} name="warning" /><span>${error.message}</span>
    ${again && html`<button class="quiet" onClick=${again}>Try again</button>`}</div>`;
}

/** @param {{children?: any}} props */
export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

/** @param {{text?: string}} props */
export const Loading = ({ text = "Reading" }) => html`<p class="empty" role="status">${text} …</p>`;

/** Rows of a name and a text. @param {{rows: [any, any][]}} props */
export const Facts = ({ rows }) => html`<dl class="facts">${rows.map(
  ([name, text]) => html`<div key=${name}><dt>${name}</dt><dd>${text ?? NOTHING}</dd></div>`)}</dl>`;

/** A plain table, as wide as its page or as its cells need; in a narrow window a row of many cells is a list of them. @param {{columns: any[], rows: any[][], caption?: string, numeric?: number[], isGrown?: boolean}} props */
export function Table({ columns, rows, caption, numeric = [], isGrown = false }) {
  const kind = (/** @type {number} */ index) => (numeric.includes(index) ? "number" : "");
  return html`<div class="scroll" tabindex="0" role=${caption ? "region" : undefined} aria-label=${caption}><table class="${isGrown ? "grown" : ""} ${columns.length > 3 ? "stacked" : ""}">
    ${caption && html`<caption>${caption}</caption>`}
    <thead><tr>${columns.map((each, index) => html`<th scope="col" class=${kind(index)}>${each}</th>`)}</tr></thead>
    <tbody>${rows.map((row) => html`<tr>${row.map((each, index) => html`<td class=${kind(index)} data-of=${columns[index]}>${each}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

/** Links of which one is where we are. @param {{label: string, items: [string, string][], current: string}} props */
export const Tabs = ({ label, items, current }) => html`<nav class="tabs" aria-label=${label}>${items.map(
  ([text, href]) => html`<a key=${text} href=${href} aria-current=${text === current ? "page" : undefined}>${text}</a>`)}</nav>`;

/** One choice of a few. @param {{label: string, name: string, items: [string, string][], value: string, onChange: (value: string) => void}} props */
export const Choice = ({ label, name, items, value, onChange }) => html`<fieldset class="choice"><legend>${label}</legend>${items.map(
  ([key, text]) => html`<label key=${key}><input type="radio" name=${name} checked=${key === value} onChange=${() => onChange(key)} /><span>${text}</span></label>`)}</fieldset>`;

/**
 * One of any number of choices: a list, or of many a field that lists those which have what was typed.
 * @param {{label: string, none: string, value: string, items: [string, string][], onChange: (key: string) => void}} props
 *   none: words for no choice, whose key is ""; items: keys and texts
 */
export function Pick({ label, none, value, items, onChange }) {
  const [typed, setTyped] = useState(/** @type {string | null} */ (null));
  if (items.length <= FEW) return html`<select class="pick" aria-label=${label} value=${value} onChange=${(/** @type {any} */ event) => onChange(event.target.value)}>
    <option value="">${none}</option>${items.map(([key, text]) => html`<option key=${key} value=${key}>${text}</option>`)}</select>`;
  const found = items.filter(([, text]) => text.toLowerCase().includes((typed ?? "").toLowerCase()));
  const take = (/** @type {string} */ text, isDone = false) => {
    const item = items.find((each) => each.includes(text)) ?? (isDone && found.length === 1 ? found[0] : undefined);
    if (item || text === "") onChange(item?.[0] ?? "");
    setTyped(item || isDone ? null : text);
  };
  const list = `list-${label.replace(/\W/g, "-")}`;
  return html`<input type="search" class="pick" list=${list} aria-label=${label} placeholder=${none} value=${typed ?? items.find(([key]) => key === value)?.[1] ?? ""}
      onInput=${(/** @type {any} */ event) => take(event.target.value)} onChange=${(/** @type {any} */ event) => take(event.target.value, true)} />
    <datalist id=${list}>${found.slice(0, FEW).map(([key, text]) => html`<option key=${key} value=${text} />`)}</datalist>`;
}

/** The first of many things, and all of them once one asks. @param {{items: any[], noun: string, draw: (item: any) => any}} props */
export function Few({ items, noun, draw }) {
  const [isAll, setAll] = useState(false);
  const shown = isAll || items.length <= FIRST + 2 ? items : items.slice(0, FIRST);
  return html`<ul>${shown.map(draw)}</ul>${shown.length < items.length && html`<button class="quiet" onClick=${() => setAll(true)}>Show all ${plural(items.length, noun)}</button>`}`;
}

/** A modal dialog; Esc closes it. @param {{title: string, onClose: () => void, children?: any}} props */
export function Dialog({ title, onClose, children }) {
  const at = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    at.current?.showModal();
  }, []);
  return html`<dialog ref=${at} aria-label=${title} onClose=${onClose}><h2>${title}</h2>${children}</dialog>`;
}

/**
 * What the server says at a path, read again when the path or `version` changes; the last answer stays meanwhile.
 * @param {string | null} path @param {any} [version] @returns {{value: any, error: Error | null, again: () => void}}
 */
export function useAnswer(path, version) {
  const found = useReading(path, (signal) => get(String(path), signal));
  const first = useRef(version);
  useEffect(() => {
    if (first.current !== version) found.again();
    first.current = version;
  }, [version]);
  return found;
}

/**
 * What a function reads of a thing, and reads again when it is asked to. One question at a time: a server that answers
 * more slowly than news come is not asked in vain. An error leaves what was read before.
 * @param {string | null} key of the thing; null for none
 * @param {(signal: AbortSignal, before: any) => Promise<any>} read
 * @returns {{value: any, error: Error | null, again: () => void}}
 */
export function useReading(key, read) {
  const [state, setState] = useState({ key, value: /** @type {any} */ (null), error: /** @type {Error | null} */ (null) });
  const [turn, setTurn] = useState(0);
  const isAsking = useRef(false), isDue = useRef(false);
  const { value, error } = state.key === key ? state : { value: null, error: null };
  useEffect(() => {
    if (key === null) return undefined;
    const asked = new AbortController();
    isAsking.current = true;
    read(asked.signal, value).then((found) => ({ key, value: found, error: null }), (error) => ({ key, value, error })).then((next) => {
      if (asked.signal.aborted) return;
      setState(next);
      isAsking.current = false;
      if (isDue.current) setTurn((/** @type {number} */ old) => old + 1);
      isDue.current = false;
    });
    return () => {
      asked.abort();
      isAsking.current = isDue.current = false;
    };
  }, [key, turn]);
  const again = () => {
    if (isAsking.current) isDue.current = true;
    else setTurn((/** @type {number} */ old) => old + 1);
  };
  return { value, error, again };
}

/** True while a media query holds. @param {string} query */
export function useMedia(query) {
  const [holds, setHolds] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const media = matchMedia(query);
    const look = () => setHolds(media.matches);
    media.addEventListener("change", look);
    return () => media.removeEventListener("change", look);
  }, [query]);
  return holds;
}

let lastSaid = -SAY_EVERY, saying = 0;
/** Say a change to who listens rather than looks: politely, the latest words at most every ten seconds. @param {string} text */
export function say(text) {
  window.clearTimeout(saying);
  saying = window.setTimeout(() => {
    const line = document.getElementById("said");
    if (line) line.textContent = text;
    lastSaid = performance.now();
  }, Math.max(0, lastSaid + SAY_EVERY - performance.now()));
}

/** Offer a text as a file. @param {string} name @param {string} text @param {string} type */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const anchor = document.createElement("a");
  anchor.href = url;
  anchor.download = name;
  anchor.click();
  URL.revokeObjectURL(url);
}
