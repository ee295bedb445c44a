/** Shells of a sandbox that are open in this page, each in a terminal of its own. */
import type { FitAddon } from "@xterm/addon-fit";
import type { Terminal } from "@xterm/xterm";
import type { Sandbox, SandboxProcess } from "../../../sdk/src/index.ts";
import { textOf } from "../core/notes.ts";
import { Store } from "../core/store.ts";

export interface Shell {
  readonly number: number;
  /** What the terminal draws into; it goes into the page where the shell is shown. */
  readonly element: HTMLElement;
  readonly terminal: Terminal;
  readonly fit: FitAddon;
  readonly process: SandboxProcess;
  /** How it ended. */
  ended: string | undefined;
}

const READ = "stacyvm.terminal.read";
const LEAVE_MS = 2_000;

export class Shells extends Store {
  list: Shell[] = [];
  /** Which one is in front. */
  front: Shell | undefined;
  #number = 0;
  /**
   * What is drawn is said, too. Not always: the terminal then takes no input that comes without keys, as from a phone
   * or an input method.
   */
  read = localStorage.getItem(READ) === "yes";

  async open(sandbox: Sandbox): Promise<void> {
    // Half of what the page weighs, for those who open one.
    const [{ Terminal }, { FitAddon }] = await Promise.all([import("@xterm/xterm"), import("@xterm/addon-fit")]);
    const process = await sandbox.shell({ pty: { rows: 24, cols: 80, term: "xterm-256color" } });
    const terminal = new Terminal({
      cursorBlink: true,
      fontSize: 13,
      scrollback: 5_000,
      screenReaderMode: this.read,
      minimumContrastRatio: 4.5,
    });
    const fit = new FitAddon();
    terminal.loadAddon(fit);
    const element = document.createElement("div");
    element.className = "screen";
    terminal.open(element);
    terminal.textarea?.setAttribute("aria-label", `Shell ${this.#number + 1}. Escape, then Tab leaves it`);
    leaveByKeyboard(terminal);
    terminal.onResize(({ rows, cols }) => process.resize(rows, cols));
    // What is typed after the end goes nowhere.
    terminal.onData((text) => void process.write(text).catch(() => {}));
    terminal.onBinary(
      (text) => void process.write(Uint8Array.from(text, (char) => char.charCodeAt(0))).catch(() => {}),
    );
    const shell: Shell = { number: ++this.#number, element, terminal, fit, process, ended: undefined };
    this.list = [...this.list, shell];
    this.show(shell);
    const ended = (how: string): void => {
      shell.ended = how;
      this.changed();
    };
    draw(process, terminal).then(ended, (error: unknown) => ended(textOf(error)));
  }

  setRead(read: boolean): void {
    this.read = read;
    localStorage.setItem(READ, read ? "yes" : "no");
    for (const { terminal } of this.list) terminal.options.screenReaderMode = read;
    this.changed();
  }

  show(shell: Shell): void {
    this.front = shell;
    this.changed();
  }

  end(shell: Shell): void {
    void shell.process[Symbol.asyncDispose]();
    shell.terminal.dispose();
    shell.element.remove();
    this.list = this.list.filter((each) => each !== shell);
    if (this.front === shell) this.front = this.list.at(-1);
    this.changed();
  }

  close(): void {
    for (const shell of this.list) this.end(shell);
  }
}

/** A terminal takes every key. Escape goes to the shell as well; a Tab right after it is the page's. */
function leaveByKeyboard(terminal: Terminal): void {
  let escaped = 0;
  terminal.attachCustomKeyEventHandler((event) => {
    if (event.type !== "keydown") return true;
    if (event.key === "Tab" && performance.now() - escaped < LEAVE_MS) return false;
    if (event.key !== "Shift") escaped = event.key === "Escape" ? performance.now() : 0;
    return true;
  });
}

/** Writes until the shell ends; one that is slow to draw holds the shell back. */
async function draw(shell: SandboxProcess, terminal: Terminal): Promise<string> {
  for await (const { data } of shell) await new Promise<void>((drawn) => terminal.write(data, drawn));
  const { exitCode } = await shell.exited;
  return `The shell ended with ${exitCode}.`;
}
