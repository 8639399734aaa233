// @ts-check
// What the model wrote over time, each beside the reference or what it wrote before.
import { html } from "./vendor/preact.js";
import { difference } from "./difference.js";
import { number, plural } from "./format.js";
import { Choice, Empty, Icon, Loading, Problem, useAnswer } from "./parts.js";
import { change } from "./route.js";

const LEAST_SHARED = 0.2; // of the letters of the longer text
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
  const titles = titlesOf(prompts.map((/** @type {any} */ each) => each.prompt));
  const hasReference = typeof prompt.reference === "string";
  const against = query.against ?? (hasReference ? "reference" : "nothing");
  const answers = prompt.answers ?? [];
  return html`<div class="beside">
    <nav aria-label="prompts" class="prompts">${prompts.map((/** @type {any} */ each, /** @type {number} */ index) => html`<button key=${index} aria-pressed=${index === chosen} onClick=${() => change({ prompt: index })}>
      <span class="mono">${titles[index]}</span>${each.capability && html`<span class="tag">${each.capability}</span>`}</button>`)}</nav>
    <div class="stack">
      <section><h2>Prompt</h2><pre class="text">${prompt.prompt}</pre></section>
      ${hasReference && html`<section><h2>Reference</h2><pre class="text">${prompt.reference}</pre></section>`}
      <section><h2>${plural(answers.length, "answer")}</h2>
        <${Choice} label="differences to" name="against" items=${AGAINST.filter(([key]) => hasReference || key !== "reference")} value=${against} onChange=${(/** @type {string} */ key) => change({ against: key })} />
        <ol class="timeline">${answers.map((/** @type {any} */ answer, /** @type {number} */ index) => {
          const beside = against === "reference" ? prompt.reference : against === "earlier" ? answers[index - 1]?.text : null;
          return html`<li key=${`${answer.step} ${index}`}><div class="line"><strong>step ${number(answer.step)}</strong>${answer.best && html`<span class="state good"><${Icon} name="star" />best</span>`}
            ${answer.stopped === false && html`<span class="muted">cut off</span>`}</div><${Answer} text=${answer.text} beside=${beside} /></li>`;
        })}</ol></section>
      ${value.cut && html`<p class="warn">Not all is shown: ${[value.cut].flat().join("; ")}.</p>`}
    </div></div>`;
}

/** An answer with its differences to another text, where they have enough in common to be read. @param {{text: string, beside: string | null | undefined}} props */
function Answer({ text, beside }) {
  if (typeof beside !== "string") return html`<pre class="text">${text}</pre>`;
  const parts = difference(beside, text);
  const letters = (/** @type {string} */ kind) => parts.reduce((sum, part) => sum + (part.kind === kind ? part.text.replace(/\W/g, "").length : 0), 0);
  const shared = letters("same");
  if (shared < LEAST_SHARED * Math.max(shared + letters("gone"), shared + letters("new"))) return html`<p class="small muted">It has too little in common with the other text to show differences.</p><pre class="text">${text}</pre>`;
  return html`<pre class="text">${parts.map(({ kind, text: part }, index) => (kind === "same" ? part : kind === "gone" ? html`<del key=${index}>${part}</del>` : html`<ins key=${index}>${part}</ins>`))}</pre>`;
}

/** The first line of each prompt that not all of them have. @param {string[]} prompts */
function titlesOf(prompts) {
  const lines = prompts.map((prompt) => prompt.split("\n").filter((line) => line.trim()));
  const isShared = (/** @type {string} */ line) => lines.length > 1 && lines.every((each) => each.includes(line));
  return lines.map((each) => {
    const line = (each.find((line) => !isShared(line)) ?? each[0] ?? "(nothing)").trim();
    return line.length > 80 ? `${line.slice(0, 80)}…` : line;
  });
}
