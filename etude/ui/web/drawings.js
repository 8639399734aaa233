// @ts-check
// Drawings of trials: parallel coordinates whose axes can be brushed, and the metric against its cost.
import { html, useMemo, useRef } from "./vendor/preact.js";
import { duration, plural, setting, short } from "./format.js";
import { link } from "./route.js";

/** @typedef {import("./sweep.js").Trial} Trial */
export const MANY = 200; // trials, from which on each is no element of its own, and the table alone is reached by Tab
const WIDE = 960, HIGH = 320, TOP = 40, BOTTOM = 24, SIDE = 72;
const SHAPES = ["M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", "M-4 -4h8v8h-8z", "M0 -5L5 4H-5z", "M0 -5.500L5.500 0L0 5.500L-5.500 0z", "M-1.500 -5h3v3.500h3.500v3h-3.500v3.500h-3v-3.500h-3.500v-3h3.500z"];

/**
 * A line for each trial over its knobs and its metric. Dragging along an axis keeps the trials that pass there.
 * @param {{trials: Trial[], keys: string[], metric: string, isLess: boolean, brush: string, onBrush: (brush: string) => void}} props
 *   brush: as `optim.learning_rate:0.2:0.5`, shares of axes, parted by commas
 */
export function Parallel({ trials, keys, metric, isLess, brush, onBrush }) {
  const { order, axes, lines } = /** @type {ReturnType<typeof threadsOf>} */ (useMemo(() => threadsOf(trials, keys, metric, isLess), [trials, metric]));
  if (!order.length || !keys.length) return html`<p class="empty">No trial has a value yet.</p>`;
  const brushes = new Map(brush.split(",").filter(Boolean).map((text) => {
    const [key, from, to] = text.split(":");
    return [key, [Number(from), Number(to)]];
  }));
  const set = (/** @type {string} */ key, /** @type {number[] | null} */ range) => {
    const next = new Map(brushes);
    if (range) next.set(key, range.map((share) => Math.min(Math.max(share, 0), 1)));
    else next.delete(key);
    onBrush([...next].map(([name, [from, to]]) => `${name}:${from.toFixed(3)}:${to.toFixed(3)}`).join(","));
  };
  const passes = (/** @type {Trial} */ trial) => axes.every((axis) => {
    const range = brushes.get(axis.key), share = axis.of(trial);
    return !range || (share !== null && share >= range[0] - 1e-9 && share <= range[1] + 1e-9);
  });
  const kept = brushes.size ? order.filter(passes) : order;
  const best = order[order.length - 1];
  const rank = new Map(order.map((trial, index) => [trial, index / Math.max(order.length - 1, 1)]));
  const grades = [0, 1, 2, 3].map((grade) => kept.filter((trial) => Math.round(3 * (rank.get(trial) ?? 0)) === grade)); // the last is the best
  const pathOf = (/** @type {Trial[]} */ some) => some.map((trial) => lines.get(trial)).join("");
  const isMany = order.length > MANY;
  return html`<div class="scroll" tabindex="0"><svg class="drawing ${isMany ? "many" : ""}" viewBox="0 0 ${WIDE} ${HIGH}" role="group" aria-label="parallel coordinates">
    ${brushes.size > 0 && html`<path class="thread off" d=${pathOf(order)} />`}
    ${grades.map((some, grade) => (isMany ? html`<path key=${grade} class="thread grade-${grade}" d=${pathOf(some)} />`
      : some.map((trial) => html`<path key=${trial.name} class="thread grade-${grade}" d=${lines.get(trial)}><title>${trial.name}: ${metric} ${short(trial.value, 4)}</title></path>`)))}
    ${kept.includes(best) && html`<path class="thread best" d=${lines.get(best)}><title>${best.name}: ${metric} ${short(best.value, 4)}</title></path>`}
    ${axes.map((axis, index) => html`<${Axis} key=${axis.key} axis=${axis} x=${acrossOf(axes, index)} y=${upOf} isLast=${index === axes.length - 1} range=${brushes.get(axis.key)} onRange=${(/** @type {number[] | null} */ range) => set(axis.key, range)} />`)}
  </svg></div>
  <p class="caption">${brushes.size ? `${kept.length} of ${plural(order.length, "trial")} pass: ${kept.slice(-6).reverse().map((trial) => `${trial.name} ${short(trial.value, 4)}`).join(", ")}${kept.length > 6 ? " …" : ""}. ` : ""}The stronger a line, the better. The best is ${best.name}, ${metric} ${short(best.value, 4)}. Drag along an axis, or use ↑ ↓ on it, to keep the trials that pass there; Esc lets all pass.</p>`;
}

/** Trials with a value, the best last; their axes; and the line of each. @param {Trial[]} trials @param {string[]} keys @param {string} metric @param {boolean} isLess */
function threadsOf(trials, keys, metric, isLess) {
  const order = trials.filter((trial) => trial.value !== null).sort((a, b) => (isLess ? 1 : -1) * (Number(b.value) - Number(a.value)));
  const valueOf = (/** @type {string} */ key) => (/** @type {Trial} */ trial) => (key === "" ? trial.value : trial.values[key]);
  const axes = [...keys, ""].map((key) => {
    const axis = axisOf(key, key || metric, order.map(valueOf(key)));
    return { ...axis, of: (/** @type {Trial} */ trial) => axis.share(valueOf(key)(trial)) };
  });
  const lines = new Map(order.map((trial) => [trial, axes.map((axis, index) => [index, axis.of(trial)]).filter(([, share]) => share !== null)
    .map(([index, share], place) => `${place ? "L" : "M"}${acrossOf(axes, Number(index)).toFixed(1)} ${upOf(Number(share)).toFixed(1)}`).join("")]));
  return { order, axes, lines };
}

/** @param {any[]} axes @param {number} index */
const acrossOf = (axes, index) => SIDE + (index * (WIDE - 2 * SIDE)) / Math.max(axes.length - 1, 1);
/** @param {number} share of an axis */
const upOf = (share) => HIGH - BOTTOM - share * (HIGH - TOP - BOTTOM);

/** The labels of the last axis stand on its right, where no line is. @param {{axis: any, x: number, y: (share: number) => number, isLast: boolean, range: number[] | undefined, onRange: (range: number[] | null) => void}} props */
function Axis({ axis, x, y, isLast, range, onRange }) {
  const start = useRef(/** @type {number | null} */ (null));
  const shareAt = (/** @type {any} */ event) => {
    const box = event.currentTarget.ownerSVGElement.getBoundingClientRect();
    const high = ((event.clientY - box.top) * HIGH) / box.height;
    return (HIGH - BOTTOM - high) / (HIGH - TOP - BOTTOM);
  };
  const down = (/** @type {any} */ event) => {
    start.current = shareAt(event);
    event.currentTarget.setPointerCapture(event.pointerId);
  };
  const move = (/** @type {any} */ event) => {
    if (start.current === null) return;
    const now = shareAt(event);
    if (Math.abs(now - start.current) > 0.02) onRange([Math.min(start.current, now), Math.max(start.current, now)]);
  };
  const up = (/** @type {any} */ event) => {
    if (start.current !== null && Math.abs(shareAt(event) - start.current) <= 0.02) onRange(null);
    start.current = null;
  };
  const press = (/** @type {KeyboardEvent} */ event) => {
    const by = { ArrowUp: 0.25, ArrowDown: -0.25 }[event.key];
    if (by) onRange(range ? [range[0] + by, range[1] + by].map((share, index) => Math.min(Math.max(share, index * 0.25), 0.75 + index * 0.25)) : by > 0 ? [0.75, 1] : [0, 0.25]);
    else if (event.key === "Escape") onRange(null);
    else return;
    event.preventDefault();
  };
  const words = range ? `from ${axis.word(range[0])} to ${axis.word(range[1])}` : "all";
  return html`<g transform="translate(${x} 0)" class="axis" tabindex="0" role="slider" aria-orientation="vertical" aria-label=${axis.title} aria-valuemin="0" aria-valuemax="1" aria-valuenow=${range ? (range[0] + range[1]) / 2 : 0.5} aria-valuetext=${words} onKeyDown=${press}>
    <text y="16" text-anchor="middle" class="title">${axis.title.length > 22 ? `…${axis.title.slice(-21)}` : axis.title}</text>
    <line y1=${y(1)} y2=${y(0)} />
    ${axis.ticks.map((/** @type {any} */ tick) => html`<text key=${tick.text} x=${isLast ? 8 : -8} y=${y(tick.share) + 4} text-anchor=${isLast ? "start" : "end"}>${tick.text}</text>`)}
    ${range && html`<rect class="brush" x="-7" width="14" y=${y(range[1])} height=${Math.max(y(range[0]) - y(range[1]), 2)} />`}
    <rect class="grip" x="-16" width="32" y=${y(1) - 6} height=${y(0) - y(1) + 12} onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} />
  </g>`;
}

/** The scale of a knob: by its size, by its logarithm if it spans much, or by its words. @param {string} key @param {string} title @param {any[]} values @param {number} [room] share of the axis that a label takes */
function axisOf(key, title, values, room = 0.07) {
  const known = values.filter((value) => value !== undefined && value !== null);
  if (known.every((value) => typeof value === "number")) {
    const [low, high] = [Math.min(...known), Math.max(...known)];
    const isLog = low > 0 && high / low > 20;
    const place = (/** @type {number} */ value) => (isLog ? Math.log(value) : value);
    const back = (/** @type {number} */ share) => place(low) + share * (place(high) - place(low));
    const share = (/** @type {any} */ value) => (typeof value === "number" ? (high === low ? 0.5 : (place(value) - place(low)) / (place(high) - place(low))) : null);
    const isMetric = key === "" || key === "value"; // whose figures have the same digits
    const text = (/** @type {number} */ value) => (isMetric ? short(value, 3) : String(Number(value.toPrecision(3))));
    const distinct = [...new Set(known)];
    const shown = distinct.length <= 6 ? distinct : [0, 0.25, 0.5, 0.75, 1].map((each) => (isLog ? Math.exp(back(each)) : back(each)));
    return { key, title, share, ticks: apart(shown.map((value) => ({ share: share(value) ?? 0.5, text: text(value) })), room), word: (/** @type {number} */ at) => text(isLog ? Math.exp(back(at)) : back(at)) };
  }
  const words = [...new Set(known.map(setting))].sort();
  const share = (/** @type {any} */ value) => (value === undefined || value === null ? null : words.length === 1 ? 0.5 : words.indexOf(setting(value)) / (words.length - 1));
  return { key, title, share, ticks: words.slice(0, 12).map((text) => ({ share: words.length === 1 ? 0.5 : words.indexOf(text) / (words.length - 1), text })), word: (/** @type {number} */ at) => words[Math.round(Math.min(Math.max(at, 0), 1) * (words.length - 1))] };
}

/** Ticks whose labels do not overlap: the two ends, and of those between what has room. @param {{share: number, text: string}[]} ticks @param {number} room */
function apart(ticks, room) {
  const order = [...ticks].sort((a, b) => a.share - b.share), end = order[order.length - 1];
  /** @type {{share: number, text: string}[]} */
  const kept = [];
  for (const tick of order) if (tick === end || ((!kept.length || tick.share - kept[kept.length - 1].share >= room) && end.share - tick.share >= room)) kept.push(tick);
  return kept;
}

/** The metric of trials against the time they took, and those that no other beats in both. @param {{trials: Trial[], metric: string, isLess: boolean}} props */
export function Scatter({ trials, metric, isLess }) {
  const known = trials.filter((trial) => trial.value !== null && trial.cost !== null && trial.cost > 0);
  if (!known.length) return html`<p class="empty">No trial has a value and a cost yet.</p>`;
  const models = [...new Set(known.map((trial) => trial.model))];
  const across = axisOf("cost", "device time", known.map((trial) => trial.cost), 0.13), up = axisOf("value", metric, known.map((trial) => trial.value));
  const x = (/** @type {Trial} */ trial) => SIDE + 16 + (across.share(trial.cost) ?? 0) * (WIDE - 2 * SIDE - 32);
  const y = (/** @type {Trial} */ trial) => HIGH - 48 - (up.share(trial.value) ?? 0) * (HIGH - 80);
  const front = paretoFront(known, isLess);
  return html`<div class="scroll" tabindex="0"><svg class="drawing" viewBox="0 0 ${WIDE} ${HIGH}" role="group" aria-label="${metric} against device time">
    ${up.ticks.map((tick) => html`<g key=${tick.text} class="axis"><line class="rule" x1=${SIDE} x2=${WIDE - SIDE} y1=${HIGH - 48 - tick.share * (HIGH - 80)} y2=${HIGH - 48 - tick.share * (HIGH - 80)} /><text x=${SIDE - 8} y=${HIGH - 44 - tick.share * (HIGH - 80)} text-anchor="end">${tick.text}</text></g>`)}
    ${across.ticks.map((tick) => html`<g key=${tick.text} class="axis"><text x=${SIDE + 16 + tick.share * (WIDE - 2 * SIDE - 32)} y=${HIGH - 20} text-anchor="middle">${Number(tick.text) < 60 ? `${tick.text} s` : duration(Number(tick.text))}</text></g>`)}
    <path class="front" d=${front.map((trial, index) => `${index ? "L" : "M"}${x(trial).toFixed(1)} ${y(trial).toFixed(1)}`).join("")} />
    ${known.map((trial) => {
      const tone = models.indexOf(trial.model);
      const text = `${trial.name}, ${trial.model}: ${metric} ${short(trial.value, 4)} in ${duration(trial.cost)}`;
      const dot = html`<path transform="translate(${x(trial).toFixed(1)} ${y(trial).toFixed(1)})" d=${SHAPES[tone % SHAPES.length]} class="dot-${front.includes(trial) ? "front" : "plain"} tone-${tone % 8}"><title>${text}</title></path>`;
      return trial.run ? html`<a key=${trial.name} tabindex=${known.length > MANY ? -1 : undefined} href=${link(["run", trial.run])} aria-label=${text}>${dot}</a>` : html`<g key=${trial.name}>${dot}</g>`;
    })}
  </svg></div>
  <p class="legend">${models.map((model, tone) => html`<span key=${model} class="state"><svg class="mark tone-${tone % 8}" viewBox="-6 -6 12 12" aria-hidden="true"><path d=${SHAPES[tone % SHAPES.length]} class="dot-front" /></svg>${model}</span>`)}</p>
  <p class="caption">No trial is both better and cheaper than those on the line: ${front.map((trial) => `${trial.name} (${short(trial.value, 4)}, ${duration(trial.cost)})`).join(", ")}.</p>`;
}

/** Trials that no other beats in value and cost, the cheapest first. @param {Trial[]} trials @param {boolean} isLess */
export function paretoFront(trials, isLess) {
  const sign = isLess ? 1 : -1;
  const order = [...trials].sort((a, b) => Number(a.cost) - Number(b.cost) || sign * (Number(a.value) - Number(b.value)));
  /** @type {Trial[]} */
  const front = [];
  for (const trial of order) if (!front.length || sign * (Number(front[front.length - 1].value) - Number(trial.value)) > 0) front.push(trial);
  return front;
}
