// @ts-check
// The machine now: its devices, its disk, and runs that were left behind.
import { html, useEffect } from "./vendor/preact.js";
import { NOTHING, size } from "./format.js";
import { Empty, Few, Loading, Problem, State, Table, useAnswer } from "./parts.js";
import { link } from "./route.js";

const LOOK_EVERY = 3000; // milliseconds

export function System() {
  const { value, error, again } = useAnswer("/api/system");
  useEffect(() => {
    const timer = setInterval(() => !document.hidden && again(), LOOK_EVERY);
    return () => clearInterval(timer);
  }, []);
  if (!value) return error ? html`<${Problem} error=${error} again=${again} />` : html`<${Loading} text="Looking at the machine" />`;
  const { devices = [], cpu, memory, disks = [], stale = [] } = value;
  const used = memory ? memory.total - memory.available : 0;
  return html`<h1>System</h1><${Problem} error=${error} /><div class="stack">
    <section><h2>Now</h2><div class="gauges">
      <${Gauge} title=${cpu?.cores ? `CPU, ${cpu.cores} cores` : "CPU"} share=${typeof cpu?.percent === "number" ? cpu.percent / 100 : null} text=${loadOf(cpu)} />
      ${memory && html`<${Gauge} title="Memory" share=${used / memory.total} text=${ofTotal(used, memory.total)} />`}
      ${devices.map((/** @type {any} */ device, /** @type {number} */ index) => html`<${Gauge} key=${index} title=${device.name} share=${typeof device.used_percent === "number" ? device.used_percent / 100 : null} text="${typeof device.used_percent === "number" ? `${device.used_percent.toFixed(0)} % busy, ` : ""}${ofTotal(device.memory_bytes, device.memory_total)}" />`)}
    </div>${!devices.length && html`<p class="muted">No GPU is found here.</p>`}</section>
    <section><h2>Disk</h2><${Table} isGrown=${true} columns=${["folder", "free", "total", "taken by runs", "could be removed"]} numeric=${[1, 2, 3, 4]} rows=${disks.map((/** @type {any} */ disk) => [disk.folder, size(disk.free), size(disk.total), size(disk.of_runs), size(disk.removable)])} /></section>
    <section><h2>Left behind</h2>${stale.length ? html`<${Few} items=${stale} noun="run" draw=${(/** @type {any} */ each) => html`<li key=${each.id} class="line"><${State} name="warning" text="stale" /><a href=${link(["run", each.id])}>${each.name}</a><span class="muted">${each.why}</span></li>`} />` : html`<${Empty}>No run looks abandoned.<//>`}</section>
  </div>`;
}

/** @param {{title: string, share: number | null, text: string}} props */
const Gauge = ({ title, share, text }) => html`<div><h3>${title}</h3><p>${text}</p>${share !== null && html`<progress max="1" value=${share} aria-label=${title}></progress>`}</div>`;

/** @param {any} used @param {any} total */
const ofTotal = (used, total) => (total ? `${size(used)} of ${size(total)}` : NOTHING);
/** @param {any} cpu */
const loadOf = (cpu) => `${typeof cpu?.percent === "number" ? `${cpu.percent.toFixed(0)} % busy` : NOTHING}${cpu?.load ? `, load ${cpu.load.map((/** @type {number} */ each) => each.toFixed(1)).join(" ")}` : ""}`;
