/**
 * A server for your own tests, in memory: no machine, no socket. The real SDK runs on top of it, so requests, replies and errors
 * are checked as usual. Commands do what you say; files, states, templates and checkpoints work.
 *
 *     const mock = new MockServer({ exec: (command) => ({ stdout: `ran ${command}` }) });
 *     await using sandbox = await mock.client().create();
 */
import { bytesOf, toBase64 } from "./base64.ts";
import { Client } from "./client.ts";
import type { Payload, WebSocketConstructor, WebSocketLike } from "./transport.ts";

export interface MockExec {
  /** As one line; a list of arguments is joined by spaces. */
  command: string;
  sandbox: string;
  stdin: string;
  env: Record<string, string>;
  /** The sandbox's files, by path; a command may read and change them. */
  files: Map<string, Uint8Array>;
}

export interface MockResult {
  stdout?: string;
  stderr?: string;
  exitCode?: number;
}

export interface MockOptions {
  /** What a command does. Default: it ends with 0 and says nothing. */
  exec?: (command: string, call: MockExec) => MockResult | Promise<MockResult>;
  /** Answer with this error instead, when the function gives one. */
  fail?: (
    method: string,
    path: string,
  ) => { status: number; code: string; message: string; remedy?: string } | undefined;
}

interface MockSandbox {
  info: Record<string, unknown>;
  files: Map<string, Uint8Array>;
}

type Answer = { status?: number; body?: unknown; bytes?: Uint8Array; type?: string };

class Refusal extends Error {
  readonly status: number;
  readonly code: string;
  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export class MockServer {
  /** Every request: `POST /sandboxes`. */
  readonly requests: string[] = [];
  readonly #options: MockOptions;
  readonly #sandboxes = new Map<string, MockSandbox>();
  readonly #checkpoints = new Map<string, { info: Record<string, unknown>; files: Map<string, Uint8Array> }>();
  readonly #templates = new Map<string, Record<string, unknown>>();
  #count = 0;

  constructor(options: MockOptions = {}) {
    this.#options = options;
  }

  /** A client of this server; pass it where yours takes one. */
  client(): Client {
    return new Client({ url: "http://mock.invalid", fetch: this.fetch, webSocket: this.webSocket, retries: 0 });
  }

  /** Sandboxes that exist: nothing should be left at the end of a test. */
  get sandboxes(): string[] {
    return [...this.#sandboxes.keys()];
  }

  readonly fetch: typeof fetch = async (input, init = {}) => {
    init.signal?.throwIfAborted();
    const url = new URL(String(input instanceof Request ? input.url : input));
    const method = init.method ?? "GET";
    const path = url.pathname.replace(/^\/api\/v1/, "");
    this.requests.push(`${method} ${path}`);
    const failure = this.#options.fail?.(method, path);
    if (failure !== undefined) {
      const { status, ...problem } = failure;
      return Response.json(problem, { status });
    }
    try {
      const raw = new Uint8Array(await new Response(init.body ?? null).arrayBuffer());
      const { status = 200, body, bytes, type } = await this.#route(method, path, url.searchParams, raw);
      if (bytes !== undefined)
        return new Response(bytes as Payload, { status, headers: { "content-type": type ?? "" } });
      return Response.json(body, { status });
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return Response.json({ code: error.code, message: error.message }, { status: error.status });
    }
  };

  async #route(method: string, path: string, query: URLSearchParams, raw: Uint8Array): Promise<Answer> {
    const parts = path.split("/").slice(1).map(decodeURIComponent);
    const json = (): Record<string, unknown> => (raw.length === 0 ? {} : JSON.parse(new TextDecoder().decode(raw)));
    const [group = "", id = "", action = "", below = ""] = parts;
    if (path === "/health") return { body: { status: "ok", version: "mock", uptime: "1s" } };
    if (group === "templates") return this.#template(method, id, action, json);
    if (group === "checkpoints") {
      if (id === "") return { body: [...this.#checkpoints.values()].map(({ info }) => info) };
      if (method === "DELETE") this.#checkpoints.delete(id);
      else return { body: found(this.#checkpoints.get(id), id).info };
      return { body: { status: "deleted" } };
    }
    if (path === "/run") return { body: await this.#once(json()) };
    if (group !== "sandboxes") throw new Refusal(501, "NOT_SUPPORTED", `the mock does not know ${method} ${path}`);
    if (id === "") {
      if (method === "POST") return { status: 201, body: this.#create(json()).info };
      if (method === "DELETE") return { body: { pruned: 0 } };
      return { body: [...this.#sandboxes.values()].map(({ info }) => info).reverse() };
    }
    if (action === "" && method === "DELETE") {
      this.#sandboxes.delete(this.#idOf(id));
      return { body: { status: "destroyed" } };
    }
    const sandbox = found(this.#sandboxes.get(this.#idOf(id)), id);
    switch (action) {
      case "":
        return { body: sandbox.info };
      case "exec":
        return this.#exec(String(sandbox.info.id), sandbox, json());
      case "files":
        return this.#file(method, below, sandbox.files, query, raw, json);
      case "pause":
      case "suspend":
      case "resume":
        sandbox.info.state = { pause: "paused", suspend: "suspended", resume: "running" }[action];
        return { body: sandbox.info };
      case "extend":
        return { body: sandbox.info };
      case "logs":
      case "processes":
      case "history":
        return { body: [] };
      case "stats":
        return { body: { supported: false } };
      case "network": {
        if (method === "PUT") {
          sandbox.info.allowed_hosts = json().allowed_hosts;
          return { body: sandbox.info };
        }
        const allowed_hosts = sandbox.info.allowed_hosts ?? [];
        return { body: { allowed_hosts, open: 0, connected: 0, refused: 0, failed: 0, sent: 0, received: 0 } };
      }
      case "fork": {
        const { count: asked = 1, name } = json();
        const count = Number(asked);
        const children = Array.from({ length: count }, () =>
          this.#create({ ...sandbox.info, name, forked_from: sandbox.info.id }, new Map(sandbox.files)),
        );
        return { status: 201, body: { sandboxes: children.map(({ info }) => info), stopped_ms: 1 } };
      }
      case "checkpoints": {
        if (method === "GET") {
          const all = [...this.#checkpoints.values()].map(({ info }) => info);
          return { body: all.filter((info) => info.sandbox_id === id) };
        }
        const { image, provider, memory_mb, vcpus, disk_mb, owner } = sandbox.info;
        const made = { sandbox_id: id, image, provider, memory_mb, vcpus, disk_mb, owner, name: json().name };
        const info = { id: this.#id("cp"), ...made, bytes: 0, created_at: new Date(0).toISOString(), stopped_ms: 1 };
        this.#checkpoints.set(info.id, { info, files: new Map(sandbox.files) });
        return { status: 201, body: info };
      }
      default:
        throw new Refusal(501, "NOT_SUPPORTED", `the mock does not know ${method} ${path}`);
    }
  }

  #id(kind: string): string {
    return `${kind}-${(++this.#count).toString(16).padStart(8, "0")}`;
  }

  #idOf(idOrName: string): string {
    const named = [...this.#sandboxes].find(([, { info }]) => info.name === idOrName);
    return named?.[0] ?? idOrName;
  }

  #create(request: Record<string, unknown>, files?: Map<string, Uint8Array>): MockSandbox {
    const { name } = request;
    if (typeof name === "string" && this.#idOf(name) !== name)
      throw new Refusal(409, "CONFLICT", `the name ${name} is that of sandbox ${this.#idOf(name)}`);
    const id = this.#id("sb");
    const origin = typeof request.checkpoint === "string" ? this.#checkpoints.get(request.checkpoint) : undefined;
    const now = Date.now();
    const info = {
      provider: "mock",
      image: "mock",
      memory_mb: 1024,
      vcpus: 1,
      disk_mb: 1024,
      metadata: {},
      preview_domain: "localhost",
      worker_id: "local",
      owner: "default",
      ...origin?.info,
      ...request,
      id,
      state: "running",
      created_at: new Date(now).toISOString(),
      expires_at: new Date(now + 1_800_000).toISOString(),
    };
    const sandbox = { info: info as Record<string, unknown>, files: files ?? new Map(origin?.files) };
    this.#sandboxes.set(id, sandbox);
    return sandbox;
  }

  async #run(id: string, sandbox: MockSandbox, request: Record<string, unknown>): Promise<Required<MockResult>> {
    if (sandbox.info.state !== "running") throw new Refusal(409, "CONFLICT", `sandbox ${id} is ${sandbox.info.state}`);
    const command = [request.command, ...((request.args as string[] | undefined) ?? [])].join(" ");
    const call = {
      command,
      sandbox: id,
      stdin: String(request.stdin ?? ""),
      env: (request.env ?? {}) as Record<string, string>,
      files: sandbox.files,
    };
    const { stdout = "", stderr = "", exitCode = 0 } = (await this.#options.exec?.(command, call)) ?? {};
    return { stdout, stderr, exitCode };
  }

  /** A sandbox of its own for one command. */
  async #once(request: Record<string, unknown>): Promise<object> {
    const { info, files } = this.#create(request);
    const id = String(info.id);
    try {
      for (const { path, content, encoding } of (request.files ?? []) as Record<string, string>[]) {
        if (path === undefined || content === undefined) continue;
        files.set(path, encoding === "base64" ? bytesOf(content) : new TextEncoder().encode(content));
      }
      const { stdout, stderr, exitCode } = await this.#run(id, { info, files }, request);
      const collected: Record<string, string> = {};
      const missing: string[] = [];
      for (const path of (request.collect ?? []) as string[]) {
        const data = files.get(path);
        if (data === undefined) missing.push(path);
        else collected[path] = toBase64(data);
      }
      return { exit_code: exitCode, stdout, stderr, duration: "1ms", sandbox_id: id, files: collected, missing };
    } finally {
      this.#sandboxes.delete(id);
    }
  }

  async #exec(id: string, sandbox: MockSandbox, request: Record<string, unknown>): Promise<Answer> {
    const { stdout, stderr, exitCode } = await this.#run(id, sandbox, request);
    if (request.stream !== true) return { body: { exit_code: exitCode, stdout, stderr, duration: "1ms" } };
    const lines = [
      { stream: "stdout", data: stdout },
      { stream: "stderr", data: stderr },
      { type: "exit", exit_code: exitCode, reason: "exited", data: "" },
    ];
    const text = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
    return { bytes: new TextEncoder().encode(text), type: "application/x-ndjson" };
  }

  #file(
    method: string,
    action: string,
    files: Map<string, Uint8Array>,
    query: URLSearchParams,
    raw: Uint8Array,
    json: () => Record<string, unknown>,
  ): Answer {
    const path = query.get("path") ?? "";
    const entry = (name: string): object => {
      const data = files.get(name);
      const directory = data === undefined;
      if (directory && ![...files.keys()].some((key) => key.startsWith(`${name.replace(/\/$/, "")}/`))) {
        throw new Refusal(404, "NOT_FOUND", `${name}: no such file or directory`);
      }
      return {
        path: name,
        name: name.split("/").at(-1) || "/",
        size: data?.length ?? 0,
        mode: directory ? "755" : "644",
        is_dir: directory,
        mod_time: new Date(0).toISOString(),
        mod_time_us: 0,
        kind: directory ? "directory" : "file",
        uid: 0,
        gid: 0,
      };
    };
    if (action === "" && method === "PUT") {
      const before = query.get("append") === "true" ? (files.get(path) ?? new Uint8Array()) : new Uint8Array();
      const all = new Uint8Array(before.length + raw.length);
      all.set(before);
      all.set(raw, before.length);
      files.set(path, all);
      return { body: { status: "written" } };
    }
    if (action === "" && method === "DELETE") {
      entry(path);
      for (const key of files.keys()) if (key === path || key.startsWith(`${path}/`)) files.delete(key);
      return { body: { status: "deleted" } };
    }
    if (action === "") return { bytes: found(files.get(path), path), type: "application/octet-stream" };
    if (action === "stat") return { body: entry(path) };
    if (action === "list") {
      const base = path === "/" ? "/" : `${path}/`;
      const names = [...files.keys()].filter((key) => key.startsWith(base));
      const children = new Set(names.map((key) => base + (key.slice(base.length).split("/")[0] ?? "")));
      return { body: [...children].sort().map(entry) };
    }
    if (action === "glob") {
      const escaped = (query.get("pattern") ?? "").replace(/[.+^${}()|[\]\\]/g, "\\$&");
      const pattern = new RegExp(`^${escaped.replaceAll("*", "[^/]*").replaceAll("?", "[^/]")}$`);
      return { body: [...files.keys()].filter((key) => pattern.test(key)).sort() };
    }
    if (action === "mkdir" || action === "chmod") return { body: { status: "done" } };
    if (action === "move" || action === "copy") {
      const { old_path, new_path } = json() as { old_path: string; new_path: string };
      entry(old_path);
      for (const [key, data] of [...files]) {
        if (key !== old_path && !key.startsWith(`${old_path}/`)) continue;
        files.set(new_path + key.slice(old_path.length), data);
        if (action === "move") files.delete(key);
      }
      return { body: { status: "done" } };
    }
    throw new Refusal(501, "NOT_SUPPORTED", `the mock does not know files/${action}`);
  }

  #template(method: string, name: string, action: string, json: () => Record<string, unknown>): Answer {
    if (action === "spawn") {
      const template = found(this.#templates.get(name), name);
      return { status: 201, body: this.#create({ ...json(), image: template.image, template: name }).info };
    }
    if (name === "" && method === "GET") return { body: [...this.#templates.values()] };
    if (method === "DELETE") {
      this.#templates.delete(name);
      return { body: { status: "deleted" } };
    }
    if (method === "GET") return { body: found(this.#templates.get(name), name) };
    const request = json();
    const own = name || String(request.name);
    if (method === "POST" && this.#templates.has(own)) throw new Refusal(409, "CONFLICT", `template ${own} exists`);
    const template = {
      version: 1,
      description: "",
      setup: [],
      allowed_hosts: [],
      memory_mb: 1024,
      cpu_cores: 1,
      vcpus: 1,
      ttl_seconds: 1800,
      ttl: "30m0s",
      env: {},
      secrets: [],
      pool_size: 0,
      provider: "",
      metadata: {},
      created_at: new Date(0).toISOString(),
      updated_at: new Date(0).toISOString(),
      ...request,
      name: own,
    };
    this.#templates.set(own, template);
    return { status: method === "POST" ? 201 : 200, body: template };
  }

  /** `spawn` and `shell`: the command runs when its input ends; what it says comes at once. */
  get webSocket(): WebSocketConstructor {
    const run = async (id: string, frame: Record<string, unknown>): Promise<Required<MockResult>> => {
      this.requests.push(`WS /sandboxes/${id}/exec/ws`);
      return this.#run(id, found(this.#sandboxes.get(id), id), frame);
    };
    return class MockSocket implements WebSocketLike {
      binaryType = "arraybuffer";
      readyState = 0;
      bufferedAmount = 0;
      onopen: ((event: never) => void) | null = null;
      onmessage: ((event: never) => void) | null = null;
      onclose: ((event: never) => void) | null = null;
      onerror: ((event: never) => void) | null = null;
      readonly #id: string;
      #start: Record<string, unknown> | undefined;
      #stdin = "";
      #done = false;

      constructor(url: string) {
        this.#id = /\/sandboxes\/([^/]+)\//.exec(url)?.[1] ?? "";
        queueMicrotask(() => {
          this.readyState = 1;
          this.onopen?.({} as never);
        });
      }

      send(data: string | Uint8Array): void {
        if (typeof data !== "string") {
          this.#stdin += new TextDecoder().decode(data);
          return;
        }
        const frame = JSON.parse(data) as Record<string, unknown>;
        if (frame.type === "start") {
          this.#start = frame;
          this.#text({ type: "started", process_id: "1", pid: 100 });
          // A terminal has no end of input: it runs at once.
          if (frame.pty === true) void this.#finish();
        } else if (frame.type === "stdin_close") void this.#finish();
        else if (frame.type === "signal") this.#exit(128 + 15, "signaled");
      }

      close(): void {
        if (this.readyState === 3) return;
        this.readyState = 3;
        queueMicrotask(() => this.onclose?.({} as never));
      }

      async #finish(): Promise<void> {
        try {
          const result = await run(this.#id, { ...this.#start, stdin: this.#stdin });
          for (const [kind, text] of [
            [1, result.stdout],
            [2, result.stderr],
          ] as const) {
            if (text === "") continue;
            const bytes = new TextEncoder().encode(text);
            const framed = new Uint8Array(bytes.length + 1);
            framed[0] = kind;
            framed.set(bytes, 1);
            this.onmessage?.({ data: framed.buffer } as never);
          }
          this.#exit(result.exitCode, "exited");
        } catch (error) {
          const { code = "INTERNAL_ERROR", message } = error as Refusal;
          this.#text({ type: "error", code, message });
        }
      }

      #exit(exitCode: number, reason: string): void {
        if (this.#done) return;
        this.#done = true;
        this.#text({ type: "exit", exit_code: exitCode, reason });
      }

      #text(frame: object): void {
        queueMicrotask(() => this.onmessage?.({ data: JSON.stringify(frame) } as never));
      }
    } as unknown as WebSocketConstructor;
  }
}

function found<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw new Refusal(404, "NOT_FOUND", `${name} is not there`);
  return value;
}
