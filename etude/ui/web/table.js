// @ts-check
// A table of any length, of which only the rows in view exist.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { download } from "./parts.js";

const HEIGHT = 41; // pixels of a row with its line, as parts.css has it
const MORE = 8; // rows beyond the window, so that scrolling shows no gap

/**
 * @typedef {{key: string, title: string, value: (row: any) => any, cell?: (row: any) => any, numeric?: boolean, least?: boolean}} Column
 */

/** The order of words, and of numbers within them. */
export const BY_WORDS = new Intl.Collator("en", { numeric: true });

/**
 * The rows in an order; those without a value come last either way.
 * @param {any[]} rows @param {Column | undefined} column @param {boolean} isDown
 */
export function ordered(rows, column, isDown) {
  if (!column) return rows;
  const valued = rows.map((row) => ({ row, value: comparable(column.value(row)) }));
  const order = (/** @type {any} */ a, /** @type {any} */ b) => {
    if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
    const either = typeof a === "number" && typeof b === "number" ? a - b : BY_WORDS.compare(String(a), String(b));
    return isDown ? -either : either;
  };
  return valued.sort((a, b) => order(a.value, b.value)).map(({ row }) => row);
}

/**
 * @param {{label: string, columns: Column[], rows: any[], sort: string, onSort: (sort: string) => void, chosen?: string[], keys?: Record<string, (row: any) => void>}} props
 *   sort: a column's key, with "-" before it for the greatest first; keys: what a key does with the active row
 */
export function LongTable({ label, columns, rows, sort, onSort, chosen = [], keys = {} }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const [view, setView] = useState({ top: 0, height: 800 });
  const [active, setActive] = useState(-1);
  const [reached, setReached] = useState(""); // the heading that Tab leads to; arrows lead to the others
  useEffect(() => {
    const at = /** @type {HTMLElement} */ (box.current);
    const look = () => setView({ top: at.scrollTop, height: at.clientHeight });
    const sized = new ResizeObserver(look);
    sized.observe(at);
    at.addEventListener("scroll", look, { passive: true });
    return () => {
      sized.disconnect();
      at.removeEventListener("scroll", look);
    };
  }, []);
  useLayoutEffect(() => {
    const at = box.current;
    if (!at || active < 0) return;
    const top = active * HEIGHT;
    if (top < at.scrollTop) at.scrollTop = top;
    else if (top + 2 * HEIGHT > at.scrollTop + at.clientHeight) at.scrollTop = top + 2 * HEIGHT - at.clientHeight;
  }, [active]);
  const start = Math.max(Math.floor(view.top / HEIGHT) - MORE, 0);
  const shown = rows.slice(start, start + Math.ceil(view.height / HEIGHT) + 2 * MORE);
  const press = (/** @type {KeyboardEvent} */ event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /** @type {Element} */ (event.target).closest("input, select")) return;
    const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 12, PageUp: -12, Home: -rows.length, End: rows.length }[event.key];
    if (steps) setActive(Math.min(Math.max(active + steps, 0), rows.length - 1));
    else if (keys[event.key] && rows[active] && event.target === box.current) keys[event.key](rows[active]);
    else return;
    event.preventDefault();
  };
  const [by, isDown] = [sort.replace(/^-/, ""), sort.startsWith("-")];
  const titled = columns.filter(({ title }) => title);
  const first = (titled.find(({ key }) => key === reached) ?? titled.find(({ key }) => key === by) ?? titled[0])?.key;
  const space = (/** @type {number} */ count, /** @type {string} */ key) => count > 0 && html`<tr key=${key} class="space" aria-hidden="true"><td colspan=${columns.length} ref=${(/** @type {HTMLElement | null} */ cell) => cell && (cell.style.height = `${count * HEIGHT}px`)}></td></tr>`;
  return html`<div class="grid" ref=${box} tabindex="0" role="region" aria-label=${label} onKeyDown=${press}>
    <table aria-rowcount=${rows.length + 1}>
      <thead><tr>${columns.map((column) => html`<th key=${column.key} scope="col" class=${column.numeric ? "number" : ""} aria-sort=${by === column.key ? (isDown ? "descending" : "ascending") : undefined}>
        ${column.title ? html`<button tabindex=${column.key === first ? undefined : -1} onFocus=${() => setReached(column.key)} onKeyDown=${aside} onClick=${() => onSort(nextSort(column, by, isDown))}>${column.title}${by === column.key ? (isDown ? " ↓" : " ↑") : ""}</button>` : html`<span class="unseen">choose</span>`}</th>`)}</tr></thead>
      <tbody>${space(start, "above")}
        ${shown.map((row, index) => html`<tr key=${row.id} aria-rowindex=${start + index + 2} class="${chosen.includes(row.id) ? "chosen" : ""} ${start + index === active ? "active" : ""}">${columns.map((column) => {
          const value = column.cell ? column.cell(row) : column.value(row);
          return html`<td key=${column.key} class=${column.numeric ? "number" : ""} title=${typeof value === "string" && value.length > 24 ? value : undefined}>${value}</td>`;
        })}</tr>`)}
        ${space(rows.length - start - shown.length, "below")}</tbody>
    </table></div>`;
}

/** Lead from a heading to the one beside it. @param {KeyboardEvent} event */
function aside(event) {
  const at = /** @type {HTMLElement} */ (event.target).closest("th"), way = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" }[event.key];
  if (!at || !way || event.ctrlKey || event.metaKey || event.altKey) return;
  at[/** @type {"nextElementSibling"} */ (way)]?.querySelector("button")?.focus();
  event.preventDefault();
}

/** Offer columns of rows as a file, with their values as they are. @param {string} name @param {{title: string, value: (row: any) => any}[]} columns @param {any[]} rows */
export function offerCsv(name, columns, rows) {
  const lines = [columns.map(({ title }) => title), ...rows.map((row) => columns.map(({ value }) => value(row)))];
  download(name, lines.map((cells) => `${cells.map(cellOf).join(",")}\n`).join(""), "text/csv");
}

/** A cell of a CSV file. A text that a spreadsheet would take for a formula gets a quote before it. @param {any} value */
function cellOf(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** @param {Column} column @param {string} by @param {boolean} isDown */
function nextSort(column, by, isDown) {
  if (by !== column.key) return column.numeric && !column.least ? `-${column.key}` : column.key;
  return isDown ? column.key : `-${column.key}`;
}

/** @param {any} value */
const comparable = (value) => (value === undefined || value === null || value === "" || (typeof value === "string" && /^(nan|-?inf)$/.test(value)) ? null : value);
