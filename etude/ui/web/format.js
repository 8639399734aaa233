// @ts-check
// Figures as people read them, the same as the command line prints them.

export const NOTHING = "–";
const LARGEST = 1e15; // more digits than a number has say nothing

/** A number with separators and a fixed count of decimals. @param {number} value @param {number} decimals */
export function decimal(value, decimals, digits = 4) {
  if (Math.abs(value) >= LARGEST) return value.toPrecision(Math.max(digits, 1));
  return value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

/** A figure: whole numbers with separators, others with decimals, or significant digits if tiny. @param {any} value */
export function number(value, digits = 4) {
  if (value === null || value === undefined) return NOTHING;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number" || !Number.isFinite(value)) return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const isTiny = Math.abs(value) < 10 ** (1 - digits);
  return isTiny ? significant(value, digits) : decimal(value, digits);
}

/** A figure to three significant digits, or as many as given. @param {any} value */
export function short(value, digits = 3) {
  if (typeof value !== "number" || !Number.isFinite(value)) return number(value);
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size < -5) return significant(value, digits);
  return decimal(value, Math.min(Math.max(digits - 1 - size, 0), 8), digits);
}

/** A difference with its sign. @param {number} value */
export function signed(value, digits = 3) {
  const text = short(Math.abs(value), digits);
  return value === 0 ? "0" : `${value > 0 ? "+" : "−"}${text}`;
}

/** A share as a percentage. @param {number | null | undefined} ratio */
export const percent = (ratio) => (typeof ratio === "number" ? `${(100 * ratio).toFixed(1)} %` : NOTHING);

/** Seconds in the two largest units that fit. @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return NOTHING;
  if (seconds < 59.95) return `${Number.isInteger(seconds) ? seconds : seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  const two = (/** @type {number} */ count) => String(count).padStart(2, "0");
  if (days) return `${days} d ${two(hours)} h`;
  return hours ? `${hours} h ${two(minutes)} min` : `${minutes} min ${two(whole % 60)} s`;
}

/** Bytes in decimal units. @param {number | null | undefined} count */
export function size(count) {
  if (typeof count !== "number") return NOTHING;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (count < 1000) return unit === "B" ? `${count.toFixed(0)} B` : `${count.toFixed(1)} ${unit}`;
    count /= 1000;
  }
  return `${count.toFixed(1)} TB`;
}

/** A count and its noun. @param {number} count @param {string} noun */
export const plural = (count, noun) => `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`;

/** A moment as its local date and time to the minute. @param {string | number | null | undefined} moment */
export function moment(moment) {
  if (moment === null || moment === undefined) return NOTHING;
  const date = new Date(typeof moment === "number" ? moment * 1000 : moment);
  if (Number.isNaN(date.getTime())) return String(moment);
  const two = (/** @type {number} */ count) => String(count).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

/** A value of a recipe, nearly as TOML has it. @param {any} value @returns {string} */
export function setting(value) {
  if (value === null || value === undefined) return "not set";
  if (Array.isArray(value) && !value.length) return "none";
  if (Array.isArray(value)) return value.map(setting).join(", ");
  if (typeof value === "number") return String(Number(value.toPrecision(12)));
  if (typeof value === "object") return Object.entries(value).map(([name, each]) => `${name} ${setting(each)}`).join(", ");
  return String(value);
}

/** A metric in words. @param {string} metric */
export function metricTitle(metric) {
  const words = String(metric).replaceAll("_", " ").replaceAll(":", " ");
  return metric === "loss" ? "validation loss" : words;
}

const SERIES = /** @type {Record<string, string>} */ ({
  grad_norm: "gradient norm", cpu_percent: "CPU", gpu_percent: "GPU", rss_bytes: "process", gpu_memory_bytes: "GPU memory",
  wait_ratio: "waiting", mfu: "MFU", tokens_per_second: "speed", loss_scale: "loss scale",
});
/** A series in words. @param {string} name */
export const seriesTitle = (name) => SERIES[name] ?? name.replace(/^train\//, "training ").replace("/", " ").replaceAll("_", " ").trim();

/** A figure of a series in its unit. @param {any} value @param {string | null | undefined} unit */
export function inUnit(value, unit) {
  if (typeof value !== "number") return number(value);
  if (unit === "bytes") return size(value);
  if (unit === "seconds") return duration(value);
  if (unit === "percent") return `${value.toFixed(1)} %`;
  if (unit === "share") return percent(value);
  return Math.abs(value) < 0.01 ? significant(value, 4) : short(value, 4);
}

/** A place on an axis in words: `step 1,200`, `12 min 05 s`. @param {number} x @param {string} axis */
export function onAxis(x, axis) {
  if (axis === "seconds") return duration(x);
  if (axis === "epoch") return `epoch ${x.toFixed(3)}`;
  return axis === "tokens" ? `${short(x, 4)} tokens` : `step ${Math.round(x).toLocaleString("en-US")}`;
}

/** A tick of the axis across. @param {number} x @param {string} axis */
export const onTick = (x, axis) => (axis === "seconds" ? inTick(x, "seconds") : x >= 1e4 ? compact(x) : String(Number(x.toPrecision(6))));
/** Ticks of one notation: on a linear scale powers of ten only where all are tiny. @param {(number | null)[]} at @param {string | null} unit @param {boolean} isLog */
export function inTicks(at, unit, isLog) {
  const most = Math.max(...at.map((y) => Math.abs(y ?? 0))), known = at.filter((y) => y !== null);
  const texts = (/** @type {number} */ digits) => at.map((y) => (y === null ? "" : inTick(y, unit, isLog ? Math.abs(y) : most, digits)));
  const areApart = (/** @type {string[]} */ found) => new Set(found.filter(Boolean)).size === new Set(known).size;
  return DIGITS.map(texts).find(areApart) ?? texts(DIGITS[0]);
}
const DIGITS = [4, 5, 6]; // of a tick, which has room for no more
/** @param {number} y @param {string | null} unit @param {number} most of the ticks beside it @param {number} digits as many as tell ticks apart */
function inTick(y, unit, most = Math.abs(y), digits = 4) {
  if (unit === "bytes") return bytes(y, digits + 1);
  if (unit === "share") return `${Number((100 * y).toPrecision(digits))} %`;
  if (unit === "seconds" && y >= 60) return y >= 3600 ? `${Number((y / 3600).toPrecision(3))} h` : `${Number((y / 60).toPrecision(3))} min`;
  if (y && most < 1e-3) return Number(y.toPrecision(3)).toExponential();
  return Math.abs(y) >= 1e4 ? compact(y, digits) : String(Number(y.toPrecision(digits)));
}
/** @param {number} count @param {number} digits */
function bytes(count, digits) {
  const power = Math.min(Math.max(Math.floor(Math.log10(Math.abs(count) || 1) / 3), 0), 4);
  return `${Number((count / 1000 ** power).toPrecision(digits))} ${["B", "kB", "MB", "GB", "TB"][power]}`;
}
/** @param {number} value @param {number} [digits] */
const compact = (value, digits = 4) => value.toLocaleString("en-US", { notation: "compact", maximumSignificantDigits: digits });

/** @param {number} value @param {number} digits */
function significant(value, digits) {
  return String(Number(value.toPrecision(digits))).replace(/e([+-])(\d)$/, "e$10$2");
}
