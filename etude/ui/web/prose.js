// @ts-check
// What the server rendered from Markdown, as nodes of a few kinds: anything else becomes its text.
import { h } from "./vendor/preact.js";
import { address } from "./api.js";

const KINDS = new Set("P H1 H2 H3 H4 H5 H6 UL OL LI TABLE THEAD TBODY TR TH TD PRE CODE STRONG EM BLOCKQUOTE FIGURE FIGCAPTION HR BR DL DT DD".split(" "));
const DROPPED = new Set(["SCRIPT", "STYLE", "TEMPLATE", "IFRAME", "OBJECT", "EMBED", "SVG", "MATH"]);
const CHART = /^(\/api\/[\w./%-]+\.svg|data:image\/svg\+xml[;,].*)$/s;

/** @param {string} text HTML, which is parsed and never put into the page @returns {any[]} */
export function prose(text) {
  const parsed = new DOMParser().parseFromString(text, "text/html"); // no script runs there, and nothing is loaded
  return [...parsed.body.childNodes].map(node);
}

/** @param {Node} from @returns {any} */
function node(from) {
  if (from.nodeType === Node.TEXT_NODE) return from.textContent;
  if (!(from instanceof Element)) return null;
  const name = from.tagName.toUpperCase();
  if (DROPPED.has(name)) return null;
  const inside = [...from.childNodes].map(node);
  if (name === "IMG") {
    const source = from.getAttribute("src") ?? "", alternative = from.getAttribute("alt") ?? "";
    return CHART.test(source) ? h("img", { src: source.startsWith("data:") ? source : address(source), alt: alternative }) : alternative;
  }
  if (name === "TABLE") return h("div", { class: "scroll", tabindex: 0 }, h("table", null, inside));
  return KINDS.has(name) ? h(name.toLowerCase(), null, inside) : inside;
}
