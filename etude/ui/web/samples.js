// @ts-check
// What the model wrote over time, each beside the reference or what it wrote before.
import { html } from "./vendor/preact.js";
import { difference } from "./difference.js";
import { number, plural } from "./format.js";
import { Choice, Empty, Icon, Loading, Problem, useAnswer } from "./parts.js";
import { change } from "./route.js";

const AGAINST = /** @type {[string, string][]} */ ([["reference", "the reference"], ["earlier", "the one before"], ["nothing", "nothing"]]);

/** @param {{id: string, query: Record<string, string>, run: any}} props */
export function Samples({ id, query, run }) {
  const { value, error, again } = useAnswer(`/api/runs/${encodeURIComponent(id)}/samples`, run.samples);
  if (error) return html`<${Problem} error=${error} again=${again} />`;
  if (!value) return html`<${Loading} text="Reading the samples" />`;
  const prompts = value.prompts ?? [];
  if (!prompts.length) return html`<${Empty}>This run has written nothing yet: its recipe names prompts by <code>evaluate.prompts</code>, and <code>evaluate.answers</code> of held-out rows.<//>`;
  const chosen = Math.min(Math.max(Number(query.prompt ?? 0) || 0, 0), prompts.length - 1);
  const prompt = prompts[chosen];
  const hasReference = typeof prompt.reference === "string";
  const against = query.against ?? (hasReference ? "reference" : "nothing");
  const answers = prompt.answers ?? [];
  return html`<div class="beside">
    <nav aria-label="prompts" class="prompts">${prompts.map((/** @type {any} */ each, /** @type {number} */ index) => html`<button key=${index} aria-pressed=${index === chosen} onClick=${() => change({ prompt: index })}>
      <span class="mono">${firstLine(each.prompt)}</span>${each.capability && html`<span class="tag">${each.capability}</span>`}</button>`)}</nav>
    <div class="stack">
      <section><h2>Prompt</h2><pre class="text">${prompt.prompt}</pre></section>
      ${hasReference && html`<section><h2>Reference</h2><pre class="text">${prompt.reference}</pre></section>`}
      <section><h2>${plural(answers.length, "answer")}</h2>
        <${Choice} label="differences to" name="against" items=${AGAINST.filter(([key]) => hasReference || key !== "reference")} value=${against} onChange=${(/** @type {string} */ key) => change({ against: key })} />
        <ol class="timeline">${answers.map((/** @type {any} */ answer, /** @type {number} */ index) => {
          const beside = against === "reference" ? prompt.reference : against === "earlier" ? answers[index - 1]?.text : null;
          return html`<li key=${`${answer.step} ${index}`}><div class="line"><strong>step ${number(answer.step)}</strong>${answer.best && html`<span class="state good"><${Icon} name="star" />best</span>`}
            ${answer.stopped === false && html`<span class="muted">cut off</span>`}</div><pre class="text">${typeof beside === "string" ? html`<${Difference} first=${beside} second=${answer.text} />` : answer.text}</pre></li>`;
        })}</ol></section>
      ${value.cut && html`<p class="warn">Not all is shown: ${[value.cut].flat().join("; ")}.</p>`}
    </div></div>`;
}

/** @param {{first: string, second: string}} props */
export const Difference = ({ first, second }) => difference(first, second).map(({ kind, text }, index) =>
  kind === "same" ? text : kind === "gone" ? html`<del key=${index}>${text}</del>` : html`<ins key=${index}>${text}</ins>`);

/** @param {string} text */
const firstLine = (text) => {
  const line = text.trim().split("\n").find((each) => each.trim()) ?? "(nothing)";
  return line.length > 80 ? `${line.slice(0, 80)}…` : line;
};
