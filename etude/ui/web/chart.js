// @ts-check
// A chart of lines over a shared axis: drawn by uPlot, read by eye, keyboard, table or CSV.
import uPlot from "./vendor/uplot.js";
import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { address, isExported } from "./api.js";
import { inTicks, inUnit, number, onAxis, onTick, short } from "./format.js";
import { alone, append, captionOf, dashesOf, extend, hasPositive, isSmoothed, keyOf, nearest, placed, readLines, rowsOf, smoothed } from "./lines.js";
import { Problem } from "./parts.js";
import { change, listOf, toggled, useRoute } from "./route.js";
import { offerCsv } from "./table.js";

/** @typedef {import("./lines.js").Line} Line @typedef {import("./lines.js").Points} Points @typedef {import("./view.js").View} View */
/**
 * @typedef {{title: string, unit: string | null, isLog: boolean, lines: Line[], about?: string}} Drawn `about`: what is drawn, in words
 * @typedef {{windows: [number, number, string][], best: {x: number, y: number} | null, level: {y: number, label: string} | null}} Marks
 */
const Plot = /** @type {any} */ (uPlot);
const MOST_NEW = 300; // points that are drawn as they came before the range is asked for again
const MOST_ROWS = 400; // of the table below a chart
const SECONDS = [0.1, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 432000]; // between ticks
const UNITS_SAID = ["nats per target", "tokens per second"]; // which the values do not have beside them
const NEAR = "400px"; // charts nearer than this to the window exist

/**
 * @param {{drawn: Drawn, view: View, onView: (values: any) => void, marks: Marks, feed: EventTarget, shared: string, theme: string, isWide?: boolean, hidden: string[], onHide: (id: string) => void}} props
 *   hidden: ids of lines that are not drawn
 */
export function Chart({ drawn, view, onView, marks, feed, shared, theme, isWide, hidden, onHide }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const { isNear, width } = useBox(box);
  const { read, error, version } = useLines(drawn.lines, view, isNear ? width : 0, feed);
  const data = read?.points ?? null;
  const tables = listOf(useRoute().query.tables);
  const isTable = tables.includes(drawn.title);
  const isLog = drawn.isLog && (!data || hasPositive(drawn.lines, data));
  const plot = usePlot({ box, drawn: { ...drawn, isLog }, data, extent: read?.extent ?? null, version, view, onView, marks, shared, theme, hidden, width: isNear ? width : 0 });
  const caption = useMemo(() => (data ? captionOf(drawn.lines, data, view, drawn.unit, drawn.isLog) : "Reading …"), [data, version, view.axis, view.smooth, drawn.isLog]);
  const runs = new Set(drawn.lines.map((line) => line.run));
  const csv = runs.size === 1 && !isExported && address(`/api/runs/${encodeURIComponent(drawn.lines[0].run)}/series.csv?${new URLSearchParams({ names: drawn.lines.map((line) => line.name).join(","), axis: view.axis })}`);
  return html`<figure class="chart ${isWide ? "wide" : ""}" data-chart=${drawn.title}>
    <header><h3>${drawn.title}${UNITS_SAID.includes(drawn.unit ?? "") && html` <small class="muted">${drawn.unit}</small>`}</h3>
      <button class="quiet" aria-pressed=${isTable} onClick=${() => change({ tables: toggled(tables, drawn.title) })} aria-label="${drawn.title} as table">as table</button>
      ${csv ? html`<a class="button quiet" href=${csv} download aria-label="${drawn.title} as CSV">CSV</a>`
        : data && html`<button class="quiet" aria-label="${drawn.title} as CSV" title="the points in view" onClick=${() => offerCsv(`${drawn.title}.csv`, columnsOf(view), rowsOf(drawn.lines, data))}>CSV</button>`}
    </header>
    <div class="legend">${drawn.lines.map((line) => html`<button key=${keyOf(line)} aria-pressed=${!hidden.includes(line.id)} onClick=${() => onHide(line.id)} title=${line.label}>
      <${Swatch} tone=${line.tone} /><span class="name" dir="auto">${line.label}</span><output data-key=${keyOf(line)}></output></button>`)}<span class="at"></span></div>
    <${Problem} error=${error} />
    <div class="plot" ref=${box} tabindex="0" role="slider" aria-label=${drawn.title} aria-valuemin="0" aria-valuemax="100" aria-valuenow="0"
      aria-valuetext=${caption} onKeyDown=${plot.press} onBlur=${plot.leave}></div>
    <figcaption class="caption">${caption} ${drawn.about}</figcaption>
    ${isTable && data && html`<${PointTable} drawn=${drawn} data=${data} view=${view} isWhole=${csv !== false} />`}
  </figure>`;
}

/** The colour and dashes of a line. @param {{tone: number}} props */
export const Swatch = ({ tone }) => html`<svg class="swatch tone-${tone % 8}" viewBox="0 0 22 8" aria-hidden="true"><line x1="0" x2="22" y1="4" y2="4" stroke-dasharray=${dashesOf(tone).join(" ") || undefined} /></svg>`;

/** @param {{drawn: Drawn, data: Map<string, Points>, view: View, isWhole: boolean}} props */
function PointTable({ drawn, data, view, isWhole }) {
  const rows = rowsOf(drawn.lines, data);
  const text = (/** @type {any} */ value) => (value === null ? "not finite" : inUnit(value, drawn.unit));
  const hasBand = rows.some((row) => row.low !== undefined);
  return html`<div class="points" tabindex="0" role="region" aria-label="${drawn.title}, points"><table>
    <thead><tr><th scope="col">${view.axis}</th><th scope="col">line</th><th scope="col" class="number">value</th>${hasBand && html`<th scope="col" class="number">least</th><th scope="col" class="number">greatest</th>`}</tr></thead>
    <tbody>${rows.slice(0, MOST_ROWS).map((row) => html`<tr><td>${onAxis(row.x, view.axis)}</td><td>${row.label}</td><td class="number">${text(row.mean)}</td>${hasBand && html`<td class="number">${row.low === undefined ? "" : text(row.low)}</td><td class="number">${row.high === undefined ? "" : text(row.high)}</td>`}</tr>`)}</tbody>
  </table>${rows.length > MOST_ROWS && html`<p>The last ${MOST_ROWS} of ${rows.length.toLocaleString("en-US")} points in view; the CSV file has ${isWhole ? "every record" : "all of them"}.</p>`}</div>`;
}

/** Columns of the points of a chart. @param {View} view */
const columnsOf = (view) => [["x", view.axis], ["label", "line"], ["mean", "value"], ["low", "least"], ["high", "greatest"]].map(([key, title]) => ({ title, value: (/** @type {any} */ row) => (row[key] === null ? "not finite" : row[key]) }));

/** The width of a box, and whether it is in or near the window. @param {{current: HTMLElement | null}} box */
function useBox(box) {
  const [state, setState] = useState({ isNear: false, width: 0 });
  useEffect(() => {
    const at = /** @type {HTMLElement} */ (box.current);
    const seen = new IntersectionObserver(([entry]) => setState((/** @type {any} */ old) => ({ ...old, isNear: entry.isIntersecting })), { rootMargin: NEAR });
    const sized = new ResizeObserver(() => setState((/** @type {any} */ old) => (old.width === at.clientWidth ? old : { ...old, width: at.clientWidth })));
    seen.observe(at);
    sized.observe(at);
    return () => {
      seen.disconnect();
      sized.disconnect();
    };
  }, []);
  return state;
}

/**
 * The points of lines in the view; new ones are appended as the feed brings them.
 * @param {Line[]} lines @param {View} view @param {number} width @param {EventTarget} feed
 */
function useLines(lines, view, width, feed) {
  const [state, setState] = useState({ read: /** @type {import("./lines.js").Read | null} */ (null), error: /** @type {Error | null} */ (null), version: 0 });
  const [turn, setTurn] = useState(0);
  const points = width ? Math.min(Math.max(Math.ceil(width / 200) * 200, 400), 2000) : 0;
  const what = lines.map(keyOf).join(" ");
  const halfLife = view.from === null ? 0 : view.smooth;
  useEffect(() => {
    if (!points) return undefined;
    const asked = new AbortController();
    readLines(lines, view, points, asked.signal).then(
      (read) => setState((/** @type {any} */ old) => ({ read, error: null, version: old.version + 1 })),
      (error) => error.name !== "AbortError" && setState((/** @type {any} */ old) => ({ ...old, error })),
    );
    return () => asked.abort();
  }, [what, view.axis, view.from, view.to, halfLife, points, turn]);
  useEffect(() => {
    const { read } = state;
    if (!points || !read || view.to !== null) return undefined;
    let fresh = 0, frame = 0;
    const take = (/** @type {any} */ event) => {
      const { run, series } = event.detail;
      const ofRun = lines.filter((line) => line.run === run);
      const isLonger = ofRun.length > 0 && extend(read, Object.values(series).flatMap((/** @type {any} */ came) => (came.x[view.axis] ?? []).slice(-1)));
      for (const line of ofRun) {
        const came = series[line.name], held = read.points.get(keyOf(line));
        if (came && held) fresh += append(held, came.x, came.y, view.axis);
        else if (came) fresh = MOST_NEW;
      }
      if (fresh >= MOST_NEW) setTurn((/** @type {number} */ old) => old + 1);
      else if ((fresh || isLonger) && !frame) frame = requestAnimationFrame(() => {
        frame = 0;
        setState((/** @type {any} */ old) => ({ ...old, version: old.version + 1 }));
      });
    };
    const again = () => setTurn((/** @type {number} */ old) => old + 1);
    feed.addEventListener("points", take);
    feed.addEventListener("again", again);
    return () => {
      cancelAnimationFrame(frame);
      feed.removeEventListener("points", take);
      feed.removeEventListener("again", again);
    };
  }, [state.read, what, view.axis, view.to, points]);
  return state;
}

/** Draw the lines, keep the cursor, and answer keys. @param {any} props */
function usePlot(props) {
  const { box, drawn, data, version, view, onView, shared, theme, hidden, width } = props;
  const now = useRef(props);
  now.current = props;
  const plot = useRef(/** @type {any} */ (null));
  const what = drawn.lines.map((/** @type {Line} */ line) => {
    const points = data?.get(keyOf(line));
    return `${keyOf(line)}:${points?.low ? "band" : ""}:${isSmoothed(line, points, view)}`;
  }).join(" ");
  useEffect(() => {
    if (!data || !width || !box.current) return undefined;
    const made = new Plot(optionsOf(now, shared, box.current), tablesOf(now.current), box.current);
    plot.current = made;
    /** @type {any} */ (box.current).plot = made; // for tests, as a canvas has no text
    readout(made, now.current, box.current);
    return () => {
      made.destroy();
      plot.current = null;
    };
  }, [!data, what, width, theme, view.axis, drawn.isLog, hidden.join(" ")]);
  useEffect(() => {
    if (!plot.current) return;
    plot.current.setData(tablesOf(now.current)); // the scales take the range of the view: a zoom stays
    readout(plot.current, now.current, box.current);
  }, [version, view.smooth, view.from, view.to]);
  useEffect(() => plot.current?.redraw(false), [JSON.stringify(props.marks)]);

  const press = (/** @type {KeyboardEvent} */ event) => {
    const made = plot.current;
    if (!made || event.ctrlKey || event.metaKey || event.altKey) return;
    const xs = made.data[0];
    const { min, max } = made.scales.x;
    const steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (steps) move(made, (made.cursor.idx ?? (steps > 0 ? -1 : xs.length)) + steps * (event.shiftKey ? 10 : 1));
    else if (event.key === "Home") move(made, 0);
    else if (event.key === "End") move(made, xs.length - 1);
    else if (event.key === "+" || event.key === "=" || event.key === "-") {
      const at = made.cursor.idx === null || made.cursor.idx === undefined ? (min + max) / 2 : xs[made.cursor.idx];
      const factor = event.key === "-" ? 2 : 0.5;
      onView({ from: at - (at - min) * factor, to: at + (max - at) * factor });
    } else if (event.key === "Escape") {
      if (view.from !== null || view.to !== null) onView({ from: null, to: null });
      made.setCursor({ left: -10, top: -10 }, true, true);
    } else return;
    event.preventDefault();
  };
  const leave = () => plot.current?.setCursor({ left: -10, top: -10 }, true, true);
  return { press, leave };
}

/** Move the cursor to a point in view. @param {any} plot @param {number} index */
function move(plot, index) {
  const xs = plot.data[0];
  const { min, max } = plot.scales.x;
  let at = Math.min(Math.max(index, 0), xs.length - 1);
  while (at < xs.length - 1 && xs[at] < min) at += 1;
  while (at > 0 && xs[at] > max) at -= 1;
  plot.setCursor({ left: plot.valToPos(xs[at], "x"), top: plot.over.clientHeight / 2 }, true, true);
}

/** Columns for uPlot: of each line that is on its least and greatest, its values, and the smoothed ones. @param {any} props */
function tablesOf({ drawn, data, view, hidden }) {
  const tables = drawn.lines.filter((/** @type {Line} */ line) => !hidden.includes(line.id)).map((/** @type {Line} */ line) => {
    const points = data.get(keyOf(line));
    const { x, mean, low, high } = points ?? { x: [], mean: [], low: null, high: null };
    const columns = [...(low && high ? [low, high] : []), mean, ...(isSmoothed(line, points, view) ? [smoothed(points, view.smooth)] : [])];
    return [x, ...columns.map((values) => placed(values, drawn.isLog))];
  });
  return tables.length ? Plot.join(tables) : [[], []];
}

/** @param {{current: any}} now @param {string} shared @param {HTMLElement} box */
function optionsOf(now, shared, box) {
  const { drawn, data, view, hidden, width } = now.current;
  const colour = coloursOf(box);
  const text = (/** @type {string} */ name) => colour(`--${name}`);
  const series = [{}], bands = [];
  const shown = drawn.lines.filter((/** @type {Line} */ each) => !hidden.includes(each.id));
  for (const line of shown) {
    const ink = text(`tone-${line.tone % 8}`);
    const isFaint = isSmoothed(line, data.get(keyOf(line)), view);
    if (data.get(keyOf(line))?.low) {
      bands.push({ series: [series.length + 1, series.length], fill: fade(ink, shown.length > 2 ? 0.1 : 0.18) });
      series.push(...[0, 1].map(() => ({ stroke: "transparent", width: 0, points: { show: false } })));
    }
    const style = { stroke: ink, width: 1.75, dash: dashesOf(line.tone), points: { size: 5, fill: ink, filter: dots } };
    series.push({ ...style, ...(isFaint ? { stroke: fade(ink, 0.3), width: 1, points: { show: false } } : {}) });
    if (isFaint) series.push({ ...style, points: { show: false } });
  }
  if (series.length === 1) series.push({});
  const font = `12px ${getComputedStyle(box).fontFamily}`;
  const axis = { stroke: text("muted"), font, ticks: { show: false }, grid: { stroke: text("line"), width: 1 }, border: { show: false } };
  return {
    width, height: box.clientHeight, series, bands, legend: { show: false }, padding: [8, 20, 0, 0],
    scales: { x: { time: false, range: (/** @type {any} */ _, /** @type {number} */ min, /** @type {number} */ max) => rangeOf(now.current, min, max) }, y: drawn.isLog ? { distr: 3 } : { range: heightOf } },
    axes: [
      { ...axis, grid: { show: false }, ticks: { show: true, size: 4, stroke: text("line") }, space: 72, size: 28, ...(view.axis === "seconds" ? { incrs: SECONDS } : {}), values: (/** @type {any} */ _, /** @type {number[]} */ at) => at.map((x) => onTick(x, view.axis)) },
      { ...axis, size: drawn.unit === "bytes" ? 76 : 60, space: 36, ...(drawn.isLog ? { grid: { ...axis.grid, filter: tens } } : {}), values: (/** @type {any} */ _, /** @type {number[]} */ at) => inTicks(at, drawn.unit, drawn.isLog) },
    ],
    cursor: {
      sync: { key: shared, scales: ["x", null], setSeries: false }, y: false, drag: { x: true, y: false, setScale: false },
      points: { size: 7 }, bind: { dblclick: () => () => now.current.onView({ from: null, to: null }) },
    },
    hooks: {
      setCursor: [(/** @type {any} */ plot) => readout(plot, now.current, box)],
      setSelect: [(/** @type {any} */ plot) => {
        const { left, width: wide } = plot.select;
        if (wide < 4) return;
        const [from, to] = [plot.posToVal(left, "x"), plot.posToVal(left + wide, "x")];
        plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        now.current.onView({ from, to });
      }],
      drawClear: [(/** @type {any} */ plot) => shade(plot, now.current.marks, text)],
      draw: [(/** @type {any} */ plot) => mark(plot, now.current.marks, text, font)],
    },
  };
}

/** The points that are drawn as dots: all where there is room, else those that no line leads to. @param {any} plot @param {number} series @param {boolean} isRoomy */
const dots = (plot, series, isRoomy) => (isRoomy ? null : alone(plot.data[series]));

/** The range of the view, else all that the runs have, so that the charts of a page agree. @param {any} props @param {number | null} min @param {number | null} max */
function rangeOf({ view, extent }, min, max) {
  const from = view.from ?? extent?.[0] ?? min ?? 0, to = view.to ?? extent?.[1] ?? max ?? 1;
  return to > from ? [from, to] : [from - 0.5, from + 0.5];
}

/** The values that a linear scale shows: what there is with some room; of nothing but 0 no more than up to 1. @param {any} _ @param {number | null} min @param {number | null} max */
function heightOf(_, min, max) {
  if (min === null || max === null) return [null, null];
  return min === 0 && max === 0 ? [0, 1] : Plot.rangeNum(min, max, 0.1, true);
}

/** The windows of findings, behind the lines. @param {any} plot @param {Marks} marks @param {(name: string) => string} text */
function shade(plot, marks, text) {
  const { ctx, bbox } = plot;
  for (const [from, to, tone] of marks.windows) {
    const left = clamp(plot.valToPos(from, "x", true), bbox.left, bbox.left + bbox.width);
    const right = clamp(plot.valToPos(to, "x", true), bbox.left, bbox.left + bbox.width);
    if (right <= bbox.left || left >= bbox.left + bbox.width) continue;
    ctx.fillStyle = fade(text(tone), 0.13);
    ctx.fillRect(left, bbox.top, Math.max(right - left, 2), bbox.height);
  }
}

/** The best point, and the line of a limit. @param {any} plot @param {Marks} marks @param {(name: string) => string} text @param {string} font */
function mark(plot, { best, level }, text, font) {
  const { ctx, bbox, scales } = plot;
  const scale = window.devicePixelRatio || 1;
  ctx.save();
  ctx.font = font.replace(/^(\d+)px/, (_, size) => `${Number(size) * scale}px`);
  if (level && level.y >= scales.y.min && level.y <= scales.y.max) {
    const y = plot.valToPos(level.y, "y", true);
    ctx.strokeStyle = ctx.fillStyle = text("bad");
    ctx.setLineDash([6 * scale, 4 * scale]);
    ctx.lineWidth = scale;
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.setLineDash([]);
    ctx.textAlign = "right";
    const isBelow = y < bbox.top + 16 * scale || isCrowded(plot, y, 18 * scale); // above it would be cut, or hide a line
    write(ctx, level.label, bbox.left + bbox.width - 2 * scale, y + (isBelow ? 14 : -4) * scale, text("page"));
  }
  if (best && best.x >= scales.x.min && best.x <= scales.x.max) {
    const [x, y] = [plot.valToPos(best.x, "x", true), plot.valToPos(best.y, "y", true)];
    const isRight = x > bbox.left + bbox.width * 0.8;
    ctx.setLineDash([]);
    ctx.strokeStyle = ctx.fillStyle = text("good");
    ctx.lineWidth = 2 * scale;
    ctx.beginPath();
    ctx.arc(x, y, 5 * scale, 0, 2 * Math.PI);
    ctx.stroke();
    ctx.textAlign = isRight ? "right" : "left";
    write(ctx, `best ${short(best.y, 4)}`, x + (isRight ? -9 : 9) * scale, Math.max(y - 8 * scale, bbox.top + 12 * scale), text("page"));
  }
  ctx.restore();
}

/** Whether a line passes within so many pixels above a height, where a label stands at the right. @param {any} plot @param {number} y @param {number} room */
function isCrowded(plot, y, room) {
  const [xs, ...series] = plot.data, { min, max } = plot.scales.x;
  const first = nearest(xs, max - 0.3 * (max - min));
  return series.some((/** @type {(number | null)[]} */ values) => values.slice(Math.max(first, 0)).some((/** @type {number | null} */ value) => {
    const above = typeof value === "number" ? y - plot.valToPos(value, "y", true) : -1;
    return above >= 0 && above < room;
  }));
}

/** A word over lines, parted from them by the colour of the page. @param {CanvasRenderingContext2D} ctx @param {string} word @param {number} x @param {number} y @param {string} page */
function write(ctx, word, x, y, page) {
  ctx.save();
  ctx.strokeStyle = page;
  ctx.lineWidth = 4 * (window.devicePixelRatio || 1);
  ctx.lineJoin = "round";
  ctx.strokeText(word, x, y);
  ctx.restore();
  ctx.fillText(word, x, y);
}

/** Write the values at the cursor, or the last ones, beside the names. @param {any} plot @param {any} props @param {HTMLElement} box */
function readout(plot, { drawn, data, view }, box) {
  const figure = box.closest("figure");
  if (!figure || !data) return;
  const { left, idx } = plot.cursor;
  const isOn = typeof left === "number" && left >= 0 && idx !== null && idx !== undefined;
  const at = isOn ? plot.data[0][idx] : Infinity;
  const said = [];
  for (const line of drawn.lines) {
    const points = data.get(keyOf(line));
    const index = points ? (isOn ? nearest(points.x, at) : points.x.length - 1) : -1;
    const value = index < 0 ? "" : points.mean[index] === null ? "not finite" : inUnit(points.mean[index], drawn.unit);
    const output = figure.querySelector(`output[data-key="${CSS.escape(keyOf(line))}"]`);
    if (output) output.textContent = value;
    said.push(`${line.label} ${value}`);
  }
  const place = isOn ? onAxis(at, view.axis) : "";
  const label = figure.querySelector(".at");
  const bucket = Math.max(1, ...drawn.lines.map((/** @type {Line} */ line) => data.get(keyOf(line))?.bucket ?? 1));
  if (label) label.textContent = isOn ? place : bucket > 1 ? `last, means of ${number(bucket)}` : "last";
  if (document.activeElement !== box) return;
  const { min, max } = plot.scales.x;
  box.setAttribute("aria-valuenow", isOn ? String(Math.round((100 * (at - min)) / (max - min || 1))) : "0");
  if (isOn) box.setAttribute("aria-valuetext", `${place}: ${said.join(", ")}`);
}

/** Colours of the style sheet as the canvas takes them. @param {HTMLElement} box */
function coloursOf(box) {
  const probe = box.appendChild(document.createElement("span"));
  probe.hidden = true;
  /** @type {Map<string, string>} */
  const known = new Map();
  return (/** @type {string} */ name) => {
    if (!known.has(name)) {
      if (!probe.isConnected) box.append(probe);
      probe.style.color = `var(${name})`;
      known.set(name, getComputedStyle(probe).color);
      probe.remove();
    }
    return /** @type {string} */ (known.get(name));
  };
}

/** @param {string} colour as rgb(r, g, b) @param {number} share */
const fade = (colour, share) => colour.replace(/^rgb\((.*)\)$/, `rgba($1, ${share})`);
/** @param {number} value @param {number} low @param {number} high */
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
/** Only the powers of ten of a logarithmic scale, where they are enough. @param {any} _ @param {number[]} at */
function tens(_, at) {
  const found = at.map((y) => (Math.abs(Math.log10(y) % 1) < 1e-6 ? y : null));
  return found.filter((y) => y !== null).length > 1 ? found : at;
}
