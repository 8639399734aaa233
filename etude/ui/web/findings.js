// @ts-check
// What was noticed and judged about a run: findings, criteria, scores beside baselines, confusions.
import { html, useState } from "./vendor/preact.js";
import { number, plural, setting, short, signed } from "./format.js";
import { State } from "./parts.js";
import { link } from "./route.js";

const ORDER = ["error", "warning", "info"];
const FIRST = 5; // findings that are shown before one asks for all, so that the charts stay near

/** @param {{findings: any[], chosen: string | undefined, onChoose: (index: number | null) => void, from: string | null}} props `from`: the run that a new one may begin with */
export function Findings({ findings, chosen, onChoose, from }) {
  const order = findings.map((finding, index) => ({ finding, index })).sort((a, b) => ORDER.indexOf(a.finding.severity) - ORDER.indexOf(b.finding.severity));
  const [isAll, setAll] = useState(false);
  const shown = isAll ? order : order.filter(({ index }, place) => place < FIRST || chosen === String(index));
  return html`<section aria-label="findings">${shown.map(({ finding, index }) => html`<details key=${index} class="finding" open=${chosen === String(index)} onToggle=${(/** @type {any} */ event) => {
    if (event.currentTarget.open !== (chosen === String(index))) onChoose(event.currentTarget.open ? index : null);
  }}>
    <summary><${State} name=${finding.severity} text=${finding.severity === "info" ? "note" : finding.severity} /><strong>${finding.what}</strong><span class="muted">${finding.where ?? `step ${number(finding.step)}`}</span></summary>
    <dl>${factsOf(finding).map(([name, text]) => html`<div key=${name}><dt>${name}</dt><dd>${text}</dd></div>`)}
      ${from !== null && Object.keys(finding.changes ?? {}).length > 0 && html`<div><dt></dt><dd><a class="button" href=${link(["new"], { from, finding: index })}>New run with this change</a></dd></div>`}</dl>
  </details>`)}${shown.length < order.length && html`<button class="quiet" onClick=${() => setAll(true)}>Show all ${plural(order.length, "finding")}</button>`}</section>`;
}

/** @param {any} finding @returns {[string, any][]} */
function factsOf(finding) {
  const [cause, ...others] = finding.causes ?? [];
  const changes = Object.entries(finding.changes ?? {}).map(([key, value]) => html`<div key=${key}><code>${key} = ${setting(value)}</code></div>`);
  return /** @type {[string, any][]} */ ([
    ["evidence", finding.evidence],
    ["cause", cause && `${cause}${finding.confidence !== null && finding.confidence !== undefined ? ` (${Math.round(100 * finding.confidence)} % sure)` : ""}`],
    ["or", others.join("; ")],
    ["decided by", finding.decided_by],
    ["remedy", finding.advice],
    ["change", changes.length ? changes : null],
    ["not tested", (finding.not_tested ?? []).join("; ")],
    ["source", finding.source],
  ]).filter(([, text]) => text);
}

/** @param {{criteria: any[]}} props */
export function Criteria({ criteria }) {
  if (!criteria.length) return null;
  return html`<section><h2>Success criteria</h2><ul>${criteria.map((each) => {
    const state = typeof each.met === "string" ? each.met : each.met ? "met" : "missed";
    return html`<li key=${each.name} class="line"><${State} name=${state} /><span>${each.name}</span><span class="muted">${each.value === null || each.value === undefined ? "not measured" : short(each.value, 4)}</span></li>`;
  })}</ul></section>`;
}

/** Scores of the run beside what it has to beat: a dot and its interval each. @param {{scores: any[]}} props */
export function Scores({ scores }) {
  return scores.map((each, index) => {
    const systems = Object.entries(each.systems).map(([name, figures]) => ({ name, at: figures[each.metric] ?? Object.values(figures)[0] })).filter(({ at }) => at);
    const ends = systems.flatMap(({ at }) => at).filter((value) => typeof value === "number");
    const low = Math.min(...ends), high = Math.max(...ends);
    const x = (/** @type {number} */ value) => `${(4 + (92 * (value - low)) / (high - low || 1)).toFixed(1)}%`;
    return html`<section key=${index}><h2>Scores on ${number(each.rows)} ${each.split} rows</h2>
      <table class="dots"><caption class="muted">${each.metric} with intervals of 95 %, at step ${number(each.step)}</caption>
      <thead><tr><th scope="col">system</th><th scope="col"><span class="unseen">interval</span></th><th scope="col" class="number">${each.metric}</th><th scope="col" class="number">gain of the run</th></tr></thead>
      <tbody>${systems.map(({ name, at }) => html`<tr key=${name}><td>${name === "after" ? html`<strong>this run</strong>` : name === "before" ? "before training" : name.replaceAll("_", " ")}</td>
        <td><svg class="dot" role="img" aria-label="${short(at[0])}, from ${short(at[1])} to ${short(at[2])}"><line x1=${x(at[1])} x2=${x(at[2])} y1="8" y2="8" /><circle cx=${x(at[0])} cy="8" r="4" class=${name === "after" ? "own" : ""} /></svg></td>
        <td class="number">${short(at[0])}</td><td class="number">${each.gains?.[name] ? signed(each.gains[name][0]) : ""}</td></tr>`)}</tbody></table>
      ${(each.notes ?? []).map((/** @type {string} */ note) => html`<p key=${note} class="small muted">${note}</p>`)}
      <${Capabilities} score=${each} />
    </section>`;
  });
}

/** @param {{score: any}} props */
function Capabilities({ score }) {
  const rows = Object.entries(score.capabilities ?? {});
  if (!rows.length) return null;
  const systems = Object.keys(score.systems);
  return html`<details><summary>by capability</summary><div class="scroll" tabindex="0" role="region" aria-label="scores by capability"><table>
    <thead><tr><th scope="col">capability</th><th scope="col" class="number">rows</th>${systems.map((name) => html`<th key=${name} scope="col" class="number">${name === "after" ? "this run" : name}</th>`)}</tr></thead>
    <tbody>${rows.map(([name, values]) => html`<tr key=${name}><td>${name}</td><td class="number">${number(values.rows)}</td>${systems.map((system) => html`<td key=${system} class="number">${short(values[system])}</td>`)}</tr>`)}</tbody></table></div></details>`;
}

/** @param {{confusion: {labels: string[], counts: number[][], rows: number[], of: number} | null}} props */
export function Confusion({ confusion }) {
  if (!confusion?.labels?.length) return null;
  const { labels, counts, rows, of } = confusion;
  const share = (/** @type {number} */ row, /** @type {number} */ column) => counts[row][column] / (rows[row] || 1);
  return html`<section><h2>Confusions</h2><div class="scroll" tabindex="0" role="region" aria-label="confusion matrix"><table class="matrix">
    <caption class="muted">Rows are the labels, columns what the run said${labels.length < of ? `; the ${labels.length} of ${number(of)} labels with the most rows` : ""}.</caption>
    <thead><tr><th scope="col"><span class="unseen">label</span></th>${labels.map((name) => html`<th key=${name} scope="col" class="number"><${Label} name=${name} /></th>`)}<th scope="col" class="number">recall</th></tr></thead>
    <tbody>${labels.map((name, row) => html`<tr key=${name}><th scope="row"><${Label} name=${name} /></th>${counts[row].map((count, column) => html`<td key=${column} class="number heat-${Math.min(Math.floor(share(row, column) * 8), 7)}">${number(count)}</td>`)}<td class="number">${(100 * share(row, row)).toFixed(0)} %</td></tr>`)}</tbody></table></div></section>`;
}

/** The name of a label; a long one is told whole on pointing. @param {{name: string}} props */
const Label = ({ name }) => html`<span class="label" dir="auto" title=${name}>${name}</span>`;

/** Scores of each label in an evaluation. @param {{labels: {step: number, names: string[], scores: Record<string, (number | null)[]>, of: number} | null}} props */
export function Labels({ labels }) {
  if (!labels) return null;
  const { names, scores, step, of } = labels;
  return html`<section><h2>By label</h2><div class="scroll" tabindex="0" role="region" aria-label="scores by label"><table>
    <caption class="muted">In validation at step ${number(step)}${names.length < of ? `; the first ${names.length} of ${number(of)} labels` : ""}</caption>
    <thead><tr><th scope="col">label</th>${Object.keys(scores).map((name) => html`<th key=${name} scope="col" class="number">${name}</th>`)}</tr></thead>
    <tbody>${names.map((name, row) => html`<tr key=${name}><th scope="row"><${Label} name=${name} /></th>${Object.entries(scores).map(([figure, values]) => html`<td key=${figure} class="number">${short(values[row])}</td>`)}</tr>`)}</tbody></table></div></section>`;
}
