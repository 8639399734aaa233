// @ts-check
// The view that all charts of a page share, as the address holds it, and the controls that change it.
import { html } from "./vendor/preact.js";
import { Choice } from "./parts.js";
import { change } from "./route.js";

/**
 * `from` and `to` are places on the axis, null for the whole range; `smooth` is a half-life in steps, 0 for none.
 * @typedef {{axis: string, from: number | null, to: number | null, smooth: number, isLog: boolean}} View
 */
const AXES = /** @type {[string, string][]} */ ([["step", "step"], ["tokens", "tokens"], ["seconds", "time"], ["epoch", "epoch"]]);
const HALF_LIVES = [0, 1, 2, 3, 4].flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power)).slice(1); // steps
const WHOLE = { from: null, to: null };

/** The view of an address. @param {Record<string, string>} query @returns {View} */
export function readView(query) {
  const figure = (/** @type {string | undefined} */ text) => (text !== undefined && Number.isFinite(Number(text)) && text !== "" ? Number(text) : null);
  const smooth = figure(query.smooth) ?? 0;
  return {
    axis: AXES.some(([key]) => key === query.axis) ? query.axis : "step", from: figure(query.from), to: figure(query.to),
    smooth: smooth >= 1 ? Math.min(smooth, 1e9) : 0, isLog: query.log === "1",
  };
}

/** The part of an address that is the view, for links to where the same holds. @param {Record<string, string>} query */
export const viewOf = ({ axis, from, to, smooth, log, hide }) => ({ axis, from, to, smooth, log, hide });

/** @param {{view: View, query: Record<string, string>}} props */
export function ViewTools({ view, query }) {
  const isZoomed = view.from !== null && view.to !== null;
  const move = (/** @type {number} */ share) => {
    const [from, to] = [Number(view.from), Number(view.to)];
    change({ from: from + share * (to - from), to: to + share * (to - from) });
  };
  const place = view.smooth ? HALF_LIVES.filter((each) => each <= view.smooth).length : 0;
  const words = view.smooth ? `${view.smooth.toLocaleString("en-US")} steps` : "off";
  return html`<div class="tools">
    <${Choice} label="over" name="axis" items=${AXES} value=${view.axis} onChange=${(/** @type {string} */ axis) => change({ axis, ...WHOLE })} />
    <label class="range" title="half-life of an exponential mean, in steps">smooth <input type="range" min="0" max=${HALF_LIVES.length} value=${place} aria-valuetext=${words}
      onInput=${(/** @type {any} */ event) => change({ smooth: HALF_LIVES[Number(event.target.value) - 1] ?? null })} /><output>${words}</output></label>
    <label class="line check"><input type="checkbox" checked=${view.isLog} onChange=${(/** @type {any} */ event) => change({ log: event.target.checked ? "1" : null })} />log scale</label>
    ${isZoomed && html`<span class="line buttons"><button aria-label="earlier" title="earlier (Page Up on a chart)" onClick=${() => move(-0.5)}>←</button><button aria-label="later" title="later (Page Down on a chart)" onClick=${() => move(0.5)}>→</button><button onClick=${() => change(WHOLE)}>Whole range</button></span>`}
    <span class="grow"></span>
    <input type="search" class="short" placeholder="Find a chart" aria-label="find a chart" value=${query.q ?? ""} onInput=${(/** @type {any} */ event) => change({ q: event.target.value })} />
  </div>`;
}
