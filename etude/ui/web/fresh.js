// @ts-check
// A new run: the recipe as a form and as TOML, each changing the other; its problems and its estimate beside.
import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { get, post } from "./api.js";
import { Rows } from "./data.js";
import { duration, number, setting, size } from "./format.js";
import { Icon, Loading, Problem, useAnswer, useReading } from "./parts.js";
import { change, go, link } from "./route.js";

const AFTER_TYPING = 400, BEFORE_ESTIMATE = 1200; // milliseconds of stillness
const LOOK_EVERY = 1000; // milliseconds between looks at a run that starts
const MOST_SENT = 1_000_000; // bytes of recipe and rows in a question
const USUAL = new Set(["name", "seed", "model.from", "tokenizer.from", "adapter.rank", "data.train.path", "tasks.objective", "tasks.ratio", "train.objective", "train.epochs", "train.steps", "train.seq_len", "train.global_batch_size", "optim.learning_rate", "optim.weight_decay", "schedule.kind", "schedule.warmup_steps", "evaluate.every_steps", "evaluate.metric", "evaluate.patience"]);
const FIRST = ["", "data.train", "train", "optim"]; // sections that are open

/** @param {{query: Record<string, string>}} props */
export function NewRun({ query }) {
  const schema = useAnswer("/api/schema");
  const source = useReading(query.from ? `${query.from} ${query.finding ?? ""}` : null, (signal) => beginning(query, signal));
  const first = query.from ? source.value : schema.value && { toml: schema.value.example };
  const draft = `etude-draft ${query.from ?? ""} ${query.finding ?? ""}`;
  if (schema.error || source.error) return html`<${Problem} error=${schema.error ?? source.error} again=${schema.error ? schema.again : source.again} />`;
  if (!schema.value || !first) return html`<${Loading} text="Reading the recipe" />`;
  return html`<h1>New run</h1>
    ${query.from && html`<p class="line">From the recipe of <a href=${link(["run", query.from])}>${first.name}</a>${first.changes?.length ? html`<span>with ${first.changes.map((/** @type {any} */ [key, value]) => html`<code key=${key}>${key} = ${setting(value)}</code> `)}</span>` : ""}</p>`}
    <${Form} key=${draft} sections=${schema.value.sections} first=${first.toml} draft=${draft} query=${query} />`;
}

/** The recipe of a run to begin with, with the changes that one of its findings proposes. @param {Record<string, string>} query @param {AbortSignal} signal */
async function beginning({ from, finding }, signal) {
  const path = `/api/runs/${encodeURIComponent(from)}`;
  const [recipe, run] = await Promise.all([get(`${path}/recipe`, signal), get(path, signal)]);
  const changes = finding === undefined ? {} : run.findings?.[Number(finding)]?.changes ?? {};
  const name = run.name.replace(/-[0-9a-f]{6}$/, "");
  if (!Object.keys(changes).length) return { toml: recipe.next, name: run.name, changes: [] };
  const { toml } = await post("/api/check", { toml: recipe.next, changes: { ...changes, name: nextName(name) } }, signal);
  return { toml: toml ?? recipe.next, name: run.name, changes: Object.entries(changes) };
}

/** The name of the next version, as `etude improve` gives it. @param {string} name */
function nextName(name) {
  const [, base, number] = name.match(/^(.*)-v(\d{1,6})$/) ?? ["", name, "1"];
  return `${base.slice(0, 60 - number.length)}-v${Number(number) + 1}`;
}

/** @param {{sections: any[], first: string, draft: string, query: Record<string, string>}} props `draft`: the name under which the browser keeps what was typed until its window is closed */
function Form({ sections, first, draft, query }) {
  const [toml, setToml] = useState(() => kept(draft) ?? first);
  useEffect(() => keep(draft, toml === first ? null : toml), [toml]);
  const { checked, error, edit } = useCheck(toml, setToml);
  const problems = checked?.problems ?? [];
  const byKey = useMemo(() => new Map(problems.filter((/** @type {any} */ each) => each.key).map((/** @type {any} */ each) => [each.key, each])), [problems]);
  const words = (query.q ?? "").toLowerCase();
  const shown = grouped(sections).map((section) => ({ ...section, keys: section.keys.filter((/** @type {any} */ each) => `${each.key} ${each.why}`.toLowerCase().includes(words)) })).filter((section) => section.keys.length);
  return html`<div class="tools"><input type="search" placeholder="Find a key" aria-label="find a key" value=${query.q ?? ""} onInput=${(/** @type {any} */ event) => change({ q: event.target.value })} />
      <span class="muted" role="status">${!checked ? "checking …" : problems.length ? `${problems.length} to mend` : "no problem found"}</span>
      ${toml !== first && html`<button class="quiet" onClick=${() => setToml(first)}>Undo all changes</button>`}
      <span class="grow"></span><${Start} draft=${draft} toml=${toml} problems=${problems} isChecked=${checked !== null} /></div>
    <div class="split fresh"><form class="stack" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()} aria-label="recipe">
      ${shown.map((section) => html`<details key=${section.name} class="section" open=${words !== "" || FIRST.includes(section.name) || undefined}>
        <summary><h2>${section.name || "the run"}</h2><span class="muted">${phrase(section.why)}</span></summary>
        ${section.is_list || section.is_named ? html`<${Entries} section=${section} checked=${checked} byKey=${byKey} edit=${edit} isAll=${words !== ""} />`
          : html`<${Fields} start="" entry="" section=${section} checked=${checked} byKey=${byKey} edit=${edit} isAll=${words !== ""} />`}</details>`)}
    </form>
    <aside class="stack"><${Problem} error=${error} />
      <${Problems} problems=${problems} />
      ${(checked?.notes ?? []).map((/** @type {string} */ note) => html`<p key=${note} class="muted">${note}</p>`)}
      <${Estimate} toml=${toml} isSound=${checked !== null && !problems.length} />
      <section><h2>TOML</h2><textarea rows="20" spellcheck="false" aria-label="the recipe as TOML" value=${toml} onInput=${(/** @type {any} */ event) => setToml(event.target.value)}></textarea></section>
      <${Preview} toml=${toml} isSound=${checked !== null && !problems.length} />
    </aside></div>`;
}

/** What was typed under a name, if it was kept. @param {string} name */
function kept(name) {
  try {
    return sessionStorage.getItem(name);
  } catch {
    return null; // a browser that keeps nothing
  }
}

/** Keep a text until the window is closed, or no longer. @param {string} name @param {string | null} text */
function keep(name, text) {
  try {
    if (text === null) sessionStorage.removeItem(name);
    else sessionStorage.setItem(name, text);
  } catch { /* a browser that keeps nothing loses it on leaving */ }
}

/** Sections, in which those of a list or by name hold the keys of the sections within them. @param {any[]} sections */
function grouped(sections) {
  const many = sections.filter((section) => section.is_list || section.is_named);
  const outer = (/** @type {any} */ section) => many.find((each) => section.name.startsWith(`${each.name}.`));
  return sections.filter((section) => !outer(section)).map((section) => ({
    ...section,
    keys: [section, ...sections.filter((each) => many.includes(section) && outer(each) === section)].flatMap((/** @type {any} */ each) => each.keys),
  }));
}

/**
 * The keys of a section: those that are set, have a problem or are usual, and behind a button the others.
 * @param {{start: string, entry: string, section: any, checked: any, byKey: Map<string, any>, edit: (changes: Record<string, any>) => void, isAll: boolean}} props start, entry: where the section is one of many
 */
function Fields({ start, entry, section, checked, byKey, edit, isAll }) {
  const placed = section.keys.map((/** @type {any} */ field) => {
    const place = start ? `${start}${entry}${field.key.slice(section.name.length)}` : field.key;
    return { field, place, given: checked?.given?.[place], problem: byKey.get(place) ?? (entry === "0" ? byKey.get(field.key) : undefined) };
  });
  const isNear = (/** @type {any} */ each) => isAll || each.given !== undefined || each.problem || each.field.needed || USUAL.has(each.field.key);
  const near = placed.filter(isNear), far = placed.filter((/** @type {any} */ each) => !isNear(each));
  const show = (/** @type {any} */ { field, place, given, problem }) => html`<${Field} key=${place} place=${place} field=${field} given=${given} value=${checked?.values?.[place]} problem=${problem} onValue=${(/** @type {any} */ value) => edit({ [place]: value })} />`;
  if (near.length === 0 || far.length < 3) return placed.map(show);
  return html`${near.map(show)}<details class="more"><summary>${far.length} more keys</summary>${far.map(show)}</details>`;
}

/** The entries of a list, or the sections by name, and how one is added. @param {{section: any, checked: any, byKey: Map<string, any>, edit: (changes: Record<string, any>) => void, isAll: boolean}} props */
function Entries({ section, checked, byKey, edit, isAll }) {
  const [added, setAdded] = useState(/** @type {string[]} */ ([]));
  const [name, setName] = useState("");
  const start = `${section.name}.`;
  const written = new Set(Object.keys(checked?.given ?? {}).filter((key) => key.startsWith(start)).map((key) => key.slice(start.length).split(".")[0]));
  const entries = [...new Set([...(section.is_list ? ["0"] : []), ...written, ...added])];
  const next = section.is_list ? String(entries.length) : name.trim();
  const isFree = /^[A-Za-z0-9_-]+$/.test(next) && !entries.includes(next) && (!section.is_list || written.size === entries.length);
  const add = () => {
    setAdded([...added, next]);
    setName("");
  };
  const remove = (/** @type {string} */ entry) => {
    setAdded(section.is_list ? [] : added.filter((/** @type {any} */ each) => each !== entry));
    if (written.has(entry)) edit({ [start + entry]: null });
  };
  const titleOf = (/** @type {string} */ entry) => (section.is_list ? `${section.name}, ${Number(entry) + 1}` : start + entry);
  return html`${entries.map((entry) => html`<fieldset key=${entry} class="entry" aria-label=${titleOf(entry)}>
      ${(entries.length > 1 || section.is_named) && html`<div class="line"><h3>${titleOf(entry)}</h3><button class="quiet" aria-label="take out ${titleOf(entry)}" onClick=${() => remove(entry)}>take out</button></div>`}
      <${Fields} start=${start} entry=${entry} section=${section} checked=${checked} byKey=${byKey} edit=${edit} isAll=${isAll} /></fieldset>`)}
    <div class="line add">${section.is_named && html`<input aria-label="name of a section of ${section.name}" placeholder="name" value=${name} onInput=${(/** @type {any} */ event) => setName(event.target.value)} />`}
      <button disabled=${!isFree} onClick=${add}>${section.is_list ? `Add one more of ${section.name}` : `Add to ${section.name}`}</button></div>`;
}

/** The answer to the last text, and `edit`, by which the server changes keys and leaves comments. @param {string} toml @param {(toml: string) => void} setToml */
function useCheck(toml, setToml) {
  const [state, setState] = useState({ checked: /** @type {any} */ (null), error: /** @type {Error | null} */ (null) });
  const asked = useRef(/** @type {AbortController | null} */ (null));
  const isOurs = useRef(false);
  const check = (/** @type {any} */ body) => {
    asked.current?.abort();
    asked.current = new AbortController();
    return post("/api/check", body, asked.current.signal).then((checked) => {
      setState({ checked, error: null });
      if (body.changes && typeof checked.toml === "string" && checked.toml !== toml) {
        isOurs.current = true;
        setToml(checked.toml);
      }
    }, (error) => error.name !== "AbortError" && setState((/** @type {any} */ old) => ({ ...old, error })));
  };
  useEffect(() => {
    if (isOurs.current) {
      isOurs.current = false;
      return undefined;
    }
    const timer = setTimeout(() => check({ toml }), AFTER_TYPING);
    return () => clearTimeout(timer);
  }, [toml]);
  return { ...state, edit: (/** @type {Record<string, any>} */ changes) => check({ toml, changes }) };
}

/** One key of the recipe. @param {{place: string, field: any, given: any, value: any, problem: any, onValue: (value: any) => void}} props */
function Field({ place, field, given, value, problem, onValue }) {
  const [typed, setTyped] = useState(/** @type {string | null} */ (null));
  const timer = useRef(0);
  const id = `field-${place}`;
  const fallback = value ?? field.default;
  const send = (/** @type {string} */ text) => {
    setTyped(text);
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => {
      onValue(valueOf(text, field));
      setTyped(null);
    }, AFTER_TYPING);
  };
  const shown = typed ?? (given === undefined || given === null ? "" : field.kind === "list" ? (Array.isArray(given) ? given.join(", ") : String(given)) : String(given));
  const about = { id, "aria-describedby": `${id}-why`, "aria-invalid": problem ? "true" : undefined };
  const hint = fallback === null || fallback === undefined ? (field.needed ? "needed" : "not set") : setting(fallback);
  const only = field.kind === "choice" && field.choices?.length;
  return html`<div class="field ${problem ? "wrong" : ""}"><label for=${id}><code>${field.name ?? place.split(".").pop()}</code></label>
    <div>${field.kind === "flag" || only ? html`<select ...${about} value=${given === undefined || given === null ? "" : String(given)} onChange=${(/** @type {any} */ event) => onValue(event.target.value === "" ? null : valueOf(event.target.value, field))}>
        <option value="">${hint} (default)</option>${(only ? field.choices : [true, false]).map((/** @type {any} */ each) => html`<option key=${each} value=${String(each)}>${String(each)}</option>`)}</select>`
      : field.kind === "section" ? html`<span id=${id} class="muted">written in the TOML</span>`
      : html`<input ...${about} value=${shown} placeholder=${hint} list=${field.choices?.length ? `${id}-words` : undefined} inputmode=${field.kind === "number" || field.kind === "whole" ? "decimal" : undefined} onInput=${(/** @type {any} */ event) => send(event.target.value)} />`}
      ${field.choices?.length && !only ? html`<datalist id="${id}-words">${field.choices.map((/** @type {any} */ each) => html`<option key=${each} value=${String(each)} />`)}</datalist>` : ""}
      ${field.unit ? html` <span class="muted">${field.unit}</span>` : ""}
      <p id="${id}-why" class="small muted">${field.why}</p>
      ${problem && html`<p class="small bad">${problem.text}${problem.remedy ? `; ${problem.remedy}` : ""}</p>`}</div></div>`;
}

/** What was typed as the schema has it. @param {string} text @param {any} field */
function valueOf(text, field) {
  const word = text.trim();
  if (word === "") return null;
  if (field.kind === "flag") return word === "true";
  if (field.kind === "list") return word.split(",").map((each) => each.trim()).filter(Boolean);
  const isNumber = ["number", "whole"].includes(field.kind) && Number.isFinite(Number(word));
  return isNumber ? Number(word) : word;
}

/** @param {{problems: any[]}} props */
function Problems({ problems }) {
  if (!problems.length) return null;
  return html`<section aria-live="polite"><h2>To mend</h2><ul class="answers">${problems.map((each, index) => html`<li key=${index} class="state bad wrap"><${Icon} name="warning" /><span>${each.line ? `line ${each.line}: ` : ""}${each.key ? html`<code>${each.key}</code>: ` : ""}${each.text}${each.remedy ? html`; <span class="muted">${each.remedy}</span>` : ""}</span></li>`)}</ul></section>`;
}

/** @param {{toml: string, isSound: boolean}} props */
function Estimate({ toml, isSound }) {
  const [state, setState] = useState({ value: /** @type {any} */ (null), error: /** @type {Error | null} */ (null), isAsking: false });
  useEffect(() => {
    if (!isSound) return undefined;
    const asked = new AbortController();
    const timer = setTimeout(() => {
      setState((/** @type {any} */ old) => ({ ...old, isAsking: true }));
      post("/api/estimate", { toml }, asked.signal).then(
        (value) => !value.superseded && setState({ value, error: value.problem ? new Error(value.problem) : null, isAsking: false }),
        (error) => error.name !== "AbortError" && setState({ value: null, error, isAsking: false }),
      );
    }, BEFORE_ESTIMATE);
    return () => {
      clearTimeout(timer);
      asked.abort();
    };
  }, [toml, isSound]);
  const { value, error, isAsking } = state;
  const total = typeof value?.parameters === "object" ? value?.parameters?.total : value?.parameters;
  const rows = value?.rows ?? (value && !value.problem ? [
    ["parameters", number(total)], ["memory", size(value.memory_bytes ?? value.forecast?.memory_bytes)],
    ["time", duration(value.seconds ?? value.forecast?.seconds)], ["disk", size(value.disk_bytes ?? value.forecast?.disk_bytes)],
  ] : []);
  return html`<section><h2>Estimate</h2><${Problem} error=${error} />
    ${rows.length > 0 && html`<dl class="list">${rows.map((/** @type {any} */ [name, text]) => html`<div key=${name}><dt>${name}</dt><dd>${text}</dd></div>`)}</dl>`}
    <p class="muted small" role="status">${!isSound ? "It comes when the recipe has no problem." : isAsking ? "Estimating …" : value?.basis ?? ""}</p></section>`;
}

/** @param {{toml: string, isSound: boolean}} props */
function Preview({ toml, isSound }) {
  const [state, setState] = useState({ samples: /** @type {any[] | null} */ (null), error: /** @type {Error | null} */ (null), of: "", isAsking: false });
  const [path, setPath] = useState("");
  const look = (/** @type {any} */ given, of = "the recipe") => {
    setState({ samples: null, error: null, of, isAsking: true });
    post("/api/rows", { toml, ...given }).then(
      (value) => !value.superseded && setState({ samples: value.problem ? null : value.samples ?? [], error: value.problem ? new Error(value.problem) : null, of, isAsking: false }),
      (error) => setState({ samples: null, error, of, isAsking: false }),
    );
  };
  const send = async (/** @type {File} */ file) => {
    const { text, isWhole } = await beginningOf(file, MOST_SENT - sizeIn(toml));
    look({ name: file.name, rows: text }, isWhole ? file.name : `the beginning of ${file.name}`);
  };
  const isOff = !isSound || state.isAsking;
  return html`<section><h2>Rows</h2><div class="stack small-steps">
    <button disabled=${isOff} onClick=${() => look({})}>Show the first rows</button>
    <form class="line" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); look({ path: path.trim() }, path.trim()); }}>
      <input aria-label="path of another file or folder" placeholder="path of another file or folder" value=${path} onInput=${(/** @type {any} */ event) => setPath(event.target.value)} />
      <button disabled=${isOff || !path.trim()}>Show its rows</button></form>
    <label class="line"><span class="muted">or of a text file to send</span><input type="file" disabled=${isOff} onChange=${(/** @type {any} */ event) => event.target.files[0] && send(event.target.files[0])} /></label>
    <p class="small muted" role="status">${!isSound ? "They come when the recipe has no problem." : state.isAsking ? "Reading …" : state.samples ? `Rows of ${state.of}` : "Another file is read as the first source of the recipe is."}</p></div>
    <${Problem} error=${state.error} />${state.samples && html`<${Rows} samples=${state.samples} />`}</section>`;
}

/** A line of help as those beside it are: from a capital on, and without the dot of a lone sentence. @param {string} text */
const phrase = (text) => (text.charAt(0).toUpperCase() + text.slice(1)).replace(/^([^.]*)\.$/, "$1");

/** The bytes of a text within JSON. @param {string} text */
const sizeIn = (text) => new Blob([JSON.stringify(text)]).size;

/** As many lines of a file as may be sent. @param {File} file @param {number} most bytes within JSON */
async function beginningOf(file, most) {
  let text = await file.slice(0, most).text();
  let isWhole = file.size <= most;
  while (sizeIn(text) > most || (!isWhole && !text.endsWith("\n") && text.includes("\n"))) {
    isWhole = false;
    const share = Math.min(most / sizeIn(text), 1);
    text = text.slice(0, text.lastIndexOf("\n", Math.floor(share * text.length) - 2) + 1) || text.slice(0, Math.floor(0.9 * share * text.length));
  }
  return { text, isWhole };
}

/** @param {{toml: string, problems: any[], isChecked: boolean, draft: string}} props */
function Start({ toml, problems, isChecked, draft }) {
  const [state, setState] = useState({ words: "", error: /** @type {Error | null} */ (null), isAsking: false });
  const gone = useRef(false);
  useEffect(() => () => { gone.current = true; }, []);
  const start = async () => {
    setState({ words: "Starting …", error: null, isAsking: true });
    try {
      let begun = await post("/api/start", { toml });
      while (!begun.run && !begun.problem && !gone.current) { // one that prepares its data takes its time, and says what it does
        setState({ words: begun.lines?.[begun.lines.length - 1] ?? "Starting …", error: null, isAsking: true });
        await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY));
        begun = await get(`/api/start/${encodeURIComponent(begun.start)}`);
      }
      if (gone.current) return;
      if (begun.problem) throw new Error(typeof begun.problem === "string" ? begun.problem : begun.problem.text);
      keep(draft, null);
      go(link(["run", begun.run]));
    } catch (error) {
      setState({ words: "", error: /** @type {Error} */ (error), isAsking: false });
    }
  };
  const isReady = isChecked && !problems.length && !state.isAsking;
  useEffect(() => {
    const press = (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !isReady) return;
      event.preventDefault(); // of a line in the TOML
      start();
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  });
  return html`<span class="muted" role="status">${state.words}</span><button class="main" disabled=${!isReady} onClick=${start} title="Ctrl Enter; it goes on when this page and its server are closed">Start the run</button><${Problem} error=${state.error} />`;
}
