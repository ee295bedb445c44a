/** Everything else that is known of it: size, start, labels, environment, network, commands that ran. */
import { useState } from "preact/hooks";
import type { ExecRecord } from "../../../sdk/src/index.ts";
import { useAsked } from "../core/asked.ts";
import { distance, moment, ms } from "../core/format.ts";
import { html } from "../core/html.ts";
import { notes, textOf } from "../core/notes.ts";
import { sandboxLink } from "../core/route.ts";
import { Action, Facts, Section, State, TextField } from "../parts/controls.ts";
import { type Column, Table } from "../parts/table.ts";
import { environment } from "./in-guest.ts";
import type { TabProps } from "./tab.ts";

export function DetailsTab({ live, sandbox, info }: TabProps) {
  const { boot } = info;
  return html`
    <div class="two">
      <${Section} title="Sandbox">
        <${Facts} of=${[
          ["Id", html`<span class="mono">${info.id}</span>`],
          ["Image", info.image],
          ["Size", `${info.vcpus} CPU, ${info.memoryMb} MiB memory, ${info.diskMb} MiB disk`],
          ["Provider", info.provider],
          ["Owner", info.ownerId === undefined ? info.owner : `${info.owner}, user ${info.ownerId}`],
          ["Started", `${moment(info.createdAt)}, ${distance(info.createdAt)} ago`],
          ["Ends", `${moment(info.expiresAt)}, in ${distance(info.expiresAt)}`],
          ["Idle limit", info.idleTimeout],
          [
            "Volumes",
            info.volumes
              ?.map(({ name, path, readOnly }) => `${name} at ${path}${readOnly ? " (reads)" : ""}`)
              .join(", "),
          ],
          ["Template", info.template],
          ["Checkpoint", info.checkpoint],
          [
            "Fork of",
            info.forkedFrom === undefined
              ? undefined
              : html`<a class="mono" href=${sandboxLink(info.forkedFrom)}>${info.forkedFrom}</a>`,
          ],
        ]} />
      <//>
      <${Section} title="Start">
        ${
          boot === undefined
            ? html`<p class="empty">It has not started.</p>`
            : html`
            <p><span class=${boot.path}>${boot.path}</span> in ${ms(boot.totalMs)}${boot.fallback === undefined ? "" : `, after a restore failed: ${boot.fallback}`}</p>
            <${Phases} phases=${boot.phases} way=${boot.path} />`
        }
      <//>
      <${Section} title="Labels">
        ${Object.keys(info.metadata).length === 0 ? html`<p class="empty">None.</p>` : html`<${Facts} of=${Object.entries(info.metadata)} />`}
      <//>
      <${Environment} sandbox=${sandbox} running=${info.state === "running"} />
      <${Network} live=${live} sandbox=${sandbox} info=${info} />
    </div>
    <${History} sandbox=${sandbox} info=${info} />
  `;
}

function Phases({ phases, way }: { phases: Record<string, number>; way: string }) {
  const longest = Math.max(...Object.values(phases), 0.001);
  return html`
    <dl class=${`phases ${way}`}>
      ${Object.entries(phases).map(([name, value]) => html`<div><dt>${name}</dt><dd><i style=${`width: ${(100 * value) / longest}%`}></i><span>${ms(value)}</span></dd></div>`)}
    </dl>
  `;
}

/** Asked for by a button: there may be secrets in it. */
function Environment({ sandbox, running }: Pick<TabProps, "sandbox"> & { running: boolean }) {
  const [variables, setVariables] = useState<[string, string][] | undefined>();
  return html`
    <${Section} title="Environment" actions=${html`<${Action} label=${variables === undefined ? "Show" : "Hide"} name=${variables === undefined ? "Show the environment" : "Hide the environment"} disabled=${!running} run=${async () => setVariables(variables === undefined ? await environment(sandbox) : undefined)} />`}>
      ${variables === undefined ? html`<p class="empty">${running ? "What its commands get. There may be secrets in it." : "It does not run."}</p>` : html`<${Facts} of=${variables} />`}
    <//>
  `;
}

function Network({ live, sandbox, info }: TabProps) {
  const network = useAsked(() => sandbox.network(), [info.id, info.state, info.allowedHosts?.join()]);
  const [typed, setTyped] = useState<string | undefined>();
  const [error, setError] = useState<string | undefined>();
  const current = (info.allowedHosts ?? []).join("\n");
  const save = async (): Promise<void> => {
    try {
      await sandbox.allow((typed ?? "").split(/[\s,]+/).filter(Boolean));
      setTyped(undefined);
      setError(undefined);
      await live.refresh();
      notes.say("Saved the allowed hosts.");
    } catch (thrown) {
      setError(textOf(thrown));
    }
  };
  const { open, connected, refused, failed, problem } = network.value ?? {};
  return html`
    <${Section} title="Network" actions=${html`<${Action} label="Refresh" name="Refresh the network" run=${network.again} />`}>
      <${TextField} label="Allowed hosts" rows=${4} value=${typed ?? current} set=${setTyped} error=${error} placeholder="none" hint="One a line: pypi.org, *.example.com, *. Also for connections that are open." spellcheck=${false} />
      <div class="bar">
        <${Action} label="Save" name="Save the allowed hosts" disabled=${typed === undefined || typed === current} run=${save} />
        <span class="soft" role="status">${problem ?? (open === undefined ? "" : `${open} open now; ${connected} connections, ${refused} refused, ${failed} failed`)}</span>
      </div>
    <//>
  `;
}

const HISTORY: Column<ExecRecord>[] = [
  { name: "When", by: ({ startedAt }) => startedAt, cell: ({ startedAt }) => moment(startedAt) },
  { name: "Command", by: ({ command }) => command, cell: ({ command }) => html`<code class="long">${command}</code>` },
  {
    name: "Ended",
    cell: ({ outcome, exitCode }) =>
      html`<${State} state=${outcome} />${exitCode === undefined ? "" : ` code ${exitCode}`}`,
  },
  { name: "Took", number: true, from: "tablet", cell: ({ duration }) => duration },
];

function History({ sandbox, info }: Pick<TabProps, "sandbox" | "info">) {
  const history = useAsked(() => sandbox.history(200), [info.id]);
  return html`
    <${Section} title="Commands that ran" actions=${html`<${Action} label="Refresh" name="Refresh the commands" run=${history.again} />`}>
      ${history.error !== undefined && html`<p role="alert" class="wrong">${history.error}</p>`}
      ${history.value !== undefined && html`<${Table} label="Commands that ran" columns=${HISTORY} rows=${history.value} keyOf=${({ startedAt, command }: ExecRecord) => `${startedAt} ${command}`} empty="None yet." />`}
    <//>
  `;
}
