// @ts-check
// The recipe of a run, and how it differs from the defaults or from another run.
import { html } from "./vendor/preact.js";
import { plural, setting } from "./format.js";
import { Empty, Loading, Pick, Problem, download, useAnswer } from "./parts.js";
import { change } from "./route.js";

/** @param {{id: string, query: Record<string, string>, run: any}} props */
export function Recipe({ id, query, run }) {
  const against = query.against ?? "default";
  const { value, error, again } = useAnswer(`/api/runs/${encodeURIComponent(id)}/recipe?against=${encodeURIComponent(against)}`);
  const runs = useAnswer("/api/runs").value?.runs ?? [];
  const others = runs.filter((/** @type {any} */ each) => each.id !== id);
  const names = new Map();
  for (const each of others) names.set(each.name, (names.get(each.name) ?? 0) + 1);
  const other = others.find((/** @type {any} */ each) => each.id === against);
  const rows = value?.differences ?? [];
  const derived = rows.filter((/** @type {any} */ each) => each.derived), given = rows.filter((/** @type {any} */ each) => !each.derived);
  return html`<div class="tools"><label class="line">differences to <${Pick} label="differences to" none="the defaults" value=${query.against ?? ""} items=${others.map((/** @type {any} */ each) => [each.id, names.get(each.name) > 1 ? `${each.name} (${each.id})` : each.name])} onChange=${(/** @type {string} */ against) => change({ against })} /></label>
      <span class="grow"></span>
      ${value && html`<button onClick=${() => navigator.clipboard?.writeText(value.toml)}>Copy</button><button onClick=${() => download(`${run.name ?? "recipe"}.toml`, value.toml, "application/toml")}>Download</button>`}</div>
    <${Problem} error=${error} again=${again} />
    ${!value ? !error && html`<${Loading} text="Reading the recipe" />` : html`<div class="stack">
      ${given.length ? html`<${Differences} rows=${given} other=${other ? other.name : "default"} />` : html`<${Empty}>${other ? "The recipes say the same." : "It is the defaults."}<//>`}
      ${derived.length > 0 && html`<details class="section"><summary><h2>Worked out</h2><span class="muted">${plural(derived.length, "value")} that etude found for keys which the recipe leaves open</span></summary>
        <${Differences} rows=${derived} other="default" /></details>`}
      <section><h2>As it was given</h2><pre class="text">${value.toml}</pre></section></div>`}`;
}

/** Keys with their values on both sides, and what each is for. @param {{rows: any[], other: string}} props */
const Differences = ({ rows, other }) => html`<div class="scroll" tabindex="0" role="region" aria-label="differences"><table class="keyed">
  <thead><tr><th scope="col">key</th><th scope="col">this run</th><th scope="col">${other}</th><th scope="col">what it is</th></tr></thead>
  <tbody>${rows.map((each) => html`<tr key=${each.key}><td><code>${each.key}</code></td><td><strong>${setting(each.value)}</strong>${each.unit ? ` ${each.unit}` : ""}</td><td class="other" data-of=${other}>${setting(each.other)}</td><td class="muted">${each.why ?? ""}</td></tr>`)}</tbody></table></div>`;
