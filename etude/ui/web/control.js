// @ts-check
// What a run can be asked for, what it answered, and the ledger of what was done to it.
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { get, post } from "./api.js";
import { moment, number, setting } from "./format.js";
import { Dialog, State, say } from "./parts.js";

const LOOK_EVERY = 700, LONGEST_WAIT = 600_000; // milliseconds between looks for an answer, and until we give up
const WORDS = /** @type {Record<string, [string, string]>} */ ({
  pause: ["Pause", "save, keep the process, and wait"], resume: ["Resume", "go on"], stop: ["Stop", "save and end"],
  checkpoint: ["Checkpoint", "save now"], evaluate: ["Evaluate", "measure now"],
});

/** @typedef {{id: string, words: string, state: string}} Asked */

/** @param {{id: string, offers: any, again: () => void}} props */
export function Actions({ id, offers, again }) {
  const [asked, setAsked] = useState(/** @type {Asked[]} */ ([]));
  const [isSure, setSure] = useState(false);
  const [form, setForm] = useState("");
  const gone = useRef(false);
  useEffect(() => () => { gone.current = true; }, []);
  const tell = (/** @type {Asked} */ what) => setAsked((/** @type {Asked[]} */ old) => [what, ...old.filter((each) => each.id !== what.id)].slice(0, 5));
  const ask = async (/** @type {string} */ action, /** @type {any} */ values, /** @type {string} */ words) => {
    const path = `/api/runs/${encodeURIComponent(id)}/requests`;
    try {
      const { request } = await post(path, { action, ...values });
      tell({ id: request, words: `${words}: asked, the run answers after its step`, state: "waiting" });
      for (const start = performance.now(); !gone.current && performance.now() - start < LONGEST_WAIT;) {
        const { answers, done } = await get(`${path}/${encodeURIComponent(request)}`);
        const last = answers[answers.length - 1];
        if (last) {
          const isRefused = ["refuse", "void"].includes(last.action);
          tell({ id: request, words: `${words}: ${last.words}`, state: isRefused ? "failed" : done ? "done" : "waiting" });
          say(`${words}: ${last.words}`);
        }
        if (done) return again();
        await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY));
      }
    } catch (error) {
      tell({ id: String(performance.now()), words: `${words}: ${/** @type {Error} */ (error).message}`, state: "failed" });
    }
  };
  const actions = (offers.actions ?? []).filter((/** @type {string} */ action) => WORDS[action]);
  const withForm = [...(offers.keys?.length ? [["set", "Change a value"]] : []), ...["generate", "note"].filter((each) => offers.actions?.includes(each)).map((each) => [each, each === "note" ? "Note" : "Try a prompt"])];
  return html`<div class="actions">
      ${actions.map((/** @type {string} */ action) => html`<button key=${action} title=${WORDS[action][1]} onClick=${() => (action === "stop" ? setSure(true) : ask(action, {}, WORDS[action][0]))}>${WORDS[action][0]}</button>`)}
      ${withForm.map(([key, text]) => html`<button key=${key} aria-expanded=${form === key} onClick=${() => setForm(form === key ? "" : key)}>${text}</button>`)}
    </div>
    ${form === "set" && offers.keys?.length > 0 && html`<${SetForm} keys=${offers.keys} ask=${ask} />`}
    ${(form === "generate" || form === "note") && offers.actions?.includes(form) && html`<${TextForm} key=${form} action=${form} ask=${ask} />`}
    <ul class="answers" aria-label="answers of the run">${asked.map((/** @type {Asked} */ each) => html`<li key=${each.id}><${State} name=${each.state === "done" ? "finished" : each.state} text=${each.words} /></li>`)}</ul>
    ${isSure && html`<${Dialog} title="Stop this run?" onClose=${() => setSure(false)}>
      <p>It saves a checkpoint and ends. <code>etude resume</code> goes on with it.</p>
      <form method="dialog"><button>Keep it running</button><button class="main" onClick=${() => ask("stop", {}, "Stop")}>Stop</button></form><//>`}`;
}

/** @param {{keys: any[], ask: (action: string, values: any, words: string) => void}} props */
function SetForm({ keys, ask }) {
  const [key, setKey] = useState(keys[0].key);
  const offered = keys.find((each) => each.key === key) ?? keys[0];
  const [text, setText] = useState(null);
  const shown = text ?? setting(offered.value);
  const send = (/** @type {Event} */ event) => {
    event.preventDefault();
    ask("set", { key, value: valueOf(shown) }, `Set ${key} = ${shown}`);
    setText(null);
  };
  return html`<form class="actions" onSubmit=${send}>
    <select aria-label="key" value=${key} onChange=${(/** @type {any} */ event) => { setKey(event.target.value); setText(null); }}>${keys.map((each) => html`<option key=${each.key} value=${each.key}>${each.key}</option>`)}</select>
    <input aria-label="new value" value=${shown} onInput=${(/** @type {any} */ event) => setText(event.target.value)} /> <span class="muted">${offered.unit}</span>
    <button class="main">Set</button><span class="muted small">now ${setting(offered.value)}; holds from the next step on. ${offered.why ?? ""}</span></form>`;
}

/** @param {{action: string, ask: (action: string, values: any, words: string) => void}} props */
function TextForm({ action, ask }) {
  const [text, setText] = useState("");
  const [label, button, words] = action === "note" ? ["your words for the record", "Note", "Note"] : ["prompt", "Continue it", "Continuation"];
  const send = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (text.trim()) ask(action, { text }, words);
    setText("");
  };
  return html`<form onSubmit=${send}><textarea rows="3" aria-label=${label} placeholder=${label} value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea>
    <div class="actions"><button class="main" disabled=${!text.trim()}>${button}</button></div></form>`;
}

/** @param {{interventions: {step: number, time: number, who: string, what: string}[]}} props */
export const Ledger = ({ interventions }) => interventions.length > 0 && html`<section><h2>What was done</h2><ol class="ledger">${interventions.map((each, index) => html`<li key=${index}>
    <strong>${each.what}</strong>
    <div class="small muted">step ${number(each.step)}, ${moment(each.time)}, ${each.who}</div></li>`)}</ol></section>`;

/** A value as it was typed: a number, true, false, none, or a text. @param {string} text */
export function valueOf(text) {
  const word = text.trim();
  if (word === "true" || word === "false") return word === "true";
  return word !== "" && Number.isFinite(Number(word)) ? Number(word) : word;
}
