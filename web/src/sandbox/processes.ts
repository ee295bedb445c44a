/** What runs in it: commands that came through the server, and everything that the guest's kernel knows. */
import { useState } from "preact/hooks";
import { useAsked } from "../core/asked.ts";
import { bytes, distance } from "../core/format.ts";
import { html } from "../core/html.ts";
import { notes } from "../core/notes.ts";
import { sandboxLink } from "../core/route.ts";
import { Action, Section, State, TextField } from "../parts/controls.ts";
import { type Column, Table } from "../parts/table.ts";
import { type GuestProcess, guestProcesses } from "./in-guest.ts";
import type { TabProps } from "./tab.ts";

const POLL_MS = 3_000;

type Command = Awaited<ReturnType<TabProps["sandbox"]["processes"]>>[number];

const ALL: Column<GuestProcess>[] = [
  { name: "PID", number: true, by: ({ pid }) => pid, cell: ({ pid }) => String(pid) },
  { name: "Parent", number: true, from: "tablet", by: ({ parent }) => parent, cell: ({ parent }) => String(parent) },
  { name: "State", from: "tablet", by: ({ state }) => state, cell: ({ state }) => STATES[state] ?? state },
  { name: "Memory", number: true, by: ({ memory }) => memory, cell: ({ memory }) => bytes(memory) },
  { name: "Command", by: ({ command }) => command, cell: ({ command }) => html`<code class="long">${command}</code>` },
];
const STATES: Record<string, string> = {
  R: "runs",
  S: "sleeps",
  D: "waits for a device",
  Z: "ended",
  T: "stopped",
  I: "idle",
};

export function ProcessesTab({ sandbox, info }: TabProps) {
  if (info.state !== "running")
    return html`<${Section} title="Processes"><p class="empty">It is ${info.state}: nothing runs in it.</p><//>`;
  return html`<${Commands} sandbox=${sandbox} info=${info} /><${Everything} sandbox=${sandbox} />`;
}

function Commands({ sandbox, info }: Pick<TabProps, "sandbox" | "info">) {
  const commands = useAsked(() => sandbox.processes(), [info.id], POLL_MS);
  const [command, setCommand] = useState("");
  const start = async (event: Event): Promise<void> => {
    event.preventDefault();
    try {
      await sandbox.start(command);
      setCommand("");
      await commands.again();
    } catch (error) {
      notes.fail(error);
    }
  };
  const columns: Column<Command>[] = [
    { name: "PID", number: true, by: ({ pid }) => pid, cell: ({ pid }) => String(pid) },
    { name: "Command", by: (each) => each.command, cell: (each) => html`<code class="long">${each.command}</code>` },
    {
      name: "State",
      by: ({ running }) => String(running),
      cell: ({ running, exitCode, signal, reason }) =>
        html`<${State} state=${running ? "running" : "ended"} />${running ? "" : ` ${reason === undefined || reason === "exited" ? "" : `${reason}, `}${signal === undefined ? `code ${exitCode}` : `signal ${signal}`}`}`,
    },
    {
      name: "Started",
      from: "tablet",
      by: ({ startedAt }) => startedAt,
      cell: ({ startedAt }) => `${distance(startedAt)} ago`,
    },
    {
      name: "",
      cell: ({ id, pid, running }) => html`
        <div class="actions">
          <a class="button" href=${sandboxLink(info.id, "logs", id)} aria-label=${`Output of ${pid}`}>Output</a>
          <${Action} label="Stop" name=${`Stop ${pid}`} disabled=${!running} title="SIGTERM" run=${() => sandbox.kill(id).then(commands.again)} />
          <${Action} label="Kill" name=${`Kill ${pid}`} kind="danger" disabled=${!running} title="SIGKILL" run=${() => sandbox.kill(id, "SIGKILL").then(commands.again)} />
        </div>`,
    },
  ];
  return html`
    <${Section} title="Commands">
      <form class="bar" onSubmit=${start}>
        <${TextField} label="Start a command" required value=${command} set=${setCommand} placeholder="python3 -m http.server 8000" spellcheck=${false} wide />
        <button>Start</button>
      </form>
      ${commands.error !== undefined && html`<p role="alert" class="wrong">${commands.error}</p>`}
      ${commands.value !== undefined && html`<${Table} label="Commands" columns=${columns} rows=${commands.value} keyOf=${({ id }: Command) => id} empty="No command came through the server yet." />`}
    <//>
  `;
}

function Everything({ sandbox }: Pick<TabProps, "sandbox">) {
  const all = useAsked(() => guestProcesses(sandbox), [sandbox.id]);
  return html`
    <${Section} title="All processes" actions=${html`<${Action} label="Refresh" run=${all.again} />`}>
      ${all.error !== undefined && html`<p role="alert" class="wrong">${all.error}</p>`}
      ${all.value !== undefined && html`<${Table} label="All processes" columns=${ALL} rows=${all.value} keyOf=${({ pid }: GuestProcess) => String(pid)} empty="The image has no shell to ask with." />`}
    <//>
  `;
}
