/** One sandbox: its state and what may be done with it, and a tab for each side of it. */
import { useEffect, useMemo, useState } from "preact/hooks";
import { Sandbox } from "../../../sdk/src/index.ts";
import { changeAll, removeAll } from "../core/changes.ts";
import { useLive } from "../core/context.ts";
import { distance, percent } from "../core/format.ts";
import { html } from "../core/html.ts";
import { notes } from "../core/notes.ts";
import { sandboxLink, TABS, type Tab } from "../core/route.ts";
import { allows, nameOf, type Verb } from "../core/states.ts";
import { Action, Section, State } from "../parts/controls.ts";
import { EventList } from "../parts/event-list.ts";
import { CheckpointsTab } from "./checkpoints.ts";
import { DetailsTab } from "./details.ts";
import { FilesTab } from "./files.ts";
import { LogsTab } from "./logs.ts";
import { MetricsTab } from "./metrics.ts";
import { PortsTab } from "./ports.ts";
import { ProcessesTab } from "./processes.ts";
import { Shells } from "./shells.ts";
import type { TabProps } from "./tab.ts";
import { TerminalTab } from "./terminal.ts";

const NAMES: Record<Tab, string> = {
  terminal: "Terminal",
  files: "Files",
  processes: "Processes",
  logs: "Logs",
  ports: "Ports",
  metrics: "Metrics",
  checkpoints: "Checkpoints",
  events: "Events",
  details: "Details",
};

export function SandboxPage({ id, tab, of }: { id: string; tab: Tab; of?: string }) {
  const live = useLive();
  const info = live.find(id);
  const [last, setLast] = useState(info);
  useEffect(() => {
    if (info !== undefined) setLast(info);
  }, [info]);
  const shells = useMemo(() => new Shells(), []);
  // They end with the page; what they left running in the background goes on.
  useEffect(() => () => shells.close(), []);
  const shown = info ?? last;
  const sandbox = useMemo(
    () => (shown === undefined ? undefined : new Sandbox(live.client.transport, shown)),
    [id, shown === undefined, shown?.state],
  );
  if (info === undefined || sandbox === undefined) return html`<${Gone} id=${id} />`;
  const use = live.stats[id];
  return html`
    <div class="bar title">
      <h1 tabindex="-1">${nameOf(info)}</h1>
      ${nameOf(info) !== id && html`<span class="mono soft">${id}</span>`}
      <${State} state=${info.state} wakes=${info.resumeOnUse} />
      <span class="soft">${info.image}, ${info.vcpus} CPU, ${info.memoryMb} MiB${use?.cpuPct === undefined ? "" : `, ${percent(use.cpuPct)} busy`}, ${distance(info.expiresAt)} left</span>
    </div>
    <${Actions} live=${live} sandbox=${sandbox} info=${info} />
    ${info.unreachable !== undefined && html`<p role="status" class="wrong">Its machine does not answer since ${new Date(info.unreachable.since).toLocaleTimeString()}: ${info.unreachable.reason}. The server goes on asking.</p>`}
    ${info.error !== undefined && html`<div role="status" class="failure"><strong>${info.error.message}</strong>${info.error.console.length > 0 && html`<pre tabindex="0" aria-label="Last lines of its console">${info.error.console.join("\n")}</pre>`}</div>`}
    <nav class="tabs" aria-label="Sandbox">
      ${TABS.map((each) => html`<a href=${sandboxLink(id, each)} aria-current=${each === tab ? "page" : undefined}>${NAMES[each]}</a>`)}
    </nav>
    <${TerminalTab} live=${live} sandbox=${sandbox} info=${info} shells=${shells} shown=${tab === "terminal"} />
    <${OtherTab} key=${tab} tab=${tab} live=${live} sandbox=${sandbox} info=${info} of=${of} />
  `;
}

function OtherTab({ tab, ...props }: TabProps & { tab: Tab }) {
  switch (tab) {
    case "files":
      return html`<${FilesTab} ...${props} />`;
    case "processes":
      return html`<${ProcessesTab} ...${props} />`;
    case "logs":
      return html`<${LogsTab} ...${props} />`;
    case "ports":
      return html`<${PortsTab} ...${props} />`;
    case "metrics":
      return html`<${MetricsTab} ...${props} />`;
    case "checkpoints":
      return html`<${CheckpointsTab} ...${props} />`;
    case "events":
      return html`<${Section} title="Events"><${EventList} sandboxId=${props.info.id} /><//>`;
    case "details":
      return html`<${DetailsTab} ...${props} />`;
    default:
      return null;
  }
}

function Actions({ live, sandbox, info }: TabProps) {
  const simple = (verb: Verb, label: string, title: string) =>
    html`<${Action} label=${label} title=${title} disabled=${!allows(info, verb)} run=${() => changeAll(live, [info], verb)} />`;
  const fork = async (): Promise<void> => {
    const [copy] = await sandbox.fork();
    await live.refresh();
    if (copy === undefined) return;
    notes.say(`Forked ${nameOf(info)}: this is ${copy.id}.`);
    location.hash = sandboxLink(copy.id);
  };
  const remove = async (): Promise<void> => {
    if (await removeAll(live, [info])) location.hash = "#/";
  };
  return html`
    <div class="bar" role="group" aria-label="Actions">
      ${simple("pause", "Pause", "Stops its processors; memory stays")}
      ${simple("suspend", "Suspend", "Saves it to disk and frees its memory")}
      ${simple("resume", "Resume", "From a pause, or from disk")}
      <${Action} label="Fork" title="A copy, running programs included" disabled=${!allows(info, "fork")} run=${fork} />
      ${simple("checkpoint", "Checkpoint", "Saves it as it is; it goes on")}
      ${simple("extend", "Extend 30 min", "30 minutes from now")}
      <${Action} label="Remove" kind="danger" disabled=${!allows(info, "remove")} run=${remove} />
    </div>
  `;
}

/** What is known of one that is not there any more: why. */
function Gone({ id }: { id: string }) {
  return html`
    <h1 tabindex="-1">${id} is gone</h1>
    <p>There is no such sandbox now. <a href="#/">All sandboxes</a></p>
    <${Section} title="What is known of it"><${EventList} sandboxId=${id} /><//>
  `;
}
