/** One sandbox: what it is, a terminal in it, its files, its network, its console. */
import type { Sandbox, SandboxInfo } from "../../sdk/src/index.ts";
import { phaseChart } from "./charts.ts";
import { action, distance, el, ms, note } from "./dom.ts";
import { filesPanel } from "./files-panel.ts";
import type { Live } from "./live.ts";
import { networkPanel } from "./network-panel.ts";
import { terminalPanel } from "./terminal-panel.ts";
import type { View } from "./view.ts";

export function sandboxPage(id: string): View {
  return (live, root) => {
    const ends: (() => void)[] = [];
    let over = false;
    live.client.get(id).then(
      (sandbox) => {
        if (!over) ends.push(show(live, root, sandbox));
      },
      (error: unknown) => {
        note(error);
        root.append(
          el("p", { class: "empty" }, `There is no sandbox ${id}. `, el("a", { href: "#/" }, "All sandboxes")),
        );
      },
    );
    return () => {
      over = true;
      for (const end of ends) end();
    };
  };
}

function show(live: Live, root: HTMLElement, sandbox: Sandbox): () => void {
  const { id } = sandbox;
  const head = el("section", { "aria-label": "About" });
  const console = el("pre", { "aria-label": "Console" });
  const terminal = terminalPanel(sandbox);
  root.append(
    head,
    terminal.element,
    el("div", { class: "two" }, filesPanel(sandbox), networkPanel(sandbox)),
    el("section", {}, el("div", { class: "bar" }, el("h2", {}, "Console"), action("read again", readConsole)), console),
  );
  async function readConsole(): Promise<void> {
    const lines = await sandbox.logs(200);
    console.textContent = lines.length === 0 ? "The kernel said nothing." : lines.join("\n");
  }
  let drawn = "";
  const draw = (): void => {
    const info = live.sandboxes.find((each) => each.id === id);
    // It is drawn anew only when it has changed: a button under the pointer must not be another one at the click.
    const now = JSON.stringify(info);
    if (now === drawn) return;
    drawn = now;
    if (info === undefined)
      head.replaceChildren(el("h2", {}, `${id} is gone`), el("a", { href: "#/" }, "All sandboxes"));
    else head.replaceChildren(...about(live, sandbox, info));
  };
  const off = live.onChange(draw);
  draw();
  readConsole().catch(note);
  return () => {
    off();
    terminal.close();
  };
}

function about(live: Live, sandbox: Sandbox, info: SandboxInfo): HTMLElement[] {
  const { state, boot, error } = info;
  const change = (label: string, work: () => Promise<unknown>, kind = ""): HTMLButtonElement =>
    action(
      label,
      async () => {
        await work();
        await live.refresh();
      },
      kind,
    );
  const running = state === "running";
  const facts = [
    `${info.image}, ${info.vcpus} CPU, ${info.memoryMb} MiB, disk ${info.diskMb} MiB`,
    `${info.provider}, started ${distance(info.createdAt)} ago, ends in ${distance(info.expiresAt)}`,
    ...(info.forkedFrom === undefined ? [] : [`a fork of ${info.forkedFrom}`]),
    ...(info.template === undefined ? [] : [`of the template ${info.template}`]),
  ];
  return [
    el(
      "div",
      { class: "bar" },
      el("h2", { class: "mono" }, info.id),
      el("span", { class: `state ${state}` }, state),
      change("pause", () => sandbox.pause()),
      change("suspend", () => sandbox.suspend()),
      change("resume", () => sandbox.resume()),
      change("fork", async () => {
        const [copy] = await sandbox.fork();
        if (copy !== undefined) location.hash = `#/${copy.id}`;
      }),
      change("checkpoint", () => sandbox.checkpoint()),
      change("30 minutes more", () => sandbox.extend("30m")),
      change(
        "remove",
        async () => {
          await sandbox.destroy();
          location.hash = "#/";
        },
        "danger",
      ),
    ),
    ...facts.map((fact) => el("div", { class: "soft" }, fact)),
    ...(error === undefined ? [] : [el("pre", {}, `${error.message}\n${error.console.join("\n")}`)]),
    ...(boot === undefined
      ? []
      : [
          el(
            "p",
            {},
            el("span", { class: boot.path }, boot.path),
            ` in ${ms(boot.totalMs)}`,
            running ? "" : ", earlier",
          ),
          phaseChart(boot) as HTMLElement,
        ]),
  ];
}
