/** The command line as a user types it, on a data directory of its own; kernel, agent and images are the checkout's. */
import { type ChildProcess, type StdioOptions, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { borrow } from "../bench/borrow.ts";
import { packageRoot } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";

export interface Ran {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Longer than anything here is silent on a slow machine. */
const SILENCE_MS = 60_000;
export const MAIN = join(packageRoot, "src/cli/main.ts");

export class Cli implements AsyncDisposable {
  readonly data: string;
  readonly env: Record<string, string>;

  private constructor(data: string) {
    this.data = data;
    // Of the surrounding environment only what programs need: keys and addresses of the developer must not matter.
    const { PATH = "", HOME = "/" } = process.env;
    this.env = { PATH, HOME, STACYVM_DATA_DIR: data, STACYVM_PROVIDER: "qemu", LC_ALL: "C.UTF-8", TERM: "xterm" };
    // Each command is on its own here; what goes on in the background has a test of its own.
    this.env.STACYVM_BACKGROUND = "off";
  }

  static async create(): Promise<Cli> {
    const data = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "cli-"));
    await borrow(data);
    return new Cli(data);
  }

  start(args: string[], env: Record<string, string> = {}): ChildProcess {
    return spawn(process.execPath, [MAIN, ...args], { env: { ...this.env, ...env }, cwd: this.data });
  }

  async run(args: string[], options: { input?: string | Uint8Array; env?: Record<string, string> } = {}): Promise<Ran> {
    const child = this.start(args, options.env);
    child.stdin?.on("error", () => {}); // it may not want to read
    child.stdin?.end(options.input ?? "");
    return ended(child);
  }

  /** Its standard output, when it ends well. */
  async out(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(args);
    if (code !== 0) throw new Error(`stacyvm ${args.join(" ")} ended with ${code}: ${stderr}`);
    return stdout.trimEnd();
  }

  /** The same of another program, in the environment of the command line. */
  async program([file = "", ...args]: string[]): Promise<string> {
    const child = spawn(file, args, { env: this.env, cwd: this.data, stdio: ["ignore", "pipe", "pipe"] });
    const { code, stdout, stderr } = await ended(child);
    if (code !== 0) throw new Error(`${file} ended with ${code}: ${stderr}`);
    return stdout.trimEnd();
  }

  // biome-ignore lint/suspicious/noExplicitAny: the tests look into every kind of answer
  async json(...args: string[]): Promise<any> {
    return JSON.parse(await this.out(...args, "--json"));
  }

  terminal(rows: number, cols: number, args: string[], env: Record<string, string> = {}): Terminal {
    const pty = [join(packageRoot, "test/terminal.py"), String(rows), String(cols), process.execPath, MAIN, ...args];
    const stdio: StdioOptions = ["pipe", "pipe", "inherit"];
    return new Terminal(spawn("python3", pty, { env: { ...this.env, ...env }, cwd: this.data, stdio }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of await processesIn(this.data)) process.kill(pid, "SIGKILL");
    await rm(this.data, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

/** Its next words there. @throws when it ends without any */
export function said(child: ChildProcess, stream: "stdout" | "stderr" = "stdout"): Promise<string> {
  return new Promise((resolve, reject) => {
    child[stream]?.once("data", (data) => resolve(String(data)));
    child.once("close", (code) => reject(new Error(`ended with ${code} and said nothing on ${stream}`)));
  });
}

export async function ended(child: ChildProcess): Promise<Ran> {
  let stdout = "";
  let stderr = "";
  child.stdout?.setEncoding("utf8").on("data", (text) => {
    stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  const code = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return { code, stdout, stderr };
}

/** A program in a terminal of its own (terminal.py). */
export class Terminal {
  readonly exited: Promise<number | null>;
  readonly #child: ChildProcess;
  #text = "";
  #wake = (): void => {};

  constructor(child: ChildProcess) {
    this.#child = child;
    this.exited = new Promise((resolve) => child.once("close", resolve));
    void this.exited.then(() => this.#wake());
    child.stdout?.setEncoding("utf8").on("data", (text) => {
      this.#text += text;
      this.#wake();
    });
  }

  /** All that was written so far, without the sequences that move and colour. */
  get text(): string {
    return this.#text.replace(/\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r/g, "");
  }

  get raw(): string {
    return this.#text;
  }

  type(keys: string): void {
    this.#child.stdin?.write(`${JSON.stringify(keys)}\n`);
  }

  resize(rows: number, cols: number): void {
    this.#child.stdin?.write(`${JSON.stringify([rows, cols])}\n`);
  }

  /** Waits until this has been written. */
  async until(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this.text);
      if (match !== null) return match;
      const { exitCode } = this.#child;
      if (exitCode !== null) throw new Error(`ended with ${exitCode} before ${pattern}:\n${this.text}`);
      const silent = await new Promise<boolean>((resolve) => {
        const timer = setTimeout(() => resolve(true), SILENCE_MS);
        this.#wake = () => {
          clearTimeout(timer);
          resolve(false);
        };
      });
      if (silent) throw new Error(`nothing more, and no ${pattern}:\n${this.text}`);
    }
  }
}
