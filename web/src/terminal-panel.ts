/** A shell of the sandbox in a terminal. It ends with the page; what runs in the background there goes on. */
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import type { Sandbox, SandboxProcess } from "../../sdk/src/index.ts";
import { action, el, note } from "./dom.ts";

export function terminalPanel(sandbox: Sandbox): { element: HTMLElement; close(): void } {
  const screen = el("div", { id: "terminal", hidden: true });
  const ended = el("span", { class: "soft", role: "status" });
  let stop = (): void => {};

  const open = action("open a shell", async () => {
    stop();
    screen.hidden = false;
    ended.textContent = "";
    const terminal = new Terminal({ cursorBlink: true, fontSize: 13, scrollback: 5_000 });
    const fit = new FitAddon();
    terminal.loadAddon(fit);
    terminal.open(screen);
    fit.fit();
    let shell: SandboxProcess;
    try {
      shell = await sandbox.shell({ pty: { rows: terminal.rows, cols: terminal.cols, term: "xterm-256color" } });
    } catch (error) {
      terminal.dispose();
      screen.hidden = true;
      throw error;
    }
    const resized = new ResizeObserver(() => fit.fit());
    resized.observe(screen);
    terminal.onResize(({ rows, cols }) => shell.resize(rows, cols));
    // What is typed after the end goes nowhere.
    terminal.onData((text) => void shell.write(text).catch(() => {}));
    terminal.onBinary((text) => void shell.write(Uint8Array.from(text, (char) => char.charCodeAt(0))).catch(() => {}));
    terminal.focus();
    stop = () => {
      stop = () => {};
      resized.disconnect();
      terminal.dispose();
      void shell[Symbol.asyncDispose]();
    };
    show(shell, terminal).then((how) => {
      ended.textContent = how;
    }, note);
  });
  return {
    element: el(
      "section",
      { "aria-label": "Terminal" },
      el("div", { class: "bar" }, el("h2", {}, "Terminal"), open, ended),
      screen,
    ),
    close: () => stop(),
  };
}

/** Writes until the shell ends; one that is slow to draw holds the shell back. */
async function show(shell: SandboxProcess, terminal: Terminal): Promise<string> {
  for await (const { data } of shell) await new Promise<void>((drawn) => terminal.write(data, drawn));
  const { exitCode } = await shell.exited;
  return `the shell ended with ${exitCode}`;
}
