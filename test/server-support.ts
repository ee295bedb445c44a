/**
 * A real server process on a data directory of its own; kernel, agent and images are the checkout's. `STACYVM_PROVIDERS_DEFAULT=firecracker`
 * is every server test's long form with Linux under Firecracker: its golden snapshots are handed on between the tests of a run.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { type IncomingMessage, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as delay } from "node:timers/promises";
import { borrow } from "../bench/borrow.ts";
import { isThere } from "../src/host/exists.ts";
import { packageRoot } from "../src/host/paths.ts";
import { processesIn } from "../src/host/process.ts";
import { borrowGoldens, lendGoldens } from "./goldens.ts";

export class Server implements AsyncDisposable {
  readonly root: string;
  url = "";
  #child: ChildProcess | undefined;
  #log = "";
  /** Its golden snapshots are those of the whole run. */
  #shares = false;

  private constructor(root: string) {
    this.root = root;
  }

  /** @param config the content of its `stacyvm.yaml` @param options.shares false: no golden snapshot is there already */
  static async create(config = "", options: { parent?: string; shares?: boolean } = {}): Promise<Server> {
    const root = await mkdtemp(join(options.parent ?? process.env.STACYVM_TEST_DIR ?? tmpdir(), "server-"));
    await borrow(root);
    if (config !== "") await writeFile(join(root, "stacyvm.yaml"), config);
    const server = new Server(root);
    server.#shares =
      options.shares !== false &&
      `${config} default: ${process.env.STACYVM_PROVIDERS_DEFAULT}`.includes("default: firecracker");
    await server.start();
    return server;
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

  /** A call that must succeed. @returns the answer's body */
  // biome-ignore lint/suspicious/noExplicitAny: the tests look into every kind of answer
  async ok(method: string, path: string, body?: unknown): Promise<any> {
    const answer = await this.call(method, path, body);
    assert.ok(answer.status < 300, `${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body;
  }

  // biome-ignore lint/suspicious/noExplicitAny: the tests look into every kind of answer
  async call(method: string, path: string, body?: unknown): Promise<{ status: number; body: any; headers: Headers }> {
    const builds = this.#shares && method === "POST" && path === "/snapshots";
    if (builds) {
      const {
        image,
        vcpus,
        memory_mb: memoryMiB,
        disk_mb: diskMiB,
      } = body as Record<string, number> & { image: string };
      await borrowGoldens(join(this.root, "snapshots"), { image, vcpus, memoryMiB, diskMiB });
    }
    // Not `fetch`, which gives up after five minutes: a golden snapshot of a guest whose kernel is interpreted can take longer.
    const asked = request(`${this.url}/api/v1${path}`, {
      ...{ method, agent: false },
      ...(body === undefined ? {} : { headers: { "content-type": "application/json" } }),
    });
    asked.end(body === undefined ? undefined : JSON.stringify(body));
    const [response] = (await once(asked, "response")) as [IncomingMessage];
    const answer = await text(response);
    let parsed: unknown = answer;
    try {
      parsed = JSON.parse(answer);
    } catch {}
    const status = response.statusCode ?? 0;
    if (method === "DELETE" && status === 200) await this.#removed(/^\/sandboxes\/([^/]+)$/.exec(path)?.[1]);
    if (builds && status < 300) await lendGoldens(join(this.root, "snapshots"));
    return { status, body: parsed, headers: new Headers(response.headers as Record<string, string>) };
  }

  /** The answer comes before everything of it is removed, and tests look at what is left. */
  async #removed(id: string | undefined): Promise<void> {
    if (id === undefined) return;
    const child = this.#child;
    const runs = (): boolean => child?.exitCode === null && child.signalCode === null;
    while (runs() && (await isThere(join(this.root, "sandboxes", id)))) await delay(10);
  }

  /** Whether a command in the sandbox is answered within that time, well or not: nobody answers for a guest that stands still. */
  answers(id: string, withinMs: number): Promise<boolean> {
    const request = {
      ...{ method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ command: "true" }) },
      signal: AbortSignal.timeout(withinMs),
    };
    return fetch(`${this.url}/api/v1/sandboxes/${id}/exec`, request).then(
      () => true,
      () => false,
    );
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
    const homes = await readdir(this.root).catch(() => []);
    const left = await Promise.all([this.root, ...homes.map((name) => join(this.root, name))].map(processesIn));
    for (const pid of new Set(left.flat())) process.kill(pid, "SIGKILL");
    await rm(this.root, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}
