// @ts-check
// The page's frame: where we are, what is found, the theme, the keys.
import { html, render, useEffect, useErrorBoundary, useState } from "./vendor/preact.js";
import { isExported } from "./api.js";
import { Dialog, Icon, Problem, useAnswer } from "./parts.js";
import { go, link, useRoute } from "./route.js";
import { Runs } from "./runs.js";
import { RunPage } from "./run.js";

/** Pages that are fetched when they are first opened. @type {Record<string, () => Promise<any>>} */
const LATER = {
  compare: () => import("./compare.js").then((module) => module.Compare),
  sweep: () => import("./sweep.js").then((module) => module.Sweep),
  new: () => import("./fresh.js").then((module) => module.NewRun),
  system: () => import("./system.js").then((module) => module.System),
};
const KEYS = [
  ["/", "find in the runs or charts of this page"], ["?", "these keys"], ["Esc", "close; on a chart, the whole range again"],
  ["g r", "runs"], ["g n", "new run"], ["g s", "system"], ["t", "dark or light"], ["Ctrl Enter", "start the new run"],
  ["↑ ↓, Enter", "in the runs: the next one, open it"], ["← →", "in the headings of a table: the next one"], ["x", "in the runs: choose it to compare"], ["p", "in the runs: pin it as the baseline"], ["c", "in the runs: compare those chosen"],
  ["← →", "on a chart: the cursor, with Shift ten points"], ["+ −", "on a chart: nearer, farther"], ["Page ↑ ↓", "on a chart: earlier, later"],
];
const PLACES = { r: ["runs"], n: ["new"], s: ["system"] };
const THEMES = ["auto", "light", "dark"];

function App() {
  const { parts, query } = useRoute();
  const [place = "runs"] = parts;
  const about = useAnswer("/api/about");
  const [isHelpOpen, setHelpOpen] = useState(false);
  const [theme, setTheme] = useTheme();
  useKeys(() => setHelpOpen(true), () => setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]));
  useEffect(() => {
    document.title = place === "run" ? document.title : `${place} · etude`;
    window.scrollTo(0, 0);
  }, [parts.join("/")]);
  const isReadOnly = isExported || about.value?.read_only === true;
  const places = [["Runs", "runs"], ...(isReadOnly ? [] : [["New run", "new"]]), ...(isExported ? [] : [["System", "system"]])];
  return html`
    <a class="skip" href="#main" onClick=${(/** @type {Event} */ event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>Skip to the content</a>
    <header class="top">
      <a class="brand" href=${link(["runs"])}>etude</a>
      <nav aria-label="pages">${places.map(([text, to]) => html`<a key=${to} href=${link([to])} aria-current=${isIn(place, to) ? "page" : undefined}>${text}</a>`)}</nav>
      <span class="grow"></span>
      ${isReadOnly && html`<span class="tag">read only</span>`}
      <button class="quiet" onClick=${() => setTheme(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length])} aria-label="theme: ${theme}" title="theme: ${theme}"><${Icon} name=${theme} /></button>
      <button class="quiet" onClick=${() => setHelpOpen(true)} aria-label="keys" title="keys">?</button>
    </header>
    <main id="main" tabindex="-1">
      <${Problem} error=${about.error} again=${about.again} />
      <${Guard} key=${parts.join("/")}><${Page} place=${place} parts=${parts} query=${query} about=${about.value ?? {}} isReadOnly=${isReadOnly} theme=${theme} /><//>
    </main>
    <p id="said" class="unseen" aria-live="polite"></p>
    ${isHelpOpen && html`<${Dialog} title="Keys" onClose=${() => setHelpOpen(false)}>
      <dl class="keys">${KEYS.map(([key, text]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${text}</dd></div>`)}</dl>
      <form method="dialog"><button>Close</button></form><//>`}`;
}

/** The page of a place. @param {any} props */
function Page(props) {
  const { place } = props;
  const [found, setFound] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  useEffect(() => {
    LATER[place]?.().then((page) => setFound(() => page), setError);
  }, [place]);
  if (place === "runs") return html`<${Runs} ...${props} />`;
  if (place === "run") return html`<${RunPage} ...${props} id=${props.parts[1] ?? ""} tab=${props.parts[2] ?? "charts"} />`;
  if (!LATER[place]) return html`<p class="empty">There is no page “${place}”. <a href=${link(["runs"])}>The runs</a></p>`;
  if (error) return html`<${Problem} error=${error} />`;
  return found && html`<${found} ...${props} id=${props.parts[1] ?? ""} />`;
}

/** A page that fails says so, and the frame stays. @param {{children?: any}} props */
function Guard({ children }) {
  const [error, reset] = useErrorBoundary((/** @type {Error} */ error) => console.error(error));
  return error ? html`<${Problem} error=${new Error(`this page failed: ${error.message}`)} again=${reset} />` : children;
}

/** @param {string} place @param {string} to */
const isIn = (place, to) => place === to || (to === "runs" && ["run", "compare", "sweep"].includes(place));

/** @returns {[string, (theme: string) => void]} */
function useTheme() {
  const [theme, setTheme] = useState(() => kept());
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("etude-theme", theme);
    } catch { /* a browser that keeps nothing shows the default */ }
  }, [theme]);
  return [theme, setTheme];
}

function kept() {
  try {
    const theme = localStorage.getItem("etude-theme") ?? "auto";
    return THEMES.includes(theme) ? theme : "auto";
  } catch {
    return "auto";
  }
}

/** Keys that hold everywhere but in fields. @param {() => void} help @param {() => void} nextTheme */
function useKeys(help, nextTheme) {
  useEffect(() => {
    let isGoing = false;
    const press = (/** @type {KeyboardEvent} */ event) => {
      const at = /** @type {HTMLElement} */ (event.target);
      if (event.key === "Escape") closeMenus(null);
      if (event.ctrlKey || event.metaKey || event.altKey || at.closest("input, textarea, select, dialog")) return;
      const place = PLACES[/** @type {"r"} */ (event.key)];
      if (isGoing && place) go(link(place));
      else if (event.key === "?") help();
      else if (event.key === "t") nextTheme();
      else if (event.key === "/") {
        const field = /** @type {HTMLElement | null} */ (document.querySelector("input[type=search]"));
        if (!field) return;
        event.preventDefault();
        field.focus();
      }
      isGoing = event.key === "g";
    };
    const click = (/** @type {MouseEvent} */ event) => closeMenus(/** @type {Node} */ (event.target));
    document.addEventListener("keydown", press);
    document.addEventListener("click", click);
    return () => {
      document.removeEventListener("keydown", press);
      document.removeEventListener("click", click);
    };
  });
}

/** Close the menus that are open, but for the one that was clicked into. @param {Node | null} at */
function closeMenus(at) {
  for (const menu of /** @type {NodeListOf<HTMLDetailsElement>} */ (document.querySelectorAll("details.menu[open]"))) {
    if (at && menu.contains(at)) continue;
    if (!at && menu.contains(document.activeElement)) menu.querySelector("summary")?.focus();
    menu.open = false;
  }
}

render(html`<${App} />`, /** @type {Element} */ (document.getElementById("app")));
