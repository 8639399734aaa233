// @ts-check
// The data that a run learnt from: its counts, and rows with what is scored in them.
import { html, useState } from "./vendor/preact.js";
import { isExported } from "./api.js";
import { Empty, Loading, Problem, Table, useAnswer } from "./parts.js";

/** @param {{id: string}} props */
export function Data({ id }) {
  const [isThorough, setThorough] = useState(false);
  const path = `/api/runs/${encodeURIComponent(id)}/data`;
  const counts = useAnswer(`${path}?rows=0`), quick = useAnswer(path), whole = useAnswer(isThorough ? `${path}?thorough=1` : null);
  const { value, error, again } = whole.value ? whole : quick.value || quick.error ? quick : counts;
  const isReading = !quick.value && !quick.error;
  if (error) return html`<${Problem} error=${error} again=${again} />`;
  if (!value) return html`<${Loading} text="Reading the data" />`;
  const { tables = [], notes = [], samples = [], problem } = value;
  if (!tables.length && !samples.length && !problem && !isReading) return html`<${Empty}>The run has recorded nothing of its data yet.<//>`;
  return html`<div class="stack">
    <${Problem} error=${problem ? new Error(problem) : null} />
    ${!isExported && html`<div class="line"><button disabled=${isThorough && !whole.error} onClick=${() => (isThorough ? whole.again() : setThorough(true))}>Look through all rows</button>
      <span class="muted" role="status">${whole.value ? "All rows were looked through." : isThorough && !whole.error ? "Looking through all rows …" : "for duplicates, leaks and what cleaning would take out; of much data it takes minutes"}</span></div>`}
    <${Problem} error=${whole.error} />
    ${notes.map((/** @type {string} */ note) => html`<p key=${note}>${note}</p>`)}
    ${tables.map((/** @type {any} */ table) => html`<section key=${table.title}>${table.title && html`<h2>${table.title.charAt(0).toUpperCase() + table.title.slice(1)}</h2>`}<${Table} isGrown=${true} columns=${table.columns} rows=${table.rows} numeric=${numericOf(table.rows)} />
      ${(table.examples ?? []).length > 0 && html`<details><summary>examples</summary>${table.examples.map((/** @type {any} */ each, /** @type {number} */ index) => html`<pre key=${index} class="text">${typeof each === "string" ? each : JSON.stringify(each, null, 1)}</pre>`)}</details>`}</section>`)}
    ${(samples.length > 0 || isReading) && html`<section><h2>Rows as they are learnt</h2>${isReading ? html`<${Loading} text="Reading the rows" />` : html`<${Rows} samples=${samples} />`}</section>`}
  </div>`;
}

/** Rows with what is scored and what is only read. @param {{samples: any[]}} props */
export const Rows = ({ samples }) => html`<p>Plain text is scored, and learnt; <span class="unscored">what is slanted is only read.</span></p>
  <ol class="timeline">${samples.map((sample, index) => html`<li key=${index}>${html`<div class="line"><strong>${sample.title ?? `sample ${sample.sample ?? index}`}</strong>${sample.tokens ? html`<span class="muted">${sample.scored} of ${sample.tokens} tokens scored</span>` : ""}${sample.labels && html`<span class="tag">${[sample.labels].flat().join(", ")}</span>`}</div>`}
    <pre class="text ${sample.scored < sample.tokens / 2 ? "few" : ""}">${(sample.parts ?? []).map((/** @type {any} */ part, /** @type {number} */ at) => (part.scored ? html`<mark key=${at}>${part.text}</mark>` : html`<span key=${at} class="unscored">${part.text}</span>`))}</pre></li>`)}</ol>`;

/** Columns whose cells are figures. @param {any[][]} rows */
const numericOf = (rows) => (rows[0] ?? []).map((_, index) => index).filter((index) => index > 0 && rows.every((row) => /^[\d.,\s%–+−-]*([kMGT]?B|s|min|h)?$/.test(String(row[index] ?? ""))));
