/** The host: its load over time, what it has and lacks, the other servers of its fleet, the machines kept ready, the providers. */
import type { FleetNode } from "../../../sdk/src/index.ts";
import { useAsked } from "../core/asked.ts";
import { useLive } from "../core/context.ts";
import { bytes, percent } from "../core/format.ts";
import { html } from "../core/html.ts";
import { Chart } from "../parts/chart.ts";
import { Action, Facts, Section, State } from "../parts/controls.ts";
import { type Column, Table } from "../parts/table.ts";

const POLL_MS = 10_000;

interface Pool {
  key: string;
  image: string;
  vcpus: number;
  memory_mb: number;
  warm: number;
  idle: number;
  target: number;
  filling: boolean;
}

const POOLS: Column<Pool>[] = [
  {
    name: "Image",
    by: ({ image }) => image,
    cell: ({ image, key }) => html`${image}<span class="under mono">${key.slice(0, 16)}</span>`,
  },
  { name: "Machine", from: "tablet", cell: ({ vcpus, memory_mb }) => `${vcpus} CPU, ${memory_mb} MiB` },
  { name: "Warm", number: true, by: ({ warm }) => warm, cell: ({ warm, target }) => `${warm} of ${target}` },
  { name: "Idle monitors", number: true, from: "tablet", by: ({ idle }) => idle, cell: ({ idle }) => String(idle) },
  { name: "", cell: ({ filling }) => (filling ? "filling" : "") },
];

const NODES: Column<FleetNode>[] = [
  {
    name: "Node",
    by: ({ name }) => name,
    cell: ({ name, self, url }) => html`${name}${self ? " (this)" : ""}<span class="under mono">${url}</span>`,
  },
  {
    name: "State",
    by: ({ state }) => state,
    cell: ({ state, draining, role }) =>
      [state, ...(draining ? ["draining"] : []), ...(role === "node" ? [] : [role])].join(", "),
  },
  {
    name: "Sandboxes",
    number: true,
    by: ({ load }) => load.sandboxes,
    cell: ({ load }) => (load.maxSandboxes === 0 ? load.sandboxes : `${load.sandboxes} of ${load.maxSandboxes}`),
  },
  {
    name: "Load",
    number: true,
    from: "tablet",
    by: ({ load }) => load.loadAverage,
    cell: ({ load }) => load.loadAverage,
  },
  {
    name: "Free memory",
    number: true,
    from: "tablet",
    by: ({ load }) => load.freeMemoryMb,
    cell: ({ load }) => bytes(load.freeMemoryMb * 2 ** 20),
  },
  { name: "Version", from: "desktop", by: ({ version }) => version, cell: ({ version }) => version },
];

export function HostPage() {
  const live = useLive();
  const { client, admin, system, version } = live;
  const history = useAsked(() => client.systemHistory(), [], POLL_MS);
  const pool = useAsked(() => client.pool(), [], POLL_MS);
  const providers = useAsked(() => client.providers(), []);
  const health = useAsked(() => client.health(), [], POLL_MS);
  const samples = history.value ?? [];
  const at = samples.map((sample) => Date.parse(sample.at));
  return html`
    <h1 tabindex="-1">Host</h1>
    <${Section} title="Load">
      ${
        system !== undefined &&
        html`<${Facts} of=${[
          ["CPU", `${percent(system.cpuPct)}, load ${system.load1}`],
          ["Memory", percent(system.memPct)],
          ["Disk", percent(system.diskPct)],
          ["Network", `${bytes(system.netRxBps)}/s in, ${bytes(system.netTxBps)}/s out`],
          ["Server", `version ${version}, up ${(health.value?.uptime ?? "–").replace(/\.\d+s$/, "s")}`],
        ]} />`
      }
      ${
        samples.length < 2
          ? html`<p class="empty">The server takes a sample every ten seconds and keeps an hour of them.</p>`
          : html`
          <div class="two">
            <${Chart} label=${`CPU and memory of the host over ${samples.length} samples, percent`} max=${100} series=${[{ label: "CPU", colour: "restored" }, { label: "Memory", colour: "warm", dash: [6, 4] }, { label: "Disk", colour: "cold", dash: [2, 3] }]} data=${[at, samples.map(({ cpuPct }) => cpuPct), samples.map(({ memPct }) => memPct), samples.map(({ diskPct }) => diskPct)]} format=${(value: number) => `${value} %`} />
            <${Chart} label="Network of the host, bytes per second" series=${[{ label: "In", colour: "restored" }, { label: "Out", colour: "warm", dash: [6, 4] }]} data=${[at, samples.map(({ netRxBps }) => netRxBps), samples.map(({ netTxBps }) => netTxBps)]} format=${(value: number) => `${bytes(value)}/s`} />
          </div>`
      }
    <//>
    ${admin && html`<${Nodes} />`}
    ${admin && html`<${Doctor} />`}
    <${Section} title="Machines kept ready">
      ${
        pool.value?.enabled === false
          ? html`<p class="empty">No pool yet: it begins with the first start of an image.</p>`
          : html`<${Table} label="Machines kept ready" columns=${POOLS} rows=${(pool.value?.pools ?? []) as unknown as Pool[]} keyOf=${({ key }: Pool) => key} empty="None right now." />`
      }
    <//>
    <${Section} title="Providers">
      <ul class="findings">
        ${(providers.value ?? []).map(
          (each) => html`
          <li><${State} state=${each.healthy ? "ok" : "missing"} /> <strong>${each.name}</strong>${each.default ? " (default)" : ""}
            <span class="soft"> ${[each.version, each.accelerator, each.error ?? each.detail].filter(Boolean).join(", ")}</span>
            ${each.remedy !== undefined && html`<div class="remedy">${each.remedy}</div>`}</li>`,
        )}
      </ul>
    <//>
  `;
}

/** For administrators; nothing where this server is alone. */
function Nodes() {
  const { client } = useLive();
  const nodes = useAsked(() => client.nodes.list(), [], POLL_MS).value ?? [];
  if (nodes.length === 0) return null;
  return html`
    <${Section} title="Nodes of the fleet">
      <${Table} label="Nodes of the fleet" columns=${NODES} rows=${nodes} keyOf=${({ id }: FleetNode) => id} empty="None." />
    <//>
  `;
}

/** For administrators: it names directories of the host. */
function Doctor() {
  const { client } = useLive();
  const doctor = useAsked(() => client.doctor(), []);
  const { value, error } = doctor;
  return html`
    <${Section} title="Doctor" actions=${html`<${Action} label="Examine again" run=${doctor.again} />`}>
      <p role="status">${error ?? (value === undefined ? "Examining the host…" : value.ready ? "A sandbox can start." : "A sandbox cannot start yet.")}</p>
      <ul class="findings">
        ${(value?.findings ?? []).map(
          ({ name, state, detail, meaning, remedy }) => html`
          <li>
            <${State} state=${state} /> <strong>${name}</strong> <span>${detail}</span>
            <div class="soft">${meaning}</div>
            ${remedy !== undefined && html`<div class="remedy">${remedy}</div>`}
          </li>`,
        )}
      </ul>
    <//>
  `;
}
