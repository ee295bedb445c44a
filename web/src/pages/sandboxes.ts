/** All sandboxes: found, sorted, selected, changed many at once, with what they use right now. */
import { useMemo, useState } from "preact/hooks";
import type { SandboxInfo, SandboxStats } from "../../../sdk/src/index.ts";
import { changeAll, removeAll } from "../core/changes.ts";
import { useLive } from "../core/context.ts";
import { bytes, count, distance, ms, percent, span } from "../core/format.ts";
import { html } from "../core/html.ts";
import type { Live } from "../core/live.ts";
import { sandboxLink, spawnLink } from "../core/route.ts";
import { allows, nameOf, type Verb } from "../core/states.ts";
import { Action, Empty, Section, SelectField, State, TextField } from "../parts/controls.ts";
import { StartTimes } from "../parts/start-times.ts";
import { type Column, classes, Head, type Sorting, sorted } from "../parts/table.ts";

const STATES = ["running", "paused", "suspended", "creating", "error"] as const;

type Row = SandboxInfo & { use: SandboxStats | undefined };

const COLUMNS: readonly Column<Row>[] = [
  { name: "Name", by: nameOf, cell: (row) => html`<${Name} info=${row} />` },
  {
    name: "State",
    by: ({ state }) => state,
    cell: (row) =>
      html`<${State} state=${row.state} wakes=${row.resumeOnUse} note=${row.unreachable?.reason ?? row.error?.message} />`,
  },
  { name: "Image", by: ({ image }) => image, from: "tablet", cell: ({ image }) => image },
  {
    name: "CPU",
    number: true,
    by: ({ use }) => use?.cpuPct ?? -1,
    cell: ({ use }) => (use?.cpuPct === undefined ? "–" : percent(use.cpuPct)),
  },
  {
    name: "Memory",
    number: true,
    from: "tablet",
    by: ({ use, memoryMb }) => use?.memBytes ?? memoryMb / 1e9,
    cell: ({ use, memoryMb }) =>
      html`${use?.memBytes === undefined ? "–" : bytes(use.memBytes)} <span class="soft from-desktop">guest ${bytes(memoryMb * 2 ** 20)}</span>`,
  },
  {
    name: "Started",
    from: "desktop",
    by: ({ createdAt }) => createdAt,
    cell: (row) => html`<${Started} info=${row} />`,
  },
  {
    name: "Time left",
    number: true,
    from: "desktop",
    by: ({ expiresAt }) => expiresAt,
    cell: ({ expiresAt }) => distance(expiresAt),
  },
];

function Name({ info }: { info: Row }) {
  const name = nameOf(info);
  return html`<a href=${sandboxLink(info.id)}>${name}</a>${name !== info.id && html`<span class="under mono">${info.id}</span>`}`;
}

function Started({ info }: { info: Row }) {
  const ago = `${distance(info.createdAt)} ago`;
  return info.boot === undefined
    ? ago
    : html`${ago}, <span class=${info.boot.path}>${info.boot.path}</span> in ${ms(info.boot.totalMs)}`;
}

export function SandboxesPage() {
  const live = useLive();
  const [text, setText] = useState("");
  const [state, setState] = useState("");
  const [sorting, sort] = useState<Sorting | undefined>();
  const [chosen, choose] = useState<ReadonlySet<string>>(new Set());

  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = live.sandboxes.filter((info) => (state === "" || info.state === state) && matches(info, words));
  const rows = sorted(
    found.map((info): Row => ({ ...info, use: live.stats[info.id] })),
    COLUMNS,
    sorting,
  );
  const selected = live.sandboxes.filter(({ id }) => chosen.has(id));
  const all = rows.length > 0 && rows.every(({ id }) => chosen.has(id));
  const toggle = (id: string): void => {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    choose(next);
  };

  return html`
    <h1 tabindex="-1">Sandboxes</h1>
    ${live.emulated && html`<p class="warning"><strong>No KVM:</strong> machines run in software emulation here. That is many times slower, and no boundary against hostile code.</p>`}
    <${Tiles} live=${live} />
    <section aria-label="List">
      <div class="bar toolbar">
        <${TextField} label="Filter" type="search" value=${text} set=${setText} placeholder="name, image, label" />
        <${SelectField} label="State" value=${state} set=${setState} options=${[["", `all (${live.sandboxes.length})`], ...STATES.map((each) => [each, `${each} (${live.sandboxes.filter((info) => info.state === each).length})`])]} />
        <span class="soft push" role="status">${words.length + state.length > 0 ? `${rows.length} of ${count(live.sandboxes.length, "sandbox", "sandboxes")}` : ""}</span>
        <a class="button main" href=${spawnLink()}>New sandbox</a>
      </div>
      ${selected.length > 0 && html`<${Bulk} live=${live} selected=${selected} clear=${() => choose(new Set())} />`}
      ${
        rows.length === 0
          ? html`<${Empty}>${live.sandboxes.length === 0 ? html`No sandboxes yet. <a href=${spawnLink()}>Start one</a>.` : "Nothing matches the filter."}<//>`
          : html`
          <div class="scroll" tabindex="0" role="group" aria-label="Table of sandboxes">
            <table>
              <${Head} columns=${[...COLUMNS, { name: "", from: "tablet" as const }]} sorting=${sorting} sort=${sort} before=${html`<td class="check"><input type="checkbox" aria-label="Select all" checked=${all} onChange=${() => choose(new Set(all ? [] : rows.map(({ id }) => id)))} /></td>`} />
              <tbody>
                ${rows.map((row) => html`<${OneRow} key=${row.id} live=${live} row=${row} chosen=${chosen.has(row.id)} toggle=${toggle} />`)}
              </tbody>
            </table>
          </div>`
      }
    </section>
    <${Section} title="Start times"><${StartTimes} spawns=${live.spawns} /><//>
  `;
}

function matches(info: SandboxInfo, words: readonly string[]): boolean {
  if (words.length === 0) return true;
  const labels = Object.entries(info.metadata).map(([name, value]) => `${name}=${value}`);
  const text = [
    nameOf(info),
    info.id,
    info.image,
    info.state,
    info.resumeOnUse === true ? "wakes on use" : "",
    info.template,
    info.provider,
    info.owner,
    info.ownerId,
    ...labels,
  ];
  const all = text.join(" ").toLowerCase();
  return words.every((word) => all.includes(word));
}

/** Drawn again only when something of it has changed: there may be five hundred. */
function OneRow({
  live,
  row,
  chosen,
  toggle,
}: {
  live: Live;
  row: Row;
  chosen: boolean;
  toggle: (id: string) => void;
}) {
  const { id, state, use, expiresAt, createdAt } = row;
  const shown = [
    id,
    nameOf(row),
    state,
    row.unreachable,
    chosen,
    use?.cpuPct,
    use?.memBytes,
    distance(expiresAt),
    distance(createdAt),
    row.boot,
  ];
  return useMemo(() => {
    const name = nameOf(row);
    const verb: Verb = state === "paused" || state === "suspended" ? "resume" : "pause";
    const label = verb === "resume" ? "Resume" : "Pause";
    return html`
      <tr class=${chosen ? "chosen" : ""}>
        <td class="check"><input type="checkbox" aria-label=${`Select ${name}`} checked=${chosen} onChange=${() => toggle(id)} /></td>
        ${COLUMNS.map(({ cell, number, from }) => html`<td class=${classes(number, from)}>${cell(row)}</td>`)}
        <td class="actions from-tablet">
          <${Action} label=${label} name=${`${label} ${name}`} disabled=${!allows(row, verb)} run=${() => changeAll(live, [row], verb)} />
          <${Action} label="Remove" name=${`Remove ${name}`} kind="danger" run=${() => removeAll(live, [row])} />
        </td>
      </tr>
    `;
  }, shown);
}

function Bulk({ live, selected, clear }: { live: Live; selected: readonly SandboxInfo[]; clear: () => void }) {
  const action = (verb: Verb, label: string) => {
    const able = selected.filter((info) => allows(info, verb));
    return html`<${Action} label=${label} name=${`${label} ${count(able.length, "sandbox", "sandboxes")}`} disabled=${able.length === 0} run=${() => changeAll(live, able, verb)} />`;
  };
  return html`
    <div class="bar bulk" role="group" aria-label="Selected sandboxes">
      <strong>${selected.length} selected</strong>
      ${action("pause", "Pause")} ${action("suspend", "Suspend")} ${action("resume", "Resume")}
      ${action("checkpoint", "Checkpoint")} ${action("extend", "Extend 30 min")}
      <${Action} label="Remove" name=${`Remove ${count(selected.length, "sandbox", "sandboxes")}`} kind="danger" run=${async () => {
        if (await removeAll(live, selected)) clear();
      }} />
      <${Action} label="Clear" name="Clear selection" kind="quiet" run=${clear} />
    </div>
  `;
}

function Tiles({ live }: { live: Live }) {
  const { sandboxes, system, spawns, stats } = live;
  const of = (state: SandboxInfo["state"]): number => sandboxes.filter((each) => each.state === state).length;
  const reserved = sandboxes
    .filter(({ state }) => state === "running" || state === "paused")
    .reduce((sum, { memoryMb }) => sum + memoryMb, 0);
  const used = Object.values(stats).reduce((sum, { memBytes = 0 }) => sum + memBytes, 0);
  const resting = of("paused") + of("suspended");
  const last = spawns.at(-1);
  const tile = (value: string, what: string, more = "") =>
    html`<div class="tile"><dt>${what}</dt><dd>${value}${more !== "" && html`<small>${more}</small>`}</dd></div>`;
  return html`
    <dl class="tiles">
      ${tile(String(of("running")), "Running", resting > 0 ? `${resting} at rest` : "")}
      ${tile(bytes(reserved * 2 ** 20), "Memory reserved", `${bytes(used)} used`)}
      ${tile(last === undefined ? "–" : ms(last.totalMs), "Last start", last === undefined ? "" : `${last.path}, ${span(Date.now() - last.at)} ago`)}
      ${tile(system === undefined ? "–" : percent(system.cpuPct), "Host CPU", system === undefined ? "" : `load ${system.load1}`)}
      ${tile(system === undefined ? "–" : percent(system.memPct), "Host memory")}
      ${tile(system === undefined ? "–" : percent(system.diskPct), "Host disk")}
    </dl>
  `;
}
