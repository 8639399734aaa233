// @ts-check
// Markdown of reports as nodes: never as HTML, no links, and images only where the server has the chart.
import { html } from "./vendor/preact.js";

const MARKS = /(`+)([\s\S]*?[^`])\1(?!`)|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|!\[([^\]]*)\]\(([^)\s]+)\)|\\([!-/:-@[-`{-~])|&(amp|lt|gt|quot|#39|#x27);/g;
const ENTITIES = /** @type {Record<string, string>} */ ({ amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'", "#x27": "'" });

/**
 * @param {string} text
 * @param {(name: string) => string | null} chart the address of a chart by its name
 * @returns {any[]}
 */
export function markdown(text, chart) {
  const lines = text.replace(/^---\n[\s\S]*?\n---\n/, "").replaceAll("\r", "").split("\n");
  const blocks = [];
  for (let at = 0; at < lines.length;) {
    const line = lines[at];
    const fence = /^(`{3,}|~{3,})/.exec(line);
    const heading = /^(#{1,6})\s+(.*)$/.exec(line);
    if (fence) {
      const end = lines.findIndex((each, index) => index > at && each.startsWith(fence[1]));
      const last = end < 0 ? lines.length : end;
      blocks.push(html`<pre>${lines.slice(at + 1, last).join("\n")}</pre>`);
      at = last + 1;
    } else if (heading) {
      const level = Math.min(heading[1].length + 1, 4); // the page has its own first heading
      blocks.push(level === 2 ? html`<h2>${inline(heading[2], chart)}</h2>` : level === 3 ? html`<h3>${inline(heading[2], chart)}</h3>` : html`<h4>${inline(heading[2], chart)}</h4>`);
      at += 1;
    } else if (/^\s*\|/.test(line) && /^\s*\|[\s:|-]+\|\s*$/.test(lines[at + 1] ?? "")) {
      const end = endOf(lines, at, (each) => /^\s*\|/.test(each));
      blocks.push(table(lines.slice(at, end), chart));
      at = end;
    } else if (/^\s*([-*+]|\d+[.)])\s/.test(line)) {
      const end = endOf(lines, at, (each) => /^\s*([-*+]|\d+[.)])\s|^\s+\S/.test(each));
      const items = lines.slice(at, end).join("\n").split(/\n(?=\s*(?:[-*+]|\d+[.)])\s)/);
      const body = items.map((item) => html`<li>${inline(item.replace(/^\s*([-*+]|\d+[.)])\s+/, "").replace(/\n\s*/g, " "), chart)}</li>`);
      blocks.push(/^\s*\d/.test(line) ? html`<ol>${body}</ol>` : html`<ul>${body}</ul>`);
      at = end;
    } else if (line.startsWith(">")) {
      const end = endOf(lines, at, (each) => each.startsWith(">"));
      blocks.push(html`<blockquote>${markdown(lines.slice(at, end).map((each) => each.replace(/^>\s?/, "")).join("\n"), chart)}</blockquote>`);
      at = end;
    } else if (!line.trim()) at += 1;
    else {
      const end = endOf(lines, at, (each) => each.trim() !== "" && !/^(#{1,6}\s|`{3}|~{3}|>|\s*\|)/.test(each)) || at + 1;
      blocks.push(html`<p>${inline(lines.slice(at, Math.max(end, at + 1)).join("\n"), chart)}</p>`);
      at = Math.max(end, at + 1);
    }
  }
  return blocks;
}

/** The first line from `at` on that does not belong. @param {string[]} lines @param {number} at @param {(line: string) => boolean} belongs */
function endOf(lines, at, belongs) {
  let end = at;
  while (end < lines.length && lines[end].trim() && belongs(lines[end])) end += 1;
  return end;
}

/** @param {string[]} lines @param {(name: string) => string | null} chart */
function table(lines, chart) {
  const cells = (/** @type {string} */ line) => line.trim().replace(/^\|/, "").replace(/\|$/, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
  const [head, ruler, ...rows] = lines.map(cells);
  const kind = (/** @type {number} */ index) => (/:$/.test(ruler[index] ?? "") ? "number" : "");
  return html`<div class="scroll" tabindex="0"><table>${head.some(Boolean) && html`<thead><tr>${head.map((cell, index) => html`<th scope="col" class=${kind(index)}>${inline(cell, chart)}</th>`)}</tr></thead>`}
    <tbody>${rows.map((row) => html`<tr>${row.map((cell, index) => html`<td class=${kind(index)}>${inline(cell, chart)}</td>`)}</tr>`)}</tbody></table></div>`;
}

/** @param {string} text @param {(name: string) => string | null} chart @returns {any[]} */
function inline(text, chart) {
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(MARKS)) {
    parts.push(text.slice(at, found.index));
    const [whole, , code, strong, emphasis, alternative, image, escaped, entity] = found;
    if (code !== undefined) parts.push(html`<code>${code.trim() || code}</code>`);
    else if (strong !== undefined) parts.push(html`<strong>${inline(strong, chart)}</strong>`);
    else if (emphasis !== undefined) parts.push(html`<em>${inline(emphasis, chart)}</em>`);
    else if (image !== undefined) {
      const address = chart(image);
      parts.push(address ? html`<figure class="drawn"><img src=${address} alt=${alternative} /></figure>` : alternative);
    } else parts.push(escaped ?? ENTITIES[entity] ?? whole);
    at = found.index + whole.length;
  }
  parts.push(text.slice(at));
  return parts.filter((part) => part !== "");
}
