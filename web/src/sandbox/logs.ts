/** What programs have written, as it comes; and the console of the kernel. */
import { useEffect, useRef, useState } from "preact/hooks";
import { useAsked } from "../core/asked.ts";
import { html } from "../core/html.ts";
import { textOf } from "../core/notes.ts";
import { Action, Section, SelectField } from "../parts/controls.ts";
import type { TabProps } from "./tab.ts";

const KERNEL = "console";
const POLL_MS = 3_000;
/** Characters that are shown; what is older goes. */
const SHOWN = 200_000;

export function LogsTab({ sandbox, info, of }: TabProps) {
  const running = info.state === "running";
  const commands = useAsked(async () => (running ? await sandbox.processes() : []), [info.id, running], POLL_MS);
  const list = [...(commands.value ?? [])].sort((a, b) => b.startedAt.localeCompare(a.startedAt));
  const [chosen, choose] = useState(of);
  // What people look for first is what their program says.
  const source = chosen ?? list[0]?.id ?? KERNEL;
  const options = [
    ...list.map((each): [string, string] => [
      each.id,
      `${each.command.slice(0, 60)} (pid ${each.pid}${each.running ? "" : ", ended"})`,
    ]),
    [KERNEL, "the kernel's console"] as [string, string],
  ];
  return html`
    <${Section} title="Logs" actions=${html`<${SelectField} label="Of" value=${source} set=${choose} options=${options} />`}>
      ${source === KERNEL ? html`<${Kernel} sandbox=${sandbox} id=${info.id} />` : html`<${Output} key=${source} sandbox=${sandbox} process=${source} />`}
    <//>
  `;
}

function Kernel({ sandbox, id }: Pick<TabProps, "sandbox"> & { id: string }) {
  const lines = useAsked(() => sandbox.logs(500), [id], POLL_MS);
  return html`
    <${Lines} label="Console" text=${lines.value === undefined ? "" : lines.value.length === 0 ? "The kernel said nothing." : lines.value.join("\n")} />
    <div class="bar">${lines.error !== undefined && html`<span role="alert" class="wrong">${lines.error}</span>`}<${Action} label="Refresh" run=${lines.again} /></div>
  `;
}

/** Attached while it is looked at: recent output first, then what comes. */
function Output({ sandbox, process }: Pick<TabProps, "sandbox"> & { process: string }) {
  const [text, setText] = useState("");
  const [status, setStatus] = useState("Following");
  useEffect(() => {
    const stop = new AbortController();
    void (async () => {
      try {
        const attached = await sandbox.attach(process, stop.signal);
        stop.signal.addEventListener("abort", () => attached.detach(), { once: true });
        for await (const piece of attached.text()) setText((last) => (last + piece).slice(-SHOWN));
        const { exitCode } = await attached.exited;
        setStatus(`It ended with ${exitCode}.`);
      } catch (error) {
        if (!stop.signal.aborted) setStatus(textOf(error));
      }
    })();
    return () => stop.abort();
  }, [process]);
  return html`<${Lines} label="Output" text=${text} /><p class="soft" role="status">${status}</p>`;
}

/** Stays at its end while it grows, unless somebody has scrolled up. */
function Lines({ label, text }: { label: string; text: string }) {
  const box = useRef<HTMLPreElement>(null);
  const atEnd = useRef(true);
  useEffect(() => {
    const element = box.current;
    if (element !== null && atEnd.current) element.scrollTop = element.scrollHeight;
  }, [text]);
  const scrolled = (): void => {
    const element = box.current;
    if (element !== null) atEnd.current = element.scrollHeight - element.scrollTop - element.clientHeight < 30;
  };
  return html`<pre ref=${box} class="log" tabindex="0" aria-label=${label} onScroll=${scrolled}>${text}</pre>`;
}
