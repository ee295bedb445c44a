/** A real server process on a data directory of its own; kernel, agent and images are the checkout's. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { borrow } from "../bench/borrow.ts";
import { packageRoot } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";

export class Server implements AsyncDisposable {
  readonly root: string;
  url = "";
  #child: ChildProcess | undefined;
  #log = "";

  private constructor(root: string) {
    this.root = root;
  }

  /** @param config the content of its `stacyvm.yaml` */
  static async create(config?: string, options: { parent?: string } = {}): Promise<Server> {
    const root = await mkdtemp(join(options.parent ?? process.env.STACYVM_TEST_DIR ?? tmpdir(), "server-"));
    await borrow(root);
    if (config !== undefined) await writeFile(join(root, "stacyvm.yaml"), config);
    return Server.open(root);
  }

  /** On a data directory that is there; it is removed in the end. */
  static async open(root: string): Promise<Server> {
    const server = new Server(root);
    await server.start();
    return server;
  }

  async start(env: Record<string, string> = {}, options: string[] = []): Promise<void> {
    const main = join(packageRoot, "src/cli/main.ts");
    const child = spawn(process.execPath, [main, "serve", "--data-dir", this.root, "--port", "0", ...options], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...env },
      cwd: this.root,
    });
    this.#child = child;
    child.stderr.on("data", (text) => {
      this.#log = (this.#log + text).slice(-20_000);
    });
    this.url = await new Promise((resolve, reject) => {
      child.once("exit", (code) => reject(new Error(`the server ended with ${code}:\n${this.#log}`)));
      let out = "";
      child.stdout.on("data", (text) => {
        out += text;
        const url = /listening on (\S+)/.exec(out)?.[1];
        if (url !== undefined) resolve(url);
      });
    });
  }

  /** Of the daemon. */
  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  get log(): string {
    return this.#log;
  }

  /** Settles when the daemon ends by itself or is killed by somebody else: the signal, or the exit code. */
  ended(): Promise<NodeJS.Signals | number | null> {
    const child = this.#child;
    return new Promise((resolve) => child?.once("exit", (code, signal) => resolve(signal ?? code)));
  }

  async stop(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await ended;
  }

  // biome-ignore lint/suspicious/noExplicitAny: the tests look into every kind of answer
  async call(method: string, path: string, body?: unknown): Promise<{ status: number; body: any; headers: Headers }> {
    const response = await fetch(`${this.url}/api/v1${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
    });
    const text = await response.text();
    let parsed: unknown = text;
    try {
      parsed = JSON.parse(text);
    } catch {}
    return { status: response.status, body: parsed, headers: response.headers };
  }

  machines(): Promise<string[]> {
    return readdir(join(this.root, "sandboxes")).then(
      (names) => names.filter((name) => name.startsWith("sb-")),
      () => [],
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Orderly, so that no refill is half-way; the sandboxes that it leaves running on purpose are ended here.
    await this.stop("SIGTERM");
    for (const pid of await processesIn(this.root)) process.kill(pid, "SIGKILL");
    await rm(this.root, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}
