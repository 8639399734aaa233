// @ts-check
// The report of a run, to read, print and take along; and its log.
import { html, useMemo } from "./vendor/preact.js";
import { address, isExported } from "./api.js";
import { moment } from "./format.js";
import { Empty, Loading, Problem, useAnswer } from "./parts.js";
import { prose } from "./prose.js";
import { change } from "./route.js";

/** @param {{id: string}} props */
export function Report({ id }) {
  const path = `/api/runs/${encodeURIComponent(id)}/report`;
  const { value, error, again } = useAnswer(path);
  const body = useMemo(() => value?.html && prose(value.html), [value]);
  if (error) return html`<${Problem} error=${error} again=${again} />`;
  if (!value) return html`<${Loading} text="Reading the report" />`;
  if (!body) return html`<${Empty}>No report is written yet: it is at the end of the run, or now by <code>etude report</code>.<//>`;
  return html`<div class="tools">
      ${!isExported && html`<a class="button" href=${address(`${path}.html`)} download>Download with its charts</a><a class="button" href=${address(`${path}.md`)} download>Markdown</a>`}
      <button onClick=${() => window.print()}>Print</button>
      ${value.written && html`<span class="muted">written ${moment(value.written)}</span>`}
    </div><article class="report">${body}</article>`;
}

/** @param {{id: string, query: Record<string, string>}} props */
export function Log({ id, query }) {
  const tail = query.tail ?? "200";
  const { value, error, again } = useAnswer(`/api/runs/${encodeURIComponent(id)}/log?tail=${encodeURIComponent(tail)}`);
  const words = (query.q ?? "").toLowerCase();
  if (error) return html`<${Problem} error=${error} again=${again} />`;
  if (!value) return html`<${Loading} text="Reading the log" />`;
  const lines = value.lines.filter((/** @type {string} */ line) => line.toLowerCase().includes(words));
  return html`<div class="tools"><input type="search" placeholder="Find in the log" aria-label="find in the log" value=${query.q ?? ""} onInput=${(/** @type {any} */ event) => change({ q: event.target.value })} />
      <select aria-label="lines" value=${tail} onChange=${(/** @type {any} */ event) => change({ tail: event.target.value })}>${["200", "1000", "2000"].map((each) => html`<option key=${each} value=${each}>last ${each} lines</option>`)}</select>
      <button onClick=${again}>Read again</button></div>
    ${lines.length ? html`<pre class="log" tabindex="0" role="region" aria-label="log">${lines.join("\n")}</pre>` : html`<${Empty}>No line has that.<//>`}`;
}
