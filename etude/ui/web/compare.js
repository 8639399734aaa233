// @ts-check
// Runs side by side: what the figures say, the curves over each other, and what differs in the recipes.
import { html, useEffect, useMemo, useState } from "./vendor/preact.js";
import { get, listen, sizesOf } from "./api.js";
import { Chart, Swatch } from "./chart.js";
import { NOTHING, number, plural, seriesTitle, setting } from "./format.js";
import { Empty, Loading, Problem, useAnswer } from "./parts.js";
import { change, link, listOf, toggled } from "./route.js";
import { ViewTools, readView } from "./view.js";

const SHOWN = ["run", "id"]; // rows that the head of the table has
const FIRST = 8; // keys that are shown before one asks for all, so that the curves stay near
const MOST_LIVE = 50; // runs that are listened to at once

/** @param {any} props */
export function Compare({ query, theme }) {
  const asked = listOf(query.runs);
  const search = new URLSearchParams({ runs: asked.join(","), ...(query.baseline && asked.includes(query.baseline) ? { baseline: query.baseline } : {}) });
  const { value, error, again } = useAnswer(asked.length > 1 ? `/api/compare?${search}` : null);
  if (asked.length < 2) return html`<h1>Compare</h1><${Empty}>Choose two or more of <a href=${link(["runs"])}>the runs</a>.<//>`;
  if (error) return html`<h1>Compare</h1><${Problem} error=${error} again=${again} />`;
  if (!value) return html`<${Loading} text="Setting the runs side by side" />`;
  const ids = value.ids ?? asked, names = value.names ?? value.runs ?? ids;
  return html`<h1>${names.length} runs side by side</h1>
    ${(value.sentences ?? []).map((/** @type {string} */ each, /** @type {number} */ index) => html`<p key=${each} class=${index ? "note" : "lead"}>${each}</p>`)}
    <${Recipes} recipe=${value.recipe ?? {}} changes=${value.changes} names=${names} ids=${ids} />
    <${Curves} ids=${ids} names=${names} query=${query} theme=${theme} />
    <div class="stack">
      <${Figures} value=${value} ids=${ids} />
      ${(value.commands ?? []).length > 0 && html`<section><h2>To know more</h2>${value.commands.map((/** @type {string} */ each) => html`<pre key=${each}>${each}</pre>`)}</section>`}
    </div>`;
}

/** @param {{ids: string[], names: string[], query: Record<string, string>, theme: string}} props */
function Curves({ ids, names, query, theme }) {
  const view = useMemo(() => readView(query), [query.axis, query.from, query.to, query.smooth, query.log]);
  const [charts, setCharts] = useState(/** @type {any[]} */ ([]));
  const feed = useMemo(() => new EventTarget(), [ids.join()]);
  useEffect(() => {
    Promise.allSettled(ids.slice(0, 8).map((id) => get(`/api/runs/${encodeURIComponent(id)}`))).then((pages) => setCharts(together(pages.flatMap((page) => (page.status === "fulfilled" ? page.value.charts ?? [] : [])))));
  }, [ids.join()]);
  useEffect(() => {
    let close = () => {}, isGone = false;
    const live = ids.slice(0, MOST_LIVE);
    sizesOf(live).then((sizes) => {
      if (!isGone) close = listen(live, sizes, {
        points: (value) => feed.dispatchEvent(new CustomEvent("points", { detail: value })),
        again: () => feed.dispatchEvent(new Event("again")),
      });
    });
    return () => {
      isGone = true;
      close();
    };
  }, [ids.join()]);
  const hidden = listOf(query.hide);
  const words = (query.q ?? "").toLowerCase();
  const shown = charts.filter((/** @type {any} */ chart) => `${chart.title} ${chart.name}`.toLowerCase().includes(words));
  return html`<${ViewTools} view=${view} query=${query} />
    <h2 class="unseen">Curves</h2><div class="charts">${shown.map((/** @type {any} */ chart) => html`<${Chart} key=${chart.name} view=${view} onView=${change} hidden=${hidden} onHide=${(/** @type {string} */ run) => change({ hide: toggled(hidden, run) })} feed=${feed} shared="compare" theme=${theme} marks=${{ windows: [], best: null, level: null }}
      drawn=${{ title: chart.title, unit: chart.unit ?? null, isLog: chart.scale === "log" || (view.isLog && /loss|norm/.test(chart.name)), lines: ids.map((run, tone) => ({ run, name: chart.name, label: names[tone], tone, id: run, isRun: true })) }} />`)}</div>`;
}

/** A chart for each series that any of the runs has: the losses, then what else validation says; what but one run has comes last. @param {any[]} charts */
function together(charts) {
  const found = new Map();
  for (const chart of charts)
    for (const name of chart.series ?? []) found.set(name, { ...chart, name, title: titleOf(chart, name), runs: (found.get(name)?.runs ?? 0) + 1 });
  const kinds = ["validation/loss", "train/loss"];
  const order = (/** @type {any} */ chart) => (chart.runs < 2 ? 4 : kinds.includes(chart.name) ? kinds.indexOf(chart.name) : chart.name.startsWith("validation/") ? 2 : 3);
  return [...found.values()].sort((a, b) => order(a) - order(b));
}

/** @param {any} chart @param {string} name */
const titleOf = (chart, name) => (chart.series.length === 1 ? chart.title : sentence(seriesTitle(name)));
/** @param {string} text */
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** @param {{recipe: Record<string, any[]>, changes: any, names: string[], ids: string[]}} props */
function Recipes({ recipe, changes, names, ids }) {
  const [isAll, setAll] = useState(false);
  const all = Object.entries(recipe), rows = isAll || all.length <= FIRST + 2 ? all : all.slice(0, FIRST);
  const changed = (changes ?? []).some((/** @type {any[]} */ each) => each?.length);
  return html`<section><h2>What differs in the recipes</h2>${rows.length || changed ? html`<div class="scroll" tabindex="0" role="region" aria-label="differences of the recipes"><table class="grown">
    <thead><tr><th scope="col">key</th>${names.map((name, tone) => html`<th key=${ids[tone]} scope="col"><${Swatch} tone=${tone} /> <a class="label" dir="auto" title=${name} href=${link(["run", ids[tone]])}>${name}</a></th>`)}</tr></thead>
    <tbody>${rows.map(([key, values]) => html`<tr key=${key}><td><code>${key}</code></td>${values.map((each, index) => html`<td key=${index}>${each === null ? NOTHING : setting(each)}</td>`)}</tr>`)}
      ${changed && html`<tr><td>changed during the run</td>${changes.map((/** @type {any} */ each, /** @type {number} */ index) => html`<td key=${index}>${each?.length ? (typeof each === "string" ? each : each.map(changeText).join("; ")) : NOTHING}</td>`)}</tr>`}</tbody></table></div>
      ${rows.length < all.length && html`<button class="quiet" onClick=${() => setAll(true)}>Show all ${plural(all.length, "key")}</button>`}`
    : html`<${Empty}>Nothing.<//>`}</section>`;
}

/** A change that a run took. @param {any} change */
const changeText = (change) => (change?.key === undefined ? setting(change) : `${change.key} ${setting(change.value)} after step ${number(change.after_step)}`);

/** The table of `etude compare`, from the worst to the best; runs that differ in their seed share a column. @param {any} props */
function Figures({ value, ids }) {
  const rows = (value.rows ?? []).filter((/** @type {string[]} */ [name]) => !SHOWN.includes(name.trim()) && !(name.trim() in (value.recipe ?? {})));
  if (!rows.length) return null;
  const best = new Set(value.winner ?? []);
  const last = (/** @type {{runs: number[]}} */ column) => ids[column.runs[column.runs.length - 1]];
  return html`<section><h2>Figures</h2><div class="scroll" tabindex="0" role="region" aria-label="figures"><table class="grown">
    <thead><tr><th scope="col">figure</th>${value.columns.map((/** @type {{name: string, runs: number[]}} */ column) => html`<th key=${last(column)} scope="col" class="number"><a class="label" dir="auto" title=${column.name} href=${link(["run", last(column)])}>${column.name}</a>${column.runs.length > 1 ? html` <span class="muted">${plural(column.runs.length, "run")}</span>` : ""}${best.has(column.name) ? html` <span class="state good">ahead</span>` : ""}
      <div><label class="small"><input type="radio" name="baseline" checked=${column.runs.includes(value.place)} onChange=${() => change({ baseline: last(column) })} /> baseline</label></div></th>`)}</tr></thead>
    <tbody>${rows.map((/** @type {any[]} */ row, /** @type {number} */ index) => html`<tr key=${index}><th scope="row">${row[0].trim()}</th>${row.slice(1).map((each, column) => html`<td key=${column} class="number">${each ?? NOTHING}</td>`)}</tr>`)}</tbody></table></div></section>`;
}
