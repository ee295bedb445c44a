/** Shells side by side; they go on while another tab is looked at. */
import { useEffect, useRef } from "preact/hooks";
import { html } from "../core/html.ts";
import { useStore } from "../core/use-store.ts";
import { Action, Section } from "../parts/controls.ts";
import type { Shell, Shells } from "./shells.ts";
import type { TabProps } from "./tab.ts";

export function TerminalTab({ sandbox, info, shells, shown }: TabProps & { shells: Shells; shown: boolean }) {
  const { list, front } = useStore(shells);
  const screen = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const box = screen.current;
    if (!shown || box === null || front === undefined) return;
    box.replaceChildren(front.element);
    const fit = (): void => front.fit.fit();
    fit();
    front.terminal.focus();
    const resized = new ResizeObserver(fit);
    resized.observe(box);
    return () => resized.disconnect();
  }, [front, shown]);
  if (!shown) return null;
  const open = () =>
    html`<${Action} label=${list.length === 0 ? "Open a shell" : "Another shell"} kind="main" disabled=${info.state !== "running"} title=${info.state === "running" ? undefined : "It does not run"} run=${() => shells.open(sandbox)} />`;
  return html`
    <${Section} title="Terminal" actions=${open()}>
      ${
        list.length === 0
          ? html`<p class="empty">${info.state === "running" ? "A shell runs in the sandbox until it is closed or this page is left." : `It is ${info.state}: resume it to open a shell.`}</p>`
          : html`
          <div class="bar shells" role="group" aria-label="Shells">
            ${list.map((shell) => html`<${ShellTab} key=${shell.number} shell=${shell} shells=${shells} />`)}
            <button type="button" class="tab" aria-pressed=${shells.read} onClick=${() => shells.setRead(!shells.read)}>Screen reader</button>
            <span class="soft push from-tablet">Esc, then Tab leaves the terminal</span>
          </div>
          <div ref=${screen} class="terminal"></div>
          <p class="soft" role="status">${front?.ended ?? ""}</p>`
      }
    <//>
  `;
}

function ShellTab({ shell, shells }: { shell: Shell; shells: Shells }) {
  return html`
    <span class="pair">
      <button type="button" class="tab" aria-pressed=${shells.front === shell} onClick=${() => shells.show(shell)}>Shell ${shell.number}${shell.ended === undefined ? "" : " (ended)"}</button>
      <button type="button" class="tab" aria-label=${`Close shell ${shell.number}`} onClick=${() => shells.end(shell)}>✕</button>
    </span>
  `;
}
