// @ts-check
// The runs of the folders: found, sorted, held against one of them, chosen to compare.
import { html, useEffect, useMemo } from "./vendor/preact.js";
import { get, isExported, listen } from "./api.js";
import { NOTHING, decimal, duration, metricTitle, moment, number, plural, short, signed } from "./format.js";
import { Empty, Few, Icon, Loading, Pick, Problem, State, say, useMedia, useReading } from "./parts.js";
import { change, go, link, listOf, toggled } from "./route.js";
import { BY_WORDS, LongTable, offerCsv, ordered } from "./table.js";

const USUAL = ["status", "name", "model", "data", "best", "gap", "step", "speed", "time", "findings", "curve"];
const NARROW = ["status", "name", "best", "curve"];
const LOOK_EVERY = 5000; // milliseconds, where events do not come

/** @param {{query: Record<string, string>, isReadOnly: boolean, about: any}} props */
export function Runs({ query, isReadOnly, about }) {
  const { value, error, again } = useRuns();
  const isNarrow = useMedia("(max-width: 720px)");
  const chosen = listOf(query.runs);
  const runs = value?.runs ?? [];
  const baseline = runs.find((/** @type {any} */ run) => run.id === query.baseline);
  const trials = runs.filter((/** @type {any} */ run) => run.sweep).length, isWhole = query.trials !== "0";
  const toggle = (/** @type {string} */ id) => change({ runs: toggled(chosen, id) });
  const pin = (/** @type {string} */ id) => change({ baseline: id === query.baseline ? null : id });
  const toCompare = link(["compare"], { runs: chosen.join(","), baseline: query.baseline });
  const columns = columnsOf({ baseline, chosen, toggle, pin });
  const names = query.columns ? listOf(query.columns) : isNarrow ? NARROW : USUAL;
  const shown = columns.filter((column) => column.key === "choose" || names.includes(column.key));
  const sort = query.sort ?? "-created";
  const rows = useMemo(() => {
    const words = (query.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const found = runs.filter((/** @type {any} */ run) => (isWhole || !run.sweep) && (!query.state || run.status === query.state) && (!query.tag || run.tags?.includes(query.tag)) && words.every((word) => textOf(run).includes(word)));
    const order = ordered(found, columns.find((column) => column.key === sort.replace(/^-/, "")), sort.startsWith("-"));
    return baseline ? [baseline, ...order.filter((run) => run !== baseline)] : order;
  }, [runs, query.q, query.state, query.tag, sort, isWhole, baseline]);
  if (!value) return error ? html`<${Problem} error=${error} again=${again} />` : html`<${Loading} text="Reading the runs" />`;
  const pick = (/** @type {string} */ key) => change({ columns: toggled(names, key) });
  return html`<h1>Runs</h1>
    <${Problem} error=${error} again=${again} />
    ${runs.length > 0 && html`<div class="tools">
      <input type="search" placeholder="Name, model, data, tag, state" aria-label="find runs" value=${query.q ?? ""} onInput=${(/** @type {any} */ event) => change({ q: event.target.value })} onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Escape" && change({ q: null })} />
      <${Filter} name="state" value=${query.state} values=${runs.map((/** @type {any} */ run) => run.status)} />
      <${Filter} name="tag" value=${query.tag} values=${runs.flatMap((/** @type {any} */ run) => run.tags ?? [])} />
      <span class="muted" role="status">${rows.length === runs.length ? plural(runs.length, "run") : `${rows.length.toLocaleString("en-US")} of ${plural(runs.length, "run")}`}</span>
      ${trials > 0 && trials < runs.length && html`<label class="line check"><input type="checkbox" checked=${isWhole} onChange=${() => change({ trials: isWhole ? "0" : null })} />with ${plural(trials, "trial")} of sweeps</label>`}
      <span class="grow"></span>
      ${baseline && html`<button class="quiet" onClick=${() => change({ baseline: null })} title="unpin"><${Icon} name="pin" /><span class="pinned">against ${baseline.name}</span> ×</button>`}
      <details class="menu"><summary>Columns</summary><div>${columns.filter((column) => column.key !== "choose").map((column) => html`<label key=${column.key}><input type="checkbox" checked=${names.includes(column.key)} onChange=${() => pick(column.key)} />${column.title}</label>`)}</div></details>
      ${rows.length > 0 && html`<button onClick=${() => offerCsv("runs.csv", columns.filter(({ key }) => !["choose", "curve", "findings"].includes(key)), rows)} title="all columns of these runs as a file">CSV</button>`}
      ${chosen.length > 0 && html`<button class="quiet" onClick=${() => change({ runs: null })}>Clear</button>`}
      <a class="button ${chosen.length > 1 ? "main" : ""}" href=${chosen.length > 1 ? toCompare : undefined} aria-disabled=${chosen.length > 1 ? undefined : "true"} role=${chosen.length > 1 ? undefined : "link"}>Compare${chosen.length ? ` ${chosen.length}` : ""}</a>
    </div>`}
    ${runs.length ? html`<${LongTable} label="runs" columns=${shown} rows=${rows} sort=${sort} onSort=${(/** @type {string} */ next) => change({ sort: next })} chosen=${chosen}
      keys=${{ Enter: (/** @type {any} */ run) => go(link(["run", run.id])), x: (/** @type {any} */ run) => toggle(run.id), p: (/** @type {any} */ run) => pin(run.id), c: () => chosen.length > 1 && go(toCompare) }} /><p class="hint small muted" aria-hidden="true">↑ ↓ to a run, Enter opens it, x chooses it, p pins it as the baseline, c compares those chosen</p>` : html`<${NoRuns} folders=${about.folders ?? []} isReadOnly=${isReadOnly} />`}
    ${runs.length > 0 && !rows.length && html`<${Empty}>No run is like that. <button class="quiet" onClick=${() => change({ q: null, state: null, tag: null })}>Show all</button><//>`}
    <div class="stack below"><${Sweeps} sweeps=${value.sweeps ?? []} /><${Damaged} damaged=${value.damaged ?? []} /></div>`;
}

/** A choice among what the runs have, with their counts; nothing where all have the same. @param {{name: string, value: string | undefined, values: string[]}} props */
function Filter({ name, value, values }) {
  const counts = new Map();
  for (const each of values) counts.set(each, (counts.get(each) ?? 0) + 1);
  if (value) counts.set(value, counts.get(value) ?? 0);
  if (!counts.size || (name === "state" && counts.size === 1 && !value)) return null;
  const items = [...counts].sort(([a], [b]) => BY_WORDS.compare(a, b)).map(([each, count]) => [each, `${each} (${number(count)})`]);
  return html`<${Pick} label=${name} none="any ${name}" value=${value ?? ""} items=${items} onChange=${(/** @type {string} */ key) => change({ [name]: key })} />`;
}

/** @param {{folders: string[], isReadOnly: boolean}} props */
const NoRuns = ({ folders, isReadOnly }) => html`<${Empty}>There are no runs in ${folders.length ? folders.map((folder, index) => html`${index ? " and " : ""}<code key=${folder}>${folder}</code>`) : "the folders that this page shows"}.
  ${isReadOnly ? html` <code>etude demo</code> makes one.` : html` <a href=${link(["new"])}>Start one</a>, or let <code>etude demo</code> make one.`}<//>`;

/** @param {any[]} named */
const byName = (named) => [...named].sort((a, b) => BY_WORDS.compare(a.name, b.name));

/** @param {{sweeps: any[]}} props */
function Sweeps({ sweeps }) {
  if (!sweeps.length) return null;
  return html`<section><h2>Sweeps</h2><${Few} items=${byName(sweeps)} noun="sweep" draw=${(/** @type {any} */ sweep) => html`<li key=${sweep.id} class="line"><a href=${link(["sweep", sweep.id])} dir="auto">${sweep.name}</a>
    <span class="muted">${Object.entries(sweep.trials ?? {}).filter(([, count]) => count).map(([name, count]) => `${number(count)} ${name}`).join(", ")}</span></li>`} /></section>`;
}

/** @param {{damaged: any[]}} props */
function Damaged({ damaged }) {
  if (!damaged.length) return null;
  return html`<section><h2>Not shown</h2><${Few} items=${byName(damaged)} noun="folder" draw=${(/** @type {any} */ each) => html`<li key=${each.name} class="line"><${State} name="damaged" text=${each.name} /><span class="muted">${each.problem}</span></li>`} /></section>`;
}

/** The runs now, and again when the server says that any changed. */
function useRuns() {
  const found = useReading("runs", async (signal, before) => {
    const value = await get(`/api/runs${before ? `?since=${encodeURIComponent(before.version)}` : ""}`, signal);
    return value.runs ? value : before;
  });
  const { value, again } = found;
  useEffect(() => listen([], [], { runs: again, again }), []);
  useEffect(() => {
    if (isExported) return undefined;
    const timer = setInterval(() => !document.hidden && again(), LOOK_EVERY);
    return () => clearInterval(timer);
  }, []);
  useEffect(() => {
    const running = value?.runs?.filter((/** @type {any} */ run) => run.status === "running").length;
    if (value) say(`${plural(value.runs.length, "run")}, ${running} running`);
  }, [value]);
  return found;
}

/** The columns. What a row holds is reached by the keys of the table, not by Tab, which leads past it. @param {{baseline: any, chosen: string[], toggle: (id: string) => void, pin: (id: string) => void}} given @returns {import("./table.js").Column[]} */
function columnsOf({ baseline, chosen, toggle, pin }) {
  const delta = (/** @type {any} */ run, /** @type {string} */ key) => baseline && baseline.id !== run.id && isNumber(run[key]) && isNumber(baseline[key]) && (key !== "best_value" || run.metric === baseline.metric)
    ? html`<span class="delta">${deltaText(run[key] - baseline[key], key)}</span>` : "";
  const figure = (/** @type {string} */ key, text = (/** @type {any} */ value) => short(value, 4)) => (/** @type {any} */ run) => html`${text(run[key])}${delta(run, key)}`;
  return [
    { key: "choose", title: "", value: () => null, cell: (run) => html`<input type="checkbox" tabindex="-1" aria-label="choose ${run.name}" checked=${chosen.includes(run.id)} onChange=${() => toggle(run.id)} />` },
    { key: "status", title: "State", value: (run) => run.status, cell: (run) => html`<${State} name=${run.status} text=${run.ended_early ? `${run.status} early` : run.status} />` },
    { key: "name", title: "Name", value: (run) => run.name, cell: (run) => html`<span class="name"><a tabindex="-1" dir="auto" href=${link(["run", run.id])} title=${run.name}>${run.name}</a><button class="quiet" tabindex="-1" aria-pressed=${baseline?.id === run.id} aria-label="pin ${run.name} as the baseline" onClick=${() => pin(run.id)}><${Icon} name="pin" /></button></span>` },
    { key: "model", title: "Model", value: (run) => run.model, cell: (run) => (run.pending ? html`<span class="muted">is being read …</span>` : run.model) },
    { key: "data", title: "Data", value: (run) => run.data },
    { key: "objective", title: "Kind", value: (run) => run.objective },
    { key: "metric", title: "Metric", value: (run) => run.metric && metricTitle(run.metric) },
    { key: "best", title: "Best", numeric: true, least: true, value: (run) => run.best_value, cell: (run) => html`${run.metric && run.metric !== "loss" && isNumber(run.best_value) ? html`<span class="muted">${metricTitle(run.metric)}</span> ` : ""}${figure("best_value")(run)}` },
    { key: "best_step", title: "Best at", numeric: true, value: (run) => run.best_step, cell: (run) => number(run.best_step) },
    { key: "loss", title: "Loss", numeric: true, least: true, value: (run) => run.last_loss, cell: figure("last_loss") },
    { key: "gap", title: "Gap", numeric: true, least: true, value: (run) => run.gap, cell: figure("gap", toThird) },
    { key: "step", title: "Step", numeric: true, value: (run) => run.step, cell: (run) => html`<span class="step"><span>${number(run.step)}${run.steps ? html` <span class="muted">of ${number(run.steps)}</span>` : ""}</span>${run.steps && run.status === "running" ? html`<progress max=${run.steps} value=${run.step ?? 0} aria-label="progress of ${run.name}"></progress>` : ""}</span>` },
    { key: "speed", title: "Tokens/s", numeric: true, value: (run) => run.tokens_per_second, cell: figure("tokens_per_second", whole) },
    { key: "time", title: "Time", numeric: true, value: (run) => run.wall_seconds, cell: figure("wall_seconds", duration) },
    { key: "findings", title: "Findings", value: (run) => weigh(run.findings), cell: (run) => (run.step === null || run.step === undefined ? NOTHING : html`<${Findings} counts=${run.findings} />`) },
    { key: "curve", title: "Curve", value: () => null, cell: (run) => html`<${Spark} values=${run.sparkline ?? []} label="curve of ${run.name}" />` },
    { key: "tags", title: "Tags", value: (run) => (run.tags ?? []).join(", "), cell: (run) => html`<span class="line tags">${(run.tags ?? []).map((/** @type {string} */ tag) => html`<button key=${tag} class="tag" dir="auto" tabindex="-1" title="runs with the tag ${tag}" onClick=${() => change({ tag })}>${tag}</button>`)}</span>` },
    { key: "created", title: "Created", value: (run) => run.created, cell: (run) => moment(run.created) },
    { key: "folder", title: "Folder", value: (run) => run.folder },
  ];
}

/** @param {{counts: any}} props */
function Findings({ counts = {} }) {
  const found = ["error", "warning", "info"].filter((name) => counts?.[name]);
  if (!found.length) return html`<span class="muted">none</span>`;
  return html`<span class="counts" title=${found.map((name) => plural(counts[name], name === "info" ? "note" : name)).join(", ")}>${found.map((name) => html`<${State} key=${name} name=${name} text=${html`${counts[name]}<span class="unseen"> ${name === "info" ? "notes" : `${name}s`}</span>`} />`)}</span>`;
}

/** A curve as small as a word. @param {{values: any[], label: string}} props */
export function Spark({ values, label }) {
  const known = values.map((value, index) => [index, value]).filter(([, value]) => isNumber(value));
  if (known.length < 2) return html`<span class="muted">${NOTHING}</span>`;
  const low = Math.min(...known.map(([, value]) => value)), high = Math.max(...known.map(([, value]) => value));
  const path = known.map(([index, value], at) => `${at ? "L" : "M"}${((96 * index) / (values.length - 1)).toFixed(1)} ${(22 - (20 * (value - low)) / (high - low || 1)).toFixed(1)}`).join("");
  return html`<svg class="spark" viewBox="0 0 96 24" preserveAspectRatio="none" role="img" aria-label=${label}><path d=${path} /></svg>`;
}

/** A figure less that of the baseline, in the unit of its column. @param {number} value @param {string} key */
function deltaText(value, key) {
  if (key === "wall_seconds") return `${value < 0 ? "−" : "+"}${duration(Math.abs(value))}`;
  const text = key === "tokens_per_second" ? whole(Math.abs(value)) : key === "gap" ? toThird(Math.abs(value)) : null;
  return text === null || value === 0 ? signed(value) : `${value < 0 ? "−" : "+"}${text}`;
}
/** A gap to the decimals that losses beside it have. @param {any} value */
const toThird = (value) => (isNumber(value) && Math.abs(value) >= 0.0005 && Math.abs(value) < 100 ? decimal(value, 3) : short(value, 1));
/** @param {any} value */
const whole = (value) => (isNumber(value) ? number(Math.round(value)) : NOTHING);
/** @param {any} counts */
const weigh = (counts) => (counts ? (counts.error ?? 0) * 1e6 + (counts.warning ?? 0) * 1e3 + (counts.info ?? 0) : 0);
/** @param {any} value @returns {value is number} */
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
/** @param {any} run */
const textOf = (run) => [run.name, run.model, run.data, run.objective, run.status, run.folder, ...(run.tags ?? [])].join(" ").toLowerCase();
