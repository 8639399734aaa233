// @ts-check
// The difference between two texts, word by word.

const MOST = 1500; // words of a text; longer ones are compared by lines

/**
 * Parts of both texts: `same`, `gone` from the first, `new` in the second.
 * @param {string} first @param {string} second @returns {{kind: "same" | "gone" | "new", text: string}[]}
 */
export function difference(first, second) {
  let [a, b] = [words(first), words(second)];
  if (a.length > MOST || b.length > MOST) [a, b] = [first.split(/(?<=\n)/), second.split(/(?<=\n)/)];
  if (a.length > MOST || b.length > MOST) return [{ kind: "gone", text: first }, { kind: "new", text: second }];
  let start = 0, end = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  /** @type {{kind: "same" | "gone" | "new", text: string}[]} */
  const parts = [];
  const add = (/** @type {"same" | "gone" | "new"} */ kind, /** @type {string} */ text) => {
    const last = parts[parts.length - 1];
    if (last?.kind === kind) last.text += text;
    else if (text) parts.push({ kind, text });
  };
  add("same", a.slice(0, start).join(""));
  walk(a.slice(start, a.length - end), b.slice(start, b.length - end), add);
  add("same", a.slice(a.length - end).join(""));
  return parts;
}

/** The longest common subsequence, told in order. @param {string[]} a @param {string[]} b @param {(kind: "same" | "gone" | "new", text: string) => void} add */
function walk(a, b, add) {
  const wide = b.length + 1;
  const lengths = new Uint16Array((a.length + 1) * wide);
  for (let i = a.length - 1; i >= 0; i -= 1)
    for (let j = b.length - 1; j >= 0; j -= 1)
      lengths[i * wide + j] = a[i] === b[j] ? lengths[(i + 1) * wide + j + 1] + 1 : Math.max(lengths[(i + 1) * wide + j], lengths[i * wide + j + 1]);
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      add("same", a[i]);
      i += 1;
      j += 1;
    } else if (i < a.length && (j === b.length || lengths[(i + 1) * wide + j] >= lengths[i * wide + j + 1])) add("gone", a[i++]);
    else add("new", b[j++]);
  }
}

/** @param {string} text @returns {string[]} */
const words = (text) => text.match(/\w+|\s+|[^\w\s]/g) ?? [];
