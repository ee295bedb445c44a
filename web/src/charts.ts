/** Where the time of a start goes: one bar per spawn, and one start's phases. */
import type { Boot } from "../../sdk/src/index.ts";
import { el, ms, svg, table } from "./dom.ts";
import type { Spawn } from "./live.ts";

const WIDTH = 560;
const HEIGHT = 150;
const LEFT = 52;

/** Spawns in their order, on a logarithmic scale: a warm start and a cold boot are three orders apart. */
export function spawnChart(spawns: readonly Spawn[]): Element {
  if (spawns.length === 0) return el("p", { class: "empty" }, "No sandbox was started yet.");
  const times = spawns.map(({ boot }) => boot.totalMs);
  const low = 10 ** Math.floor(Math.log10(Math.max(0.1, Math.min(...times))));
  const high = Math.max(low * 10, 10 ** Math.ceil(Math.log10(Math.max(...times))));
  const y = (value: number): number => HEIGHT - (HEIGHT * Math.log(Math.max(value, low) / low)) / Math.log(high / low);
  const step = Math.min(28, (WIDTH - LEFT) / spawns.length);
  const grid: SVGElement[] = [];
  for (let at = low; at <= high; at *= 10) {
    grid.push(
      svg("line", { x1: LEFT, x2: WIDTH, y1: y(at), y2: y(at) }),
      svg("text", { x: LEFT - 8, y: y(at) + 4, "text-anchor": "end" }, at < 1000 ? `${at} ms` : `${at / 1000} s`),
    );
  }
  const bars = spawns.map(({ id, boot }, i) =>
    svg(
      "rect",
      {
        class: boot.path,
        x: LEFT + i * step + 1,
        y: Math.min(y(boot.totalMs), HEIGHT - 2),
        width: Math.max(2, step - 3),
        height: Math.max(2, HEIGHT - y(boot.totalMs)),
      },
      svg("title", {}, `${id}: ${boot.path}, ${ms(boot.totalMs)}`),
    ),
  );
  return svg(
    "svg",
    { viewBox: `0 -6 ${WIDTH} ${HEIGHT + 10}`, role: "img", "aria-label": "Time of each spawn" },
    ...grid,
    ...bars,
  );
}

/** n, median, fastest and slowest of each way. */
export function spawnTable(spawns: readonly Spawn[]): Element {
  const rows = (["warm", "restored", "cold"] as const).flatMap((path) => {
    const times = spawns.filter(({ boot }) => boot.path === path).map(({ boot }) => boot.totalMs);
    if (times.length === 0) return [];
    times.sort((a, b) => a - b);
    const middle = times[Math.floor((times.length - 1) / 2)] ?? 0;
    const cells = [String(times.length), ms(middle), ms(times[0] ?? 0), ms(times.at(-1) ?? 0)];
    return [[el("span", { class: path }, path), ...cells]];
  });
  return table(["way", "n", "median", "fastest", "slowest"], rows);
}

export function phaseChart(boot: Boot): Element {
  const longest = Math.max(...Object.values(boot.phases), 0.001);
  const rows = Object.entries(boot.phases).flatMap(([name, value]) => {
    const bar = el("i");
    bar.style.width = `${(100 * value) / longest}%`;
    return [el("span", {}, name), bar, el("span", {}, ms(value))];
  });
  return el("div", { class: `phases ${boot.path}` }, ...rows);
}
