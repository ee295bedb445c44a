/** Charts over time. The library is loaded with the first one. */
import { useEffect, useRef } from "preact/hooks";
import type UPlot from "uplot";
import { html } from "../core/html.ts";
import { colour, theme } from "../core/theme.ts";
import { useStore } from "../core/use-store.ts";

export interface Series {
  label: string;
  /** A colour of the style sheet. */
  colour: string;
  /** Points instead of a line. */
  points?: "circle" | "square" | "diamond";
  dash?: number[];
}

export interface ChartProps {
  /** What it shows, in words: a picture says nothing to a screen reader. */
  label: string;
  series: readonly Series[];
  /** Times (ms since 1970) and one list of values for each series. */
  data: readonly (readonly (number | null)[])[];
  /** Of values, as on the axis. */
  format: (value: number) => string;
  log?: boolean;
  /** Highest value of the axis, if it does not follow the values. */
  max?: number | undefined;
}

const HEIGHT = 180;

export function Chart({ label, series, data, format, log = false, max }: ChartProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<UPlot | undefined>(undefined);
  const { choice } = useStore(theme);
  const shape = JSON.stringify([series, log, max, choice, matchMedia("(prefers-color-scheme: dark)").matches]);
  useEffect(() => {
    let over = false;
    let resized: ResizeObserver | undefined;
    void import("uplot").then(({ default: Plot }) => {
      const element = box.current;
      if (over || element === null) return;
      const options = optionsOf(Plot, { series, format, log, max, width: element.clientWidth });
      plot.current = new Plot(options, aligned(data), element);
      resized = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height: HEIGHT }));
      resized.observe(element);
    });
    return () => {
      over = true;
      resized?.disconnect();
      plot.current?.destroy();
      plot.current = undefined;
    };
  }, [shape]);
  useEffect(() => plot.current?.setData(aligned(data)));
  return html`
    <figure class="chart">
      <div class="legend" aria-hidden="true">
        ${series.map(({ label: name, colour: hue, points }) => html`<span><i class=${points ?? "line"} style=${`background: var(--${hue})`}></i>${name}</span>`)}
      </div>
      <div ref=${box} role="img" aria-label=${label}></div>
    </figure>
  `;
}

function aligned(data: ChartProps["data"]): UPlot.AlignedData {
  const [times = [], ...values] = data;
  return [times.map((at) => (at ?? 0) / 1000), ...values] as UPlot.AlignedData;
}

function optionsOf(
  Plot: typeof UPlot,
  { series, format, log, max, width }: Pick<ChartProps, "series" | "format" | "log" | "max"> & { width: number },
): UPlot.Options {
  const soft = colour("soft");
  const line = colour("line");
  const font = "12px system-ui, sans-serif";
  const axis = { stroke: soft, font, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  return {
    width,
    height: HEIGHT,
    // The last moment's label is as wide to the right as to the left.
    padding: [10, 36, 0, 0],
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { time: true },
      y: log
        ? {
            distr: 3,
            range: (_plot, low, high) => [
              10 ** Math.floor(Math.log10(low || 1)),
              10 ** Math.ceil(Math.log10(Math.max(high || 10, (low || 1) * 1.01))),
            ],
          }
        : { range: (_plot, _low, high) => [0, max ?? Math.max(1, high * 1.1)] },
    },
    axes: [
      {
        ...axis,
        values: (_plot, splits) => splits.map((at) => clock(at, splits)),
        space: 70,
      },
      { ...axis, size: 80, values: (_plot, splits) => splits.map((value) => (value === null ? "" : format(value))) },
    ],
    series: [
      {},
      ...series.map(({ label, colour: name, points, dash }): UPlot.Series => {
        const stroke = colour(name);
        if (points === undefined)
          return { label, stroke, width: 2, points: { show: false }, ...(dash === undefined ? {} : { dash }) };
        return {
          label,
          stroke,
          paths: () => null,
          points: { show: (plot, at) => drawPoints(Plot, plot, at, points, stroke) },
        };
      }),
    ],
  };
}

/** With seconds where minutes alone would be the same again and again. */
function clock(at: number, splits: readonly number[]): string {
  const step = (splits[1] ?? 0) - (splits[0] ?? 0);
  return new Date(at * 1000).toLocaleTimeString([], { timeStyle: step < 60 ? "medium" : "short" });
}

/** Each way has a shape of its own: colours alone do not tell everybody. */
function drawPoints(
  Plot: typeof UPlot,
  plot: UPlot,
  at: number,
  shape: NonNullable<Series["points"]>,
  fill: string,
): false {
  const { ctx } = plot;
  const size = 4 * Plot.pxRatio;
  ctx.save();
  ctx.fillStyle = fill;
  const [times = []] = plot.data;
  for (const [i, value] of (plot.data[at] ?? []).entries()) {
    if (value === null || value === undefined) continue;
    const x = plot.valToPos(times[i] ?? 0, "x", true);
    const y = plot.valToPos(value, "y", true);
    ctx.beginPath();
    if (shape === "circle") ctx.arc(x, y, size, 0, 2 * Math.PI);
    else if (shape === "square") ctx.rect(x - size, y - size, 2 * size, 2 * size);
    else {
      ctx.moveTo(x, y - 1.4 * size);
      ctx.lineTo(x + 1.4 * size, y);
      ctx.lineTo(x, y + 1.4 * size);
      ctx.lineTo(x - 1.4 * size, y);
    }
    ctx.fill();
  }
  ctx.restore();
  return false;
}
