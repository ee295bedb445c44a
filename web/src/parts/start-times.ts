/** How long starts took, each a point, by the way they took: a warm start and a cold boot are three orders apart. */
import { ms } from "../core/format.ts";
import { html } from "../core/html.ts";
import type { Spawn } from "../core/live.ts";
import { Chart, type Series } from "./chart.ts";
import { Empty } from "./controls.ts";

const WAYS = ["warm", "restored", "cold"] as const;
const SERIES: readonly Series[] = [
  { label: "warm", colour: "warm", points: "circle" },
  { label: "restored", colour: "restored", points: "square" },
  { label: "cold", colour: "cold", points: "diamond" },
];

export function StartTimes({ spawns }: { spawns: readonly Spawn[] }) {
  if (spawns.length === 0) return html`<${Empty}>No sandbox was started yet.<//>`;
  const data = [
    spawns.map(({ at }) => at),
    ...WAYS.map((way) => spawns.map(({ path, totalMs }) => (path === way ? Math.max(totalMs, 0.1) : null))),
  ];
  return html`
    <${Chart} label="Start times, a point for each start; the table below has the numbers" series=${SERIES} data=${data} format=${ms} log />
    <div class="scroll" tabindex="0" role="group" aria-label="Start times in numbers">
    <table class="narrow">
      <thead><tr><th scope="col">Way</th><th scope="col" class="number">Starts</th><th scope="col" class="number">Median</th><th scope="col" class="number">Fastest</th><th scope="col" class="number">Slowest</th></tr></thead>
      <tbody>${WAYS.map((way) => row(way, spawns))}</tbody>
    </table>
    </div>
  `;
}

function row(way: Spawn["path"], spawns: readonly Spawn[]) {
  const times = spawns.filter(({ path }) => path === way).map(({ totalMs }) => totalMs);
  if (times.length === 0) return null;
  times.sort((a, b) => a - b);
  const cells = [
    String(times.length),
    ms(times[Math.floor((times.length - 1) / 2)] ?? 0),
    ms(times[0] ?? 0),
    ms(times.at(-1) ?? 0),
  ];
  return html`<tr><td><span class=${way}>${way}</span></td>${cells.map((cell) => html`<td class="number">${cell}</td>`)}</tr>`;
}
