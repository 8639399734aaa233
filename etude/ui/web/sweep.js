// @ts-check
// A sweep: its trials by model and tier, what its knobs do, and what the metric costs.
import { html, useMemo } from "./vendor/preact.js";
import { NOTHING, duration, metricTitle, number, plural, setting, short } from "./format.js";
import { MANY, Parallel, Scatter } from "./drawings.js";
import { Empty, Icon, Loading, Problem, State, lookOf, useAnswer } from "./parts.js";
import { prose } from "./prose.js";
import { change, link } from "./route.js";
import { BY_WORDS, LongTable, offerCsv, ordered } from "./table.js";

const GLYPHS = /** @type {Record<string, string>} */ ({ finished: "✓", failed: "×", left: "○", running: "▸", paused: "‖", stopped: "▪", warning: "!" }); // where icons would be too many
/** @typedef {{name: string, run: string | null, state: string, tier: string, model: string, values: Record<string, any>, value: number | null, cost: number | null, isFront: boolean}} Trial */

/** @param {{id: string, query: Record<string, string>}} props */
export function Sweep({ id, query }) {
  const { value, error, again } = useAnswer(`/api/sweeps/${encodeURIComponent(id)}`);
  if (error) return html`<${Problem} error=${error} again=${again} />`;
  if (!value) return html`<${Loading} text="Reading the sweep; of thousands of trials it takes minutes" />`;
  return html`<${Found} value=${value} query=${query} />`;
}

/** What is found of a sweep; parts that a click does not change stay as they are. @param {{value: any, query: Record<string, string>}} props */
function Found({ value, query }) {
  const front = useMemo(() => new Set((value.front ?? []).map((/** @type {any} */ each) => (typeof each === "string" ? each : each.name))), [value]);
  const trials = useMemo(() => (value.trials ?? []).map((/** @type {any} */ each) => trialOf(each, front)), [value]);
  const keys = useMemo(() => knobsOf(trials), [trials]);
  const isLess = value.lower_is_better !== false;
  const metric = metricTitle(value.metric ?? "metric");
  const { brush = "", sort, x, y } = query;
  const before = useMemo(() => html`<${Advice} value=${value} trials=${trials} /><${Matrix} trials=${trials} metric=${metric} />`, [value]);
  const knobs = useMemo(() => html`<${Knobs} trials=${trials} keys=${keys} x=${x} y=${y} isLess=${isLess} metric=${metric} heat=${value.heat} />`, [value, x, y]);
  const threads = useMemo(() => html`<section><h2>By the knobs</h2><${Parallel} trials=${trials} keys=${keys} metric=${metric} isLess=${isLess} brush=${brush} onBrush=${(/** @type {string} */ brush) => change({ brush })} /></section>`, [value, brush]);
  const after = useMemo(() => html`<section><h2>Against cost</h2><${Scatter} trials=${trials} metric=${metric} isLess=${isLess} /></section><${Documents} documents=${value.documents ?? []} />`, [value]);
  const table = useMemo(() => html`<${Trials} trials=${trials} keys=${keys} sort=${sort ?? (isLess ? "value" : "-value")} metric=${metric} isLess=${isLess} />`, [value, sort]);
  const isBegun = trials.some((/** @type {Trial} */ trial) => trial.value !== null);
  return html`<h1>${value.name}</h1>
    <p class="muted">${plural(trials.length, "trial")}: ${countText(trials)}${value.eta_seconds >= 1 ? `; ${value.left?.words || `about ${duration(Math.round(value.eta_seconds))} left`}` : ""}</p>
    <div class="stack">${before}${isBegun ? [knobs, threads, after] : html`<${Empty}>What the knobs do and what they cost is drawn with the first value of a trial.<//>`}${table}</div>`;
}

/** @param {{value: any, trials: Trial[]}} props */
function Advice({ value, trials }) {
  const advice = value.recommendations ?? [], standings = Object.entries(value.standing ?? {}).filter(([, each]) => each?.best);
  if (!advice.length && !standings.length) return null;
  const runs = new Map(trials.map(({ name, run }) => [name, run]));
  const named = (/** @type {string} */ name) => (runs.get(name) ? html`<a href=${link(["run", runs.get(name) ?? ""])}>${name}</a>` : name);
  return html`<section><h2>What it found</h2>
    ${value.best && html`<p class="lead">The best is ${named(value.best)}. ${value.worth}</p>`}
    ${value.same_validation_rows === false && html`<p class="warn">The models were not measured on the same validation rows, so they are not held against each other.</p>`}
    ${standings.length > 0 && html`<h3>Best of each model</h3><dl class="list">${standings.map(([model, each]) => html`<div key=${model}><dt>${model}</dt><dd><strong>${named(each.best)}</strong>${each.not_distinguishable?.length ? `, and not told apart from it: ${each.not_distinguishable.join(", ")}` : ""}</dd></div>`)}</dl>`}
    ${advice.length > 0 && html`<div class="scroll" tabindex="0"><table><thead><tr><th scope="col">where it matters most</th><th scope="col">trial</th><th scope="col">why</th></tr></thead>
      <tbody>${advice.map((/** @type {any} */ each) => html`<tr key=${each.need}><td>${each.need}</td><td><strong>${named(each.trial)}</strong></td><td class="muted">${each.why}</td></tr>`)}</tbody></table></div>`}</section>`;
}

/** The sections of the report of the sweep. @param {{documents: any[]}} props */
const Documents = ({ documents }) => documents.length > 0 && html`<section><h2>The report</h2>${documents.map((each) => html`<details key=${each.name} class="section"><summary><h3>${each.title}</h3></summary><div class="report">${prose(each.html ?? "")}</div></details>`)}</section>`;

/** Trials by model and tier, each an icon that leads to its run. @param {{trials: Trial[], metric: string}} props */
function Matrix({ trials, metric }) {
  const tiers = [...new Set(trials.map((trial) => trial.tier))], models = [...new Set(trials.map((trial) => trial.model))];
  const at = grouped(trials, (trial) => JSON.stringify([trial.model, trial.tier]));
  const hereOf = (/** @type {string} */ model, /** @type {string} */ tier) => at.get(JSON.stringify([model, tier])) ?? [];
  const tiersOf = (/** @type {string} */ model) => tiers.filter((tier) => hereOf(model, tier).length);
  const isApart = models.every((model) => tiersOf(model).length === 1); // then a column of each tier would be empty but for its models
  const cell = (/** @type {Trial[]} */ here) => html`<div class="squares ${trials.length > MANY ? "many" : ""}">${here.map((trial) => html`<${Square} key=${trial.name} trial=${trial} metric=${metric} isMany=${trials.length > MANY} />`)}</div><div class="small muted">${countText(here)}</div>`;
  return html`<section><h2>Trials</h2><div class="scroll" tabindex="0" role="region" aria-label="trials by model and tier"><table class="grown">
    <thead><tr><th scope="col">model</th>${isApart ? html`<th scope="col">tier</th><th scope="col">trials</th>` : tiers.map((tier) => html`<th key=${tier} scope="col">${tier}</th>`)}</tr></thead>
    <tbody>${models.map((model) => html`<tr key=${model}><th scope="row">${model}</th>${isApart ? html`<td>${tiersOf(model)}</td><td>${cell(hereOf(model, tiersOf(model)[0]))}</td>`
      : tiers.map((tier) => html`<td key=${tier}>${hereOf(model, tier).length ? cell(hereOf(model, tier)) : NOTHING}</td>`)}</tr>`)}</tbody></table></div></section>`;
}

/** @param {{trial: Trial, metric: string, isMany: boolean}} props */
function Square({ trial, metric, isMany }) {
  const label = `${trial.name}: ${wordOf(trial.state)}${trial.value === null ? "" : `, ${metric} ${short(trial.value, 4)}`}`;
  const [name, tone] = lookOf(trial.state);
  const icon = isMany ? GLYPHS[name] ?? "?" : html`<${Icon} name=${name} />`;
  return trial.run ? html`<a class="square ${tone}" tabindex=${isMany ? -1 : undefined} href=${link(["run", trial.run])} aria-label=${label} title=${label}>${icon}</a>` : html`<span class="square" role="img" aria-label=${label} title=${label}>${icon}</span>`;
}

/** The mean metric over two knobs. @param {{trials: Trial[], keys: string[], x: string | undefined, y: string | undefined, isLess: boolean, metric: string, heat: any}} props */
function Knobs({ trials, keys: knobs, x: wantedX, y: wantedY, isLess, metric, heat }) {
  const keys = [...(new Set(trials.map((trial) => trial.model)).size > 1 ? ["model"] : []), ...knobs];
  if (keys.length < 2) return null;
  const pickOf = (/** @type {(string | undefined)[]} */ wanted, /** @type {string} */ other) => wanted.find((key) => key !== undefined && key !== other && keys.includes(key));
  const x = pickOf([wantedX, heat?.x, ...keys], "") ?? keys[0], y = pickOf([wantedY, heat?.y, ...keys], x) ?? keys[1];
  const at = (/** @type {Trial} */ trial, /** @type {string} */ key) => (key === "model" ? trial.model : trial.values[key]);
  const valued = trials.filter((trial) => trial.value !== null);
  const [xs, ys] = [x, y].map((key) => sorted([...new Set(trials.map((trial) => at(trial, key)).filter((each) => each !== undefined))]));
  const here = grouped(valued, (trial) => JSON.stringify([at(trial, x), at(trial, y)]));
  const cells = ys.map((row) => xs.map((column) => {
    const found = here.get(JSON.stringify([column, row])) ?? [];
    return { count: found.length, mean: found.length ? found.reduce((sum, trial) => sum + Number(trial.value), 0) / found.length : null };
  }));
  const means = cells.flat().flatMap(({ mean }) => (mean === null ? [] : [mean]));
  const [low, high] = [Math.min(...means), Math.max(...means)];
  const level = (/** @type {number} */ mean) => Math.min(7, Math.floor((8 * (isLess ? high - mean : mean - low)) / (high - low || 1)));
  const pick = (/** @type {string} */ name, /** @type {string} */ value) => html`<label class="line">${name === "x" ? "across" : "down"} <select value=${value} onChange=${(/** @type {any} */ event) => change({ [name]: event.target.value })}>${keys.map((key) => html`<option key=${key} value=${key}>${key}</option>`)}</select></label>`;
  return html`<section><h2>Two knobs</h2><div class="tools">${pick("x", x)}${pick("y", y)}<span class="muted">mean ${metric}; the stronger the colour, the better</span></div>
    <div class="scroll" tabindex="0" role="region" aria-label="mean ${metric} by ${x} and ${y}"><table class="matrix grown"><thead><tr><th scope="col">${y} ╲ ${x}</th>${xs.map((column) => html`<th key=${column} scope="col" class="number">${setting(column)}</th>`)}</tr></thead>
    <tbody>${ys.map((row, index) => html`<tr key=${row}><th scope="row">${setting(row)}</th>${cells[index].map(({ mean, count }, place) => html`<td key=${place} class="number ${mean === null ? "" : `heat-${level(mean)}`}" title=${plural(count, "trial")}>${mean === null ? NOTHING : short(mean, 4)}</td>`)}</tr>`)}</tbody></table></div></section>`;
}

/** @param {{trials: Trial[], keys: string[], sort: string, metric: string, isLess: boolean}} props */
function Trials({ trials, keys, sort, metric, isLess }) {
  const rows = trials.map((trial) => ({ ...trial, id: trial.name }));
  /** @type {import("./table.js").Column[]} */
  const columns = [
    { key: "state", title: "State", value: (trial) => trial.state, cell: (trial) => html`<${State} name=${trial.state} text=${wordOf(trial.state)} />` },
    { key: "name", title: "Trial", value: (trial) => trial.name, cell: (trial) => (trial.run ? html`<a href=${link(["run", trial.run])}>${trial.name}</a>` : trial.name) },
    { key: "model", title: "Model", value: (trial) => trial.model },
    { key: "value", title: metric, numeric: true, least: isLess, value: (trial) => trial.value, cell: (trial) => short(trial.value, 4) },
    { key: "cost", title: "Device time", numeric: true, least: true, value: (trial) => trial.cost, cell: (trial) => duration(trial.cost) },
    ...keys.map((key) => ({ key, title: key.split(".").pop() ?? key, numeric: trials.every((trial) => ["number", "undefined"].includes(typeof trial.values[key])), least: true, value: (/** @type {any} */ trial) => trial.values[key], cell: (/** @type {any} */ trial) => (key in trial.values ? setting(trial.values[key]) : NOTHING) })),
  ];
  if (!rows.length) return html`<${Empty}>The sweep has no trials yet.<//>`;
  return html`<section><div class="line"><h2>All trials</h2><button class="quiet" onClick=${() => offerCsv("trials.csv", columns, rows)} aria-label="all trials as CSV">CSV</button></div><${LongTable} label="trials" columns=${columns} rows=${ordered(rows, columns.find((column) => column.key === sort.replace(/^-/, "")), sort.startsWith("-"))} sort=${sort} onSort=${(/** @type {string} */ next) => change({ sort: next })} /></section>`;
}

/** @param {any} each @param {Set<string>} front @returns {Trial} */
function trialOf(each, front) {
  const { name } = each;
  const { value, cost_seconds: cost } = each;
  return {
    name, run: each.id ?? null, state: each.state ?? "left", tier: each.tier ?? "", model: each.model ?? "", values: each.values ?? {},
    value: typeof value === "number" ? value : null, cost: typeof cost === "number" ? cost : null, isFront: front.has(name),
  };
}

/** A state as a person says it. @param {string} state */
const wordOf = (state) => (state === "missing" ? "not started" : state);

/** Keys that have more than one value. @param {Trial[]} trials */
function knobsOf(trials) {
  const keys = [...new Set(trials.flatMap((trial) => Object.keys(trial.values)))];
  return keys.filter((key) => new Set(trials.map((trial) => JSON.stringify(trial.values[key]))).size > 1);
}

/** @param {any[]} values */
const sorted = (values) => values.sort((a, b) => (typeof a === "number" && typeof b === "number" ? a - b : BY_WORDS.compare(String(a), String(b))));
/** @param {Trial[]} trials @param {(trial: Trial) => string} key @returns {Map<string, Trial[]>} */
function grouped(trials, key) {
  const found = new Map();
  for (const trial of trials) found.has(key(trial)) ? found.get(key(trial)).push(trial) : found.set(key(trial), [trial]);
  return found;
}

/** How many trials are in each state, in words, the most first. @param {Trial[]} trials */
function countText(trials) {
  return [...grouped(trials, (trial) => trial.state)].sort(([, a], [, b]) => b.length - a.length).map(([state, { length }]) => `${number(length)} ${wordOf(state)}`).join(", ");
}
