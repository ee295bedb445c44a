/** One sandbox. `await using sandbox = await Sandbox.create({ image: "stacyvm/python" })` destroys it at the end of the block. */
import { bytesOf, textOf, toBase64 } from "./base64.ts";
import { CodeContexts, type CodeEvent, type CodeExecution, type CodeOptions, runCode, streamCode } from "./code.ts";
import { ExecError, errorOf, StacyError, statusOf } from "./errors.ts";
import { Files } from "./files.ts";
import type * as wire from "./generated.ts";
import { Port } from "./ports.ts";
import {
  type Command,
  type CommandOptions,
  commandFields,
  durationText,
  SandboxProcess,
  type SignalName,
  type SpawnOptions,
} from "./process.ts";
import { ndjson } from "./streams.ts";
import { type CallOptions, type ClientOptions, LONG, Transport } from "./transport.ts";

export type CreateOptions = wire.SpawnRequest & CallOptions;

export interface ExecOptions extends CommandOptions {
  stdin?: string | Uint8Array | undefined;
  /** Reject with `ExecError` when the exit code is not 0. */
  check?: boolean | undefined;
}

export interface ExecResult {
  exitCode: number;
  stdout: string;
  stderr: string;
  /** Number of the signal that ended it. */
  signal?: number | undefined;
  /** `out-of-memory`: it ended because the sandbox's memory had run out. */
  reason?: string | undefined;
  /** The server keeps a limited amount of output; `stream` and `spawn` have no such limit. */
  truncated: boolean;
  /** For example `12.3ms`. */
  duration: string;
}

/** A piece of output, and at last how the command ended. */
export type StreamEvent =
  | { type: "stdout" | "stderr"; text: string }
  | { type: "exit"; exitCode: number; signal?: number | undefined; reason: string };

export interface OutputOptions {
  /** Its number; default: the command that was last started to go on by itself (`start`). */
  process?: string | undefined;
  /** Go on with what comes, until the command has ended. */
  follow?: boolean | undefined;
  /** So many lines from the end of what is there; default: all that is kept, about 1 MiB of each command. */
  tail?: number | undefined;
  /** Say of each piece when it was written. */
  timestamps?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

/** A piece of what a command has written. */
export interface LogPiece {
  stream: "stdout" | "stderr";
  text: string;
  /** When it was written, ISO 8601. */
  time?: string | undefined;
}

export interface ForkOptions extends CallOptions {
  count?: number | undefined;
  /** Of a single copy; without it a copy has no name. */
  name?: string | undefined;
  ttl?: wire.Duration | undefined;
  metadata?: Record<string, string> | undefined;
  env?: Record<string, string> | undefined;
  /** What a copy gets of volumes that this one writes to; without it a clone of each. */
  volumes?: wire.ForkRequest["volumes"] | undefined;
  /** What a copy gets of directories of the host; without it, it reads them; `copy_on_write`: what it writes stays in it. */
  mounts?: wire.ForkRequest["mounts"] | undefined;
}

export interface CheckpointOptions extends CallOptions {
  /** Where it has volumes: a snapshot of each is saved with it (without this, too), or it is refused. */
  volumes?: wire.CheckpointRequest["volumes"] | undefined;
}

/** Which server: a `Client`, or how to reach it. */
export type Server = { readonly transport: Transport } | ClientOptions;

export class Sandbox implements AsyncDisposable {
  readonly id: string;
  readonly files: Files;
  /** What code runs in (`runCode`). */
  readonly contexts: CodeContexts;
  readonly #transport: Transport;
  #info: wire.Sandbox;

  /** Use `create`, `connect`, `list` or a `Client`. */
  constructor(transport: Transport, info: wire.Sandbox) {
    this.#transport = transport;
    this.#info = info;
    this.id = info.id;
    this.files = new Files(transport, info.id);
    this.contexts = new CodeContexts(transport, info.id);
  }

  /** A new sandbox that runs. */
  static async create(options: CreateOptions = {}, server: Server = {}): Promise<Sandbox> {
    const transport = transportTo(server);
    const { signal, timeoutMs, ...body } = options;
    return new Sandbox(
      transport,
      await transport.call("POST /sandboxes", { body, signal, timeoutMs: timeoutMs ?? LONG.timeoutMs }),
    );
  }

  /** A sandbox that is there, by its id or name. */
  static async connect(id: string, server: Server = {}, options: CallOptions = {}): Promise<Sandbox> {
    const transport = transportTo(server);
    return new Sandbox(transport, await transport.call("GET /sandboxes/{id}", { params: { id }, ...options }));
  }

  /** Newest first. */
  static async list(server: Server = {}, options: CallOptions = {}): Promise<Sandbox[]> {
    const transport = transportTo(server);
    return (await transport.call("GET /sandboxes", options)).map((info) => new Sandbox(transport, info));
  }

  /** As it was at the last answer; `refresh` asks again. */
  get info(): wire.Sandbox {
    return this.#info;
  }

  /** What its owner calls it. */
  get name(): string | undefined {
    return this.#info.name;
  }

  get state(): wire.Sandbox["state"] {
    return this.#info.state;
  }

  async refresh(options: CallOptions = {}): Promise<wire.Sandbox> {
    this.#info = await this.#transport.call("GET /sandboxes/{id}", { params: { id: this.id }, ...options });
    return this.#info;
  }

  /** Runs a command to its end. A non-zero exit code is no error, unless `check`. */
  async exec(command: Command, options: ExecOptions = {}): Promise<ExecResult> {
    const result = await this.#transport.call("POST /sandboxes/{id}/exec", {
      params: { id: this.id },
      body: { ...runFields(command, options), ...stdinFields(options.stdin) },
      ...LONG,
      signal: options.signal,
    });
    return checked(command, execResult(result), options.check);
  }

  /** Output as it comes, then the exit. Leaving the loop ends the command. */
  async *stream(command: Command, options: ExecOptions = {}): AsyncGenerator<StreamEvent> {
    const response = await this.#transport.open("POST /sandboxes/{id}/exec", {
      params: { id: this.id },
      body: {
        ...runFields(command, options),
        stdin: typeof options.stdin === "string" ? options.stdin : undefined,
        stream: true,
      },
      ...LONG,
      signal: options.signal,
    });
    let exit: StreamEvent | undefined;
    for await (const line of ndjson(response.body)) {
      if (line.type === "exit") {
        exit = {
          type: "exit",
          exitCode: Number(line.exit_code),
          reason: String(line.reason),
          ...(typeof line.signal === "number" ? { signal: line.signal } : {}),
        };
      } else if (line.type === "error") {
        throw errorOf(statusOf(String(line.code)), line);
      } else if (line.stream === "stdout" || line.stream === "stderr") {
        if (line.data !== "" && line.type !== "lost") yield { type: line.stream, text: String(line.data) };
      }
    }
    if (exit === undefined) throw new StacyError("CONNECTION", "the stream ended before the command did");
    yield exit;
  }

  /** Runs code that keeps its state from one call to the next. What fails in the code is in `error`, and no error of the call. */
  runCode(code: string, options: CodeOptions = {}): Promise<CodeExecution> {
    return runCode(this.streamCode(code, options));
  }

  /** The same as it comes. Leaving the loop interrupts the code. */
  streamCode(code: string, options: CodeOptions = {}): AsyncGenerator<CodeEvent> {
    return streamCode(this.#transport, this.id, code, options);
  }

  /** Starts a command with stdin, signals and, if asked for, a terminal. */
  spawn(command: Command, options: SpawnOptions = {}): Promise<SandboxProcess> {
    return SandboxProcess.open(this.#transport, this.id, { command, options }, options.signal);
  }

  /** The user's shell in a terminal. */
  shell(options: SpawnOptions = {}): Promise<SandboxProcess> {
    const pty = options.pty || { rows: 24, cols: 80 };
    return SandboxProcess.open(
      this.#transport,
      this.id,
      { command: undefined, options: { ...options, pty } },
      options.signal,
    );
  }

  /** Starts a command that goes on without a connection; with `stdin` it can be written to later. @returns its id, for `attach` */
  async start(
    command: Command,
    options: CommandOptions & { pty?: { rows: number; cols: number }; stdin?: boolean } = {},
  ): Promise<string> {
    const { signal, pty, stdin } = options;
    const started = await this.#transport.call("POST /sandboxes/{id}/processes", {
      params: { id: this.id },
      body: { ...runFields(command, options), pty, stdin },
      signal,
    });
    return started.id;
  }

  /** What a command has written, kept over pause, suspend, fork and restarts of the server. Leaving the loop leaves the command. */
  async *output(options: OutputOptions = {}): AsyncGenerator<LogPiece> {
    const { process = "main", follow = false, tail, timestamps, signal } = options;
    const response = await this.#transport.open("GET /sandboxes/{id}/processes/{process}/output", {
      params: { id: this.id, process },
      query: { follow: String(follow), tail, timestamps },
      ...LONG,
      signal,
    });
    for await (const line of ndjson(response.body)) {
      if (line.type === "error") throw errorOf(statusOf(String(line.code)), line);
      if (line.type !== undefined) continue;
      const time = typeof line.time === "string" ? { time: line.time } : {};
      yield { stream: line.stream === "stderr" ? "stderr" : "stdout", text: String(line.data), ...time };
    }
  }

  /** Connects to a command that runs: recent output first. */
  attach(process: string, signal?: AbortSignal): Promise<SandboxProcess> {
    return SandboxProcess.open(this.#transport, this.id, { attach: process }, signal);
  }

  processes(options: CallOptions = {}): Promise<wire.Process[]> {
    return this.#transport.call("GET /sandboxes/{id}/processes", { params: { id: this.id }, ...options });
  }

  async kill(process: string, signal: SignalName = "SIGTERM", options: CallOptions = {}): Promise<void> {
    await this.#transport.call("POST /sandboxes/{id}/processes/{process}/signal", {
      params: { id: this.id, process },
      body: { signal: String(signal) },
      ...options,
    });
  }

  /** A port of the guest. */
  port(port: number): Port {
    return new Port(this.#transport, this.id, port, this.#info.previewDomain);
  }

  /** Hosts that it may connect to, and how that went so far. */
  network(options: CallOptions = {}): Promise<wire.SandboxNetwork> {
    return this.#transport.call("GET /sandboxes/{id}/network", { params: { id: this.id }, ...options });
  }

  /** Other hosts that it may connect to, also for connections that are open; none: `[]`. */
  async allow(allowedHosts: string[], options: CallOptions = {}): Promise<wire.Sandbox> {
    this.#info = await this.#transport.call("PUT /sandboxes/{id}/network", {
      params: { id: this.id },
      body: { allowedHosts },
      ...options,
    });
    return this.#info;
  }

  /** Stops its processors; memory stays. */
  pause(options: CallOptions = {}): Promise<wire.Sandbox> {
    return this.#change("POST /sandboxes/{id}/pause", options);
  }

  /** Saves it to disk and frees its memory. */
  suspend(options: CallOptions = {}): Promise<wire.Sandbox> {
    return this.#change("POST /sandboxes/{id}/suspend", options);
  }

  /** From a pause or from disk. */
  resume(options: CallOptions = {}): Promise<wire.Sandbox> {
    return this.#change("POST /sandboxes/{id}/resume", options);
  }

  /** Has it go on at another node of the fleet; by administrators. @param options.to name or id of that; default: where it fits best */
  move({ to, ...options }: CallOptions & { to?: string } = {}): Promise<wire.MovedSandbox> {
    const body = to === undefined ? {} : { to };
    return this.#transport.call("POST /sandboxes/{id}/move", { params: { id: this.id }, body, ...LONG, ...options });
  }

  async #change(
    key: "POST /sandboxes/{id}/pause" | "POST /sandboxes/{id}/suspend" | "POST /sandboxes/{id}/resume",
    options: CallOptions,
  ): Promise<wire.Sandbox> {
    this.#info = await this.#transport.call(key, { params: { id: this.id }, ...LONG, ...options });
    return this.#info;
  }

  /** New expiry: now and this time. */
  async extend(ttl: wire.Duration, options: CallOptions = {}): Promise<wire.Sandbox> {
    const body = { ttl: durationText(ttl) ?? "" };
    this.#info = await this.#transport.call("POST /sandboxes/{id}/extend", {
      params: { id: this.id },
      body,
      ...options,
    });
    return this.#info;
  }

  /** A volume, by name, at `path` from now on: in a free place of its machine (`volumeSlots` of its start). */
  async attachVolume(
    name: string,
    path: string,
    options: CallOptions & { readOnly?: boolean | undefined } = {},
  ): Promise<wire.Sandbox> {
    const { readOnly, ...call } = options;
    this.#info = await this.#transport.call("POST /sandboxes/{id}/volumes", {
      params: { id: this.id },
      body: { name, path, readOnly },
      ...LONG,
      ...call,
    });
    return this.#info;
  }

  /** While no program holds it; with `force` they lose it, and its place cannot be used again. */
  async detachVolume(name: string, options: CallOptions & { force?: boolean | undefined } = {}): Promise<wire.Sandbox> {
    const { force = false, ...call } = options;
    this.#info = await this.#transport.call("DELETE /sandboxes/{id}/volumes/{name}", {
      params: { id: this.id, name },
      query: { force: String(force) },
      ...LONG,
      ...call,
    });
    return this.#info;
  }

  /** Copies of it, memory and running programs included; each is its own from then on. */
  async fork(options: ForkOptions = {}): Promise<Sandbox[]> {
    const { signal, timeoutMs, ...body } = options;
    const result = await this.#transport.call("POST /sandboxes/{id}/fork", {
      params: { id: this.id },
      body,
      ...LONG,
      signal,
      ...(timeoutMs === undefined ? {} : { timeoutMs }),
    });
    return result.sandboxes.map((info) => new Sandbox(this.#transport, info));
  }

  /** Saves it as it is; it goes on. `Sandbox.create({ checkpoint: id })` starts from there. */
  checkpoint(name?: string, options: CheckpointOptions = {}): Promise<wire.Checkpoint> {
    const { volumes, ...call } = options;
    return this.#transport.call("POST /sandboxes/{id}/checkpoints", {
      params: { id: this.id },
      body: { name, volumes },
      ...LONG,
      ...call,
    });
  }

  checkpoints(options: CallOptions = {}): Promise<wire.Checkpoint[]> {
    return this.#transport.call("GET /sandboxes/{id}/checkpoints", { params: { id: this.id }, ...options });
  }

  /** Goes back to one of its checkpoints, in place. What came after it is gone. */
  async restore(checkpoint: string, options: CallOptions = {}): Promise<wire.Sandbox> {
    this.#info = await this.#transport.call("POST /sandboxes/{id}/restore", {
      params: { id: this.id },
      body: { checkpoint },
      ...LONG,
      ...options,
    });
    return this.#info;
  }

  /** The last lines of its console. */
  logs(lines = 100, options: CallOptions = {}): Promise<string[]> {
    return this.#transport.call("GET /sandboxes/{id}/logs", { params: { id: this.id }, query: { lines }, ...options });
  }

  stats(options: CallOptions = {}): Promise<wire.SandboxStats> {
    return this.#transport.call("GET /sandboxes/{id}/stats", { params: { id: this.id }, ...options });
  }

  /** Commands that ran, newest first. */
  history(limit = 100, options: CallOptions = {}): Promise<wire.ExecRecord[]> {
    return this.#transport.call("GET /sandboxes/{id}/history", {
      params: { id: this.id },
      query: { limit },
      ...options,
    });
  }

  /** Ends it and removes everything of it. Again is no error. */
  async destroy(options: CallOptions = {}): Promise<void> {
    await this.#transport.call("DELETE /sandboxes/{id}", { params: { id: this.id }, ...options });
    this.#info = { ...this.#info, state: "destroyed" };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.destroy();
  }
}

function transportTo(server: Server): Transport {
  return "transport" in server ? server.transport : new Transport(server);
}

export function execResult(result: wire.ExecResult): ExecResult {
  const text = (value: string): string => (result.encoding === "base64" ? textOf(bytesOf(value)) : value);
  return {
    exitCode: result.exitCode,
    stdout: text(result.stdout),
    stderr: text(result.stderr),
    truncated: result.truncated === true,
    duration: result.duration,
    ...(result.signal === undefined ? {} : { signal: result.signal }),
    ...(result.reason === undefined ? {} : { reason: result.reason }),
  };
}

/** @throws ExecError when an exit code other than 0 is an error (`check`) */
export function checked<R extends ExecResult>(command: Command, result: R, check: boolean | undefined): R {
  if (check !== true || result.exitCode === 0) return result;
  throw new ExecError(typeof command === "string" ? command : command.join(" "), result);
}

/** What a request says of a command, whether its output is collected or streamed. */
export function runFields(command: Command, { env, workdir, user, timeout, stopSignal }: CommandOptions) {
  return { ...commandFields(command), env, workdir, user, timeout, stopSignal: stopSignal?.toString() };
}

/** What a request says of all that a command reads. */
export function stdinFields(stdin: string | Uint8Array | undefined) {
  return typeof stdin === "object" ? { stdin: toBase64(stdin), encoding: "base64" as const } : { stdin };
}
