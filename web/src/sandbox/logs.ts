/** What programs have written, as it comes, with times if wanted; and the console of the kernel. The same as `stacyvm logs`. */
import { useEffect, useRef, useState } from "preact/hooks";
import { useAsked } from "../core/asked.ts";
import { html } from "../core/html.ts";
import { LogLines } from "../core/log-lines.ts";
import { textOf } from "../core/notes.ts";
import { Action, Section, SelectField } from "../parts/controls.ts";
import type { TabProps } from "./tab.ts";

const KERNEL = "console";
const POLL_MS = 3_000;
/** Characters that are shown; what is older goes. */
const SHOWN = 200_000;
/** A program that writes without end is drawn so often, ms. */
const DRAW_MS = 100;

export function LogsTab({ sandbox, info, of }: TabProps) {
  const running = info.state === "running";
  const commands = useAsked(async () => (running ? await sandbox.processes() : []), [info.id, running], POLL_MS);
  const [chosen, choose] = useState(of);
  const list = [...(commands.value ?? [])].sort((a, b) => b.startedAt.localeCompare(a.startedAt));
  // What people look for first is what their program says: the last one that runs, else the last one.
  const source = chosen ?? (list.find((each) => each.running) ?? list[0])?.id ?? KERNEL;
  const options = [
    ...list.map((each): [string, string] => [
      each.id,
      `${each.command.slice(0, 60)} (pid ${each.pid}${each.running ? "" : ", ended"})`,
    ]),
    [KERNEL, "the kernel's console"] as [string, string],
  ];
  const picker = html`<${SelectField} label="Of" value=${source} set=${choose} options=${options} />`;
  // Only once it is known: another source would begin anew.
  const known = chosen !== undefined || !running || commands.value !== undefined || commands.error !== undefined;
  return html`
    <${Section} title="Logs" actions=${picker}>
      ${known && (source === KERNEL ? html`<${Kernel} sandbox=${sandbox} id=${info.id} />` : html`<${Output} key=${source} sandbox=${sandbox} process=${source} />`)}
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

/** What is kept of it first, then, while somebody follows, what comes. */
function Output({ sandbox, process }: Pick<TabProps, "sandbox"> & { process: string }) {
  const [following, follow] = useState(true);
  const [timed, time] = useState(false);
  const [shown, show] = useState({ lines: new LogLines(SHOWN) });
  const [status, setStatus] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    const lines = new LogLines(SHOWN);
    let drawing: ReturnType<typeof setTimeout> | undefined;
    const draw = (): void => {
      drawing = undefined;
      if (!stop.signal.aborted) show({ lines });
    };
    void (async () => {
      setStatus(following ? "Following" : "");
      try {
        const pieces = sandbox.output({ process, follow: following, timestamps: true, signal: stop.signal });
        for await (const piece of pieces) {
          lines.add(piece);
          drawing ??= setTimeout(draw, DRAW_MS);
        }
        draw();
        const own = following ? (await sandbox.processes()).find(({ id }) => id === process) : undefined;
        if (!stop.signal.aborted && own?.running === false)
          setStatus(`It ended with ${own.signal === undefined ? own.exitCode : `signal ${own.signal}`}.`);
      } catch (error) {
        if (!stop.signal.aborted) setStatus(textOf(error));
      }
    })();
    return () => {
      stop.abort();
      clearTimeout(drawing);
    };
  }, [process, following]);
  const text = shown.lines.text(timed ? clock : undefined);
  return html`
    <div class="bar">
      <${Switch} label="Follow" on=${following} set=${follow} />
      <${Switch} label="Times" on=${timed} set=${time} />
      <span class="soft" role="status">${status}</span>
    </div>
    <${Lines} label="Output" text=${text} />
  `;
}

function Switch({ label, on, set }: { label: string; on: boolean; set: (on: boolean) => void }) {
  return html`<label class="switch"><input type="checkbox" checked=${on} onChange=${() => set(!on)} /> ${label}</label>`;
}

/** In the reader's own time, to the millisecond. */
function clock(iso: string): string {
  const date = new Date(iso);
  return `${date.toLocaleTimeString([], { hour12: false })}.${String(date.getMilliseconds()).padStart(3, "0")}`;
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
