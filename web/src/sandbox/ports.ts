/** What listens in it, with the address where it is seen. */
import { useState } from "preact/hooks";
import { listeningPorts } from "../../../sdk/src/index.ts";
import { useAsked } from "../core/asked.ts";
import { html } from "../core/html.ts";
import { Code } from "../parts/code.ts";
import { Action, Empty, Section, TextField } from "../parts/controls.ts";
import type { TabProps } from "./tab.ts";

export function PortsTab({ live, sandbox, info }: TabProps) {
  const running = info.state === "running";
  const ports = useAsked(async () => (running ? await listeningPorts(sandbox) : []), [info.id, running]);
  const [other, setOther] = useState("");
  const asksForKey = sessionStorage.getItem("stacyvm.key") !== null;
  const address = (port: number | string): string => {
    const { protocol, port: own } = location;
    const domain = /:\d+$/.test(info.previewDomain) || own === "" ? info.previewDomain : `${info.previewDomain}:${own}`;
    return `${protocol}//${port}-${info.id}.${domain}/`;
  };
  const line = (port: number | string) => html`
    <li>
      <strong>${port}</strong> <a href=${address(port)} target="_blank" rel="noreferrer">${address(port)}</a>
    </li>`;
  return html`
    <${Section} title="Ports" actions=${html`<${Action} label="Refresh" run=${ports.again} />`}>
      ${ports.error !== undefined && html`<p role="alert" class="wrong">${ports.error}</p>`}
      ${!running ? html`<${Empty}>It is ${info.state}: nothing listens in it.<//>` : ports.value?.length === 0 && html`<${Empty}>Nothing listens yet. Start a server in the sandbox, then refresh.<//>`}
      <ul class="ports">${(ports.value ?? []).map(line)}</ul>
      <div class="bar">
        <${TextField} label="Another port" type="number" min="1" max="65535" value=${other} set=${setOther} placeholder="8000" />
      </div>
      ${/^\d+$/.test(other) && html`<ul class="ports">${line(other)}</ul>`}
      ${
        asksForKey &&
        html`
        <p class="soft">This server asks for a key, also here. A browser sends none by itself: open it with one, make previews public (<code>server.preview_public</code>), or forward the port.</p>
        <${Code} label="the forward" text=${`STACYVM_URL=${live.client.url} stacyvm forward ${info.id} ${other || (ports.value?.[0] ?? 8000)}`} />`
      }
    <//>
  `;
}
