/** What it uses, over time. */
import { bytes, percent } from "../core/format.ts";
import { html } from "../core/html.ts";
import { Chart } from "../parts/chart.ts";
import { Facts, Section } from "../parts/controls.ts";
import type { TabProps } from "./tab.ts";

export function MetricsTab({ live, info }: TabProps) {
  const samples = live.samples(info.id);
  const use = live.stats[info.id];
  const at = samples.map((sample) => sample.at);
  const limit = info.memoryMb * 2 ** 20;
  return html`
    <${Section} title="Metrics">
      ${
        use === undefined
          ? html`<p class="empty">${info.state === "running" || info.state === "paused" ? "No sample yet." : `It is ${info.state}: it uses nothing but disk.`}</p>`
          : html`<${Facts} of=${[
              ["CPU", `${percent(use.cpuPct ?? 0)} of one core, of ${info.vcpus}`],
              [
                "Memory on the host",
                `${bytes(use.memBytes ?? 0)} of its own, its monitor included; the guest has ${bytes(limit)}`,
              ],
              ["With its share of common pages", bytes(use.memPssBytes ?? 0)],
              ["Disk", `${bytes(use.diskBytes ?? 0)} of ${bytes(info.diskMb * 2 ** 20)}`],
            ]} />`
      }
      ${
        samples.length < 2
          ? html`<p class="empty">The page takes a sample every two seconds while it is open, and keeps half an hour of them.</p>`
          : html`
          <div class="two">
            <${Chart} label=${`CPU, percent of one core; now ${percent(use?.cpuPct ?? 0)}`} series=${[{ label: "CPU", colour: "restored" }]} data=${[at, samples.map(({ cpu }) => cpu)]} format=${(value: number) => `${Math.round(value)} %`} />
            <${Chart} label=${`Memory and disk; now ${bytes(use?.memBytes ?? 0)} and ${bytes(use?.diskBytes ?? 0)}`} series=${[{ label: "Memory", colour: "restored" }, { label: "Disk", colour: "warm", dash: [6, 4] }]} data=${[at, samples.map(({ memory }) => memory), samples.map(({ disk }) => disk)]} format=${bytes} />
          </div>`
      }
    <//>
  `;
}
