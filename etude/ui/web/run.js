// @ts-check
// A run: how it stands, what was noticed, what can be asked of it, and its charts.
import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { get, listen, sizesOf } from "./api.js";
import { Chart } from "./chart.js";
import { Actions, Ledger } from "./control.js";
import { NOTHING, duration, metricTitle, moment, number, plural, seriesTitle, short } from "./format.js";
import { Confusion, Criteria, Findings, Labels, Scores } from "./findings.js";
import { Empty, Loading, Problem, State, Tabs, say, useAnswer } from "./parts.js";
import { change, link, listOf, toggled } from "./route.js";
import { ViewTools, readView, viewOf } from "./view.js";

const DRAWN = /^[▁-█⠀-⣿\s]+$/; // a curve of characters, for terminals
const ELSEWHERE = ["run", "status", "damaged lines"]; // figures that the head shows, or a problem names
const OF_LABELS = /^metric-(accuracy|precision|recall|f1|mcc)/;
const MOST_PLACES = 100; // of steps that are asked for
const FIGURES_AFTER = 5000, ENTRIES_AFTER = 500; // milliseconds until the run is read again

/** The other tabs, fetched when they are first opened. @type {Record<string, [string, () => Promise<any>]>} */
const TABS = {
  samples: ["Samples", () => import("./samples.js").then((module) => module.Samples)],
  recipe: ["Recipe", () => import("./recipe.js").then((module) => module.Recipe)],
  data: ["Data", () => import("./data.js").then((module) => module.Data)],
  report: ["Report", () => import("./report.js").then((module) => module.Report)],
  log: ["Log", () => import("./report.js").then((module) => module.Log)],
};

/** @param {any} props */
export function RunPage(props) {
  const { id, tab, query, isReadOnly } = props;
  const { run, error, again, feed, live } = useRun(id);
  useEffect(() => {
    if (run) document.title = `${nameOf(run)} · ${run.state} · etude`;
  }, [run?.state, run]);
  if (!run) return error ? html`<${Problem} error=${error} again=${again} />` : html`<${Loading} text="Reading the run" />`;
  const items = /** @type {[string, string][]} */ ([["Charts", link(["run", id], viewOf(query))], ...Object.entries(TABS).map(([key, [text]]) => [text, link(["run", id, key], viewOf(query))])]);
  const title = tab === "charts" ? "Charts" : TABS[tab]?.[0] ?? "";
  const isRemoved = live.state === "removed" || /** @type {any} */ (error)?.status === 404;
  return html`<${Head} run=${run} live=${isRemoved ? { ...live, state: "removed" } : live} isReadOnly=${isReadOnly} id=${id} again=${again} />
    <${Problem} error=${isRemoved ? null : error} again=${again} />
    ${run.unread && html`<${Problem} error=${new Error(run.unread)} />`}
    <${Tabs} label="parts of the run" items=${items} current=${title} />
    ${tab === "charts" ? html`<${Charts} ...${props} run=${run} feed=${feed} />` : html`<${Later} ...${props} run=${run} key=${tab} />`}`;
}

/** @param {any} props */
function Later(props) {
  const [found, setFound] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  useEffect(() => {
    TABS[props.tab]?.[1]().then((part) => setFound(() => part), setError);
  }, []);
  if (!TABS[props.tab]) return html`<${Empty}>A run has no part “${props.tab}”.<//>`;
  return error ? html`<${Problem} error=${error} />` : found && html`<${found} ...${props} />`;
}

/** @param {{run: any, live: any, isReadOnly: boolean, id: string, again: () => void}} props */
function Head({ run, live, isReadOnly, id, again }) {
  const { summary } = run;
  const state = live.state ?? run.state;
  // As old as the figures below: what is new is shown in all places at once.
  const step = value(summary, "step") ?? live.step ?? 0, steps = value(summary, "steps") ?? run.steps;
  const isOn = state === "running";
  const left = isOn && run.forecast?.seconds_left;
  const beat = live.heartbeat_age ?? run.heartbeat_age;
  const metric = value(summary, "metric");
  const perSecond = value(summary, "tokens_per_second");
  const isRemoved = state === "removed";
  const figures = /** @type {[string, any][]} */ ([
    [`best ${metric ? metricTitle(metric) : "value"}`, short(run.best?.value ?? value(summary, "metric_best"), 4)],
    [lossTitle(summary), short(value(summary, "last_loss"), 4)],
    ["gap", short(value(summary, "gap"), 3)],
    ["tokens/s", typeof perSecond === "number" ? number(Math.round(perSecond)) : NOTHING],
    ["time", duration(value(summary, "wall_seconds"))],
  ]);
  return html`<div class="head">
    <div class="line"><h1 dir="auto" title=${nameOf(run)}>${nameOf(run)}</h1><${State} name=${state} text=${live.isLost ? `${state}, the page is not connected` : state} /><span class="grow"></span>
      ${run.parent && html`<a class="button" href=${link(["compare"], { runs: `${run.parent},${id}` })}>Compare with its parent</a>`}
      ${!isReadOnly && html`<a class="button" href=${link(["new"], { from: id })}>New run from this</a>`}</div>
    <p class="line muted">
      <span>step ${number(step)}${steps ? ` of ${number(steps)}` : ""}</span>
      ${left ? html`<span>${run.forecast.words ?? `about ${duration(Math.round(left))} left`}</span>` : ""}
      ${isOn && typeof beat === "number" ? html`<span class=${beat > 60 ? "warn" : ""}>heartbeat ${duration(Math.round(beat))} ago</span>` : ""}
      ${run.parent && html`<span>from <a href=${link(["run", run.parent])}>its parent</a></span>`}
      ${run.children?.map((/** @type {string} */ child, /** @type {number} */ index) => html`<a key=${child} href=${link(["run", child])}>fork ${index + 1}</a>`)}
    </p>
    ${isRemoved && html`<${Problem} error=${new Error("the folder of this run was removed; what is shown here was read before")} />`}
    ${steps && state !== "finished" ? html`<progress max=${steps} value=${step} aria-label="steps done"></progress>` : ""}
    ${summary && html`<dl class="facts figures">${figures.map(([name, text]) => html`<div key=${name}><dt>${name}</dt><dd>${text}</dd></div>`)}</dl>`}
    ${!["running", "paused"].includes(state) && textsOf(run.rows ?? [], "verdict").map((text) => html`<p key=${text} class="verdict">${text}</p>`)}
    ${!isReadOnly && !isRemoved && html`<${Actions} key=${id} id=${id} offers=${run.offers ?? {}} again=${again} />`}
  </div>`;
}

/** @param {any} props */
function Charts({ run, id, query, feed, theme, isReadOnly }) {
  const view = useMemo(() => readView(query), [query.axis, query.from, query.to, query.smooth, query.log]);
  const words = (query.q ?? "").toLowerCase();
  const hidden = listOf(query.hide);
  const shown = together(run.charts ?? [], run.metric).filter((/** @type {any} */ chart) => `${chart.title} ${chart.series.join(" ")}`.toLowerCase().includes(words));
  const onView = (/** @type {any} */ values) => change(values);
  const marks = marksOf(run, usePlaces(run, id, view.axis), query.finding);
  return html`<div class="split"><div>
    ${run.findings?.length > 0 && html`<${Findings} findings=${run.findings} chosen=${query.finding} onChoose=${(/** @type {any} */ index) => change({ finding: index })} from=${isReadOnly ? null : id} />`}
    <${ViewTools} view=${view} query=${query} />
    ${shown.length ? html`<h2 class="unseen">Charts</h2><div class="charts">${shown.map((/** @type {any} */ chart) => html`<${Chart} key=${chart.key} isWide=${chart.key === "loss"} drawn=${drawnOf(chart, id, view.isLog)} view=${view} onView=${onView} hidden=${hidden} onHide=${(/** @type {string} */ name) => change({ hide: toggled(hidden, name) })} marks=${marks(chart)} feed=${feed} shared=${id} theme=${theme} />`)}</div>` : html`<${Empty}>${run.charts?.length ? "No chart has that word." : run.unread ? "Its charts cannot be drawn." : "No step has been recorded yet."}<//>`}
  </div><aside class="stack">
    <${Criteria} criteria=${run.criteria ?? []} />
    <${Scores} scores=${run.scores ?? []} />
    <${Confusion} confusion=${run.confusion} />
    <${Labels} labels=${run.labels} />
    <${Ledger} interventions=${run.interventions ?? []} />
    ${run.rows?.length > 0 && html`<section><h2>Figures</h2><dl class="list">${restOf(run.rows).map(([name, text], index) => html`<div key=${index}><dt>${name}</dt><dd>${text}</dd></div>`)}</dl></section>`}
    ${run.commands?.length > 0 && html`<section><h2>Next</h2>${run.commands.map((/** @type {any} */ each) => html`<pre key=${each}>${typeof each === "string" ? each : each.command ?? each.join?.("  ")}</pre>`)}</section>`}
    ${(run.cut ?? []).map((/** @type {string} */ each) => html`<p key=${each} class="small muted">Not all is shown: ${each}.</p>`)}
  </aside></div>`;
}

/** The run, read again when it has entries; its feed brings new points. @param {string} id */
function useRun(id) {
  const { value: run, error, again } = useAnswer(`/api/runs/${encodeURIComponent(id)}`);
  const [live, setLive] = useState(/** @type {any} */ ({}));
  const feed = useMemo(() => new EventTarget(), [id]);
  const wait = useRef(0), due = useRef(0), shown = useRef("");
  shown.current = run?.state ?? "";
  const within = (/** @type {number} */ time) => {
    if (wait.current && due.current <= performance.now() + time) return;
    window.clearTimeout(wait.current);
    due.current = performance.now() + time;
    wait.current = window.setTimeout(() => {
      wait.current = 0;
      again();
    }, time);
  };
  const isKnown = run !== null;
  useEffect(() => {
    if (!isKnown) return undefined;
    let close = () => {}, isGone = false;
    const handlers = {
      points: (/** @type {any} */ value) => {
        feed.dispatchEvent(new CustomEvent("points", { detail: value }));
        within(FIGURES_AFTER);
      },
      entries: () => within(ENTRIES_AFTER),
      state: (/** @type {any} */ value) => {
        setLive((/** @type {any} */ old) => ({ ...old, ...value }));
        if (value.state !== shown.current) within(ENTRIES_AFTER);
      },
      connected: (/** @type {any} */ isConnected) => {
        setLive((/** @type {any} */ old) => ({ ...old, isLost: !isConnected }));
        if (!isConnected) again(); // the answer says in words why
      },
      again: () => {
        again();
        feed.dispatchEvent(new Event("again"));
      },
    };
    sizesOf([id]).then((sizes) => {
      if (!isGone) close = listen([id], sizes, handlers);
    });
    return () => {
      isGone = true;
      window.clearTimeout(wait.current);
      wait.current = 0;
      close();
    };
  }, [id, isKnown]);
  useEffect(() => {
    if (run?.pending) within(FIGURES_AFTER / 5);
  }, [run]);
  useEffect(() => {
    if (run) say(`${nameOf(run)} ${run.state}, step ${number(value(run.summary, "step"))}, training loss ${short(value(run.summary, "last_loss"), 4)}`);
  }, [run]);
  return { run, error, again, feed, live };
}

/** A figure of a summary, which may be bare or hold its source beside. @param {any} summary @param {string} name */
function value(summary, name) {
  const found = summary?.[name];
  return found !== null && typeof found === "object" && "value" in found ? found.value : found;
}

/** @param {any} run @returns {string} */
const nameOf = (run) => run.name ?? value(run.summary, "name") ?? "run";
/** @param {any} chart @param {string} id @param {boolean} isLog */
function drawnOf(chart, id, isLog) {
  const lines = chart.series.map((/** @type {any} */ name, /** @type {number} */ tone) => ({ run: id, name, tone, id: name, label: chart.labels?.[tone] ?? seriesTitle(name) }));
  return { title: chart.title, unit: chart.unit ?? null, isLog: chart.scale === "log" || (isLog && /loss|norm/.test(chart.series.join(" "))), lines, about: /^(loss$|metric)/.test(chart.key) ? "" : chart.caption };
}

/** The charts: the loss and the metric first, the other figures of labels as one. @param {any[]} charts @param {string} metric @returns {any[]} */
function together(charts, metric) {
  const best = charts.findIndex(({ key }) => key === `metric-${metric}`);
  if (best > 1) charts = [charts[0], charts[best], ...charts.slice(1, best), ...charts.slice(best + 1)];
  const others = charts.filter(({ key }) => OF_LABELS.test(key) && key !== `metric-${metric}`);
  if (others.length < 2) return charts;
  const one = { key: "metrics", title: "Other figures", unit: "", scale: "linear", series: others.flatMap(({ series }) => series), labels: others.map(({ title }) => title.toLowerCase()) };
  return charts.flatMap((chart) => (chart === others[0] ? [one] : others.includes(chart) ? [] : [chart]));
}

/** The training loss with its statistic, which is not that of the last step. @param {any} summary */
function lossTitle(summary) {
  const count = value(summary, "loss_window");
  return count > 1 ? `training loss, mean of ${number(count)} steps` : "training loss";
}

/** The texts of a figure that has several, where its name stands once. @param {[string, string][]} rows @param {string} figure */
function textsOf(rows, figure) {
  const start = rows.findIndex(([name]) => name === figure);
  const end = rows.findIndex(([name], index) => index > start && name !== "");
  return start < 0 ? [] : rows.slice(start, end < 0 ? undefined : end).map(([, text]) => text);
}

/** The figures that neither the head nor the ledger shows. @param {[string, string][]} rows @returns {[string, string][]} */
function restOf(rows) {
  const shown = [...textsOf(rows, "verdict"), ...textsOf(rows, "intervention")];
  const found = rows.filter(([name, text]) => !ELSEWHERE.includes(name) && !shown.includes(text) && !DRAWN.test(text));
  return /** @type {[string, string][]} */ (found.map(([name, text]) => [name, name === "created" ? moment(text) : text]));
}

/** The place of a step on the axis that is shown, or null while it is not known. @param {any} run @param {string} id @param {string} axis @returns {(step: number) => number | null} */
function usePlaces(run, id, axis) {
  const [found, setFound] = useState(/** @type {{axis: string, at: Record<string, number>}} */ ({ axis: "", at: {} }));
  const windows = (run.findings ?? []).flatMap((/** @type {any} */ each) => each.window ?? []);
  const steps = [...new Set([...(run.best ? [run.best.step] : []), ...windows])].slice(0, MOST_PLACES).join(",");
  useEffect(() => {
    if (axis === "step" || steps === "") return undefined;
    const asked = new AbortController();
    const query = new URLSearchParams({ names: "train/loss", axis, points: "2", at: steps });
    get(`/api/runs/${encodeURIComponent(id)}/series?${query}`, asked.signal).then(
      (answer) => setFound({ axis, at: answer.at ?? {} }),
      () => {}, // the charts, which ask the same, say why
    );
    return () => asked.abort();
  }, [run, axis, steps]);
  return (step) => (axis === "step" ? step : found.axis === axis ? found.at[step] ?? null : null);
}

/** What a chart marks, where steps have a place. @param {any} run @param {(step: number) => number | null} place @param {string | undefined} chosen */
function marksOf(run, place, chosen) {
  const tones = { error: "bad", warning: "warn", info: "muted" };
  const found = chosen === undefined ? [] : [run.findings?.[Number(chosen)]].filter((each) => each?.window);
  const windows = found.map((/** @type {any} */ each) => [...each.window.map(place), tones[/** @type {"error"} */ (each.severity)] ?? "muted"]).filter((each) => !each.includes(null));
  const best = run.best ? place(run.best.step) : null;
  return (/** @type {any} */ chart) => {
    const ofBest = best !== null && chart.series.includes(`validation/${run.best.metric}`);
    const ofClip = typeof run.clip === "number" && chart.series.some((/** @type {string} */ name) => name.endsWith("grad_norm"));
    return {
      windows,
      best: ofBest ? { x: best, y: run.best.value } : null,
      level: ofClip ? { y: run.clip, label: `clipped at ${run.clip}` } : null,
    };
  };
}
