// @ts-check
// The lines of a chart: points from the server, new ones as they come, smoothing, and words about them.
import { get } from "./api.js";
import { inUnit, number, onAxis, plural } from "./format.js";

/**
 * A line of a chart: a series of a run.
 * @typedef {{run: string, name: string, label: string, tone: number, id: string, isRun?: boolean}} Line `id` is what hides it in all charts
 * Points of a line: means of neighbouring records, and their least and greatest where a bucket has several. `count` is
 * that of all records of the line, `came` that of the points which came one by one; `before` is what the records
 * before the points leave of an exponential mean: the step of the last, their weight, their mean.
 * @typedef {{x: number[], step: number[], mean: (number | null)[], low: (number | null)[] | null, high: (number | null)[] | null, bucket: number, count: number, came: number, before: [number, number, number], odd: [number, string][], oddCount: number}} Points
 * The points of lines by key, and the places between which their runs have records.
 * @typedef {{points: Map<string, Points>, extent: [number, number] | null}} Read
 * @typedef {import("./view.js").View} View
 */

const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3], [5, 2], [1, 4], [12, 4], [3, 3, 8, 3]];
/** Dashes of a tone: the ninth line has the colour of the first, and other dashes. @param {number} tone */
export const dashesOf = (tone) => DASHES[(tone + Math.floor(tone / 8)) % DASHES.length];
/** @param {Line} line */
export const keyOf = (line) => `${line.run}/${line.name}`;

/**
 * The points of lines in a range, one question for each run.
 * @param {Line[]} lines @param {View} view @param {number} points @param {AbortSignal} signal
 * @returns {Promise<Read>}
 */
export async function readLines(lines, view, points, signal) {
  const found = /** @type {Read} */ ({ points: new Map(), extent: null });
  const runs = [...new Set(lines.map((line) => line.run))];
  await Promise.all(runs.map(async (run) => {
    const names = lines.filter((line) => line.run === run).map((line) => line.name);
    const query = new URLSearchParams({ names: names.join(","), axis: view.axis, points: String(points) });
    if (view.from !== null) query.set("from", String(view.from));
    if (view.to !== null) query.set("to", String(view.to));
    if (view.smooth && view.from !== null) query.set("half_life", String(view.smooth));
    const answer = await get(`/api/runs/${encodeURIComponent(run)}/series?${query}`, signal);
    if (answer.extent) extend(found, answer.extent);
    for (const name of names) {
      const series = answer.series?.[name];
      if (series) found.points.set(`${run}/${name}`, {
        x: series.x ?? [], step: series.step ?? [...series.x ?? []], mean: series.mean ?? [], low: series.low ?? null, high: series.high ?? null,
        bucket: series.bucket ?? 1, count: series.count ?? 0, came: 0, before: series.before ?? [0, 0, 0],
        odd: series.odd ?? [], oddCount: series.odd_count ?? series.odd?.length ?? 0,
      });
    }
  }));
  return found;
}

/** Take places into the extent; true if it grows. @param {Read} read @param {number[]} places */
export function extend(read, places) {
  const [low, high] = read.extent ?? [Infinity, -Infinity];
  const [least, most] = [Math.min(low, ...places), Math.max(high, ...places)];
  if (least === low && most === high) return false;
  read.extent = [least, most];
  return true;
}

/** Append points that came; returns how many. @param {Points} points @param {Record<string, number[]>} x by axis @param {any[]} y @param {string} axis */
export function append(points, x, y, axis) {
  const last = points.x.length ? points.x[points.x.length - 1] : -Infinity;
  const places = x[axis] ?? [];
  let count = 0;
  for (let index = 0; index < places.length; index += 1) {
    if (!(places[index] > last)) continue;
    const value = typeof y[index] === "number" ? y[index] : null;
    if (value === null) {
      points.odd.push([places[index], String(y[index])]);
      points.oddCount += 1;
    }
    points.x.push(places[index]);
    points.step.push(x.step?.[index] ?? places[index]);
    points.mean.push(value);
    points.low?.push(value);
    points.high?.push(value);
    count += 1;
  }
  points.came += count;
  points.count += count;
  return count;
}

/**
 * An exponential mean of all records up to each point: at its step a record has weight 1, and half of it one half-life
 * later. So the curve is the same whatever range of it is in view.
 * @param {Points} points @param {number} halfLife in steps
 */
export function smoothed({ step, mean, bucket, came, before }, halfLife) {
  let [last, weight, level] = before;
  return mean.map((value, index) => {
    if (value === null) return null;
    const count = index < mean.length - came ? bucket : 1;
    weight = weight * 0.5 ** ((step[index] - last) / halfLife) + count;
    level += ((value - level) * count) / weight;
    last = step[index];
    return level;
  });
}

/**
 * The values of points as a scale can place them: on a logarithmic one those at or below 0 have no place.
 * @param {(number | null)[]} values @param {boolean} isLog
 */
export const placed = (values, isLog) => (isLog ? values.map((value) => (value !== null && value > 0 ? value : null)) : values);

/** Whether any value of lines has a place on a logarithmic scale. @param {Line[]} lines @param {Map<string, Points>} data */
export const hasPositive = (lines, data) => lines.some((line) => data.get(keyOf(line))?.mean.some((value) => value !== null && value > 0));

/** The places of points that have none on either side, and so no line: of dots. @param {(number | null | undefined)[]} values @returns {number[]} */
export function alone(values) {
  const known = values.flatMap((value, index) => (value === undefined ? [] : [index])); // undefined where another line has a point
  return known.filter((at, place) => values[at] !== null && [known[place - 1], known[place + 1]].every((near) => near === undefined || values[near] === null));
}

const FEWEST = 50; // records of a line worth smoothing
const WITHOUT_NOISE = new Set(["learning_rate", "loss_scale"]);
/** @param {Line} line @param {Points | undefined} points @param {View} view */
export const isSmoothed = (line, points, view) => view.smooth > 0 && (points?.count ?? 0) >= FEWEST && !WITHOUT_NOISE.has(line.name);

/** The point nearest to a place on the axis; -1 where there are none. @param {number[]} x @param {number} at */
export function nearest(x, at) {
  let low = 0, high = x.length - 1;
  if (high < 0) return -1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle] < at) low = middle + 1;
    else high = middle;
  }
  return low > 0 && at - x[low - 1] <= x[low] - at ? low - 1 : low;
}

/**
 * The points of a chart, one a row, the latest first.
 * @param {Line[]} lines @param {Map<string, Points>} data
 */
export function rowsOf(lines, data) {
  const rows = lines.flatMap((line) => {
    const points = data.get(keyOf(line));
    return points ? points.x.map((x, index) => ({ x, label: line.label, mean: points.mean[index], low: points.low?.[index], high: points.high?.[index] })) : [];
  });
  return rows.sort((a, b) => b.x - a.x);
}

/**
 * What the points of a chart say, in words made of them.
 * @param {Line[]} lines @param {Map<string, Points>} data @param {View} view @param {string | null} unit @param {boolean} isLog
 */
export function captionOf(lines, data, view, unit, isLog = false) {
  const said = lines.slice(0, 3).map((line) => sentence(line, data.get(keyOf(line)), view, unit)).filter(Boolean);
  const odd = lines.flatMap((line) => data.get(keyOf(line))?.odd ?? []).sort((a, b) => a[0] - b[0]);
  const count = lines.reduce((sum, line) => sum + (data.get(keyOf(line))?.oddCount ?? 0), 0);
  if (odd.length) said.push(`${plural(count, "value")} not finite, the first at ${onAxis(odd[0][0], view.axis)} (${odd[0][1]}).`);
  const low = lines.reduce((sum, line) => sum + (data.get(keyOf(line))?.mean.filter((value) => value !== null && value <= 0).length ?? 0), 0);
  if (isLog && low) said.push(hasPositive(lines, data) ? `${plural(low, "point")} at or below 0, which a logarithmic scale leaves out.` : "Drawn on a linear scale, as no value is above 0.");
  const bucket = Math.max(1, ...lines.map((line) => data.get(keyOf(line))?.bucket ?? 1));
  if (bucket > 1) said.push(`Means of ${number(bucket)} records; the band is from the least to the greatest.`);
  if (lines.some((line) => isSmoothed(line, data.get(keyOf(line)), view))) said.push(`Smoothed with a half-life of ${plural(view.smooth, "step")}; the values themselves are faint.`);
  return said.join(" ") || "No records in this range.";
}

const LONGEST = 40; // letters of the name of a run in a sentence
/** A name of any length and script as a sentence takes it: what stands beside it keeps its place. @param {string} name */
const apart = (name) => `\u2068${name.length > LONGEST ? `${name.slice(0, LONGEST)}…` : name}\u2069`;

/** @param {Line} line @param {Points | undefined} points @param {View} view @param {string | null} unit */
function sentence(line, points, view, unit) {
  if (!points) return "";
  const lows = points.low ?? points.mean, highs = points.high ?? points.mean;
  let least = -1, most = -1, last = -1, first = -1;
  points.mean.forEach((value, index) => {
    if (value === null || points.x[index] < (view.from ?? -Infinity) || points.x[index] > (view.to ?? Infinity)) return;
    if (first < 0) first = index;
    last = index;
    if (least < 0 || Number(lows[index]) < Number(lows[least])) least = index;
    if (most < 0 || Number(highs[index]) > Number(highs[most])) most = index;
  });
  if (last < 0) return "";
  const text = (/** @type {any} */ value) => inUnit(value, unit);
  const name = line.isRun ? apart(line.label) : line.label.charAt(0).toUpperCase() + line.label.slice(1);
  const now = Number(points.mean[last]), low = Number(lows[least]), high = Number(highs[most]);
  const begun = `${name} ${text(now)} at ${onAxis(points.x[last], view.axis)}`;
  if (first === last) return `${begun}.`;
  if (low === high) return `${begun}, the same throughout.`;
  if (!/(^|\/)loss$/.test(line.name)) return `${begun}, between ${text(low)} and ${text(high)}.`;
  if (least === last) return `${begun}, its lowest.`;
  const isRising = now - low > 0.1 * (high - low) && least < last;
  return `${begun}, lowest ${text(low)} at ${onAxis(points.x[least], view.axis)}${isRising ? ", higher since" : ""}.`;
}
