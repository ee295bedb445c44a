/** A command that runs: its output as it comes, its stdin, signals, terminal size, and how it ended. */
import { ConnectionError, errorOf, StacyError, statusOf } from "./errors.ts";
import type { Duration } from "./generated.ts";
import { Channel } from "./streams.ts";
import type { Transport, WebSocketLike } from "./transport.ts";

/** Text for the shell, or a program and its arguments. */
export type Command = string | readonly string[];

export interface CommandOptions {
  env?: Record<string, string> | undefined;
  /** Default: the image's, else `/workspace`. */
  workdir?: string | undefined;
  user?: string | undefined;
  /** Ends the command after this time. */
  timeout?: Duration | undefined;
  /** What asks it to end then, before it is killed two seconds later. Default: `SIGTERM`. */
  stopSignal?: SignalName | undefined;
  signal?: AbortSignal | undefined;
}

export interface SpawnOptions extends CommandOptions {
  /** A terminal of this size. Output then comes as stdout only. */
  pty?: { rows: number; cols: number; term?: string } | boolean | undefined;
  /** `false`: standard input is at its end from the beginning. */
  stdin?: boolean | undefined;
}

export interface OutputChunk {
  stream: "stdout" | "stderr";
  data: Uint8Array;
}

export interface ExitStatus {
  /** The command's own; 128 + n when signal n ended it. */
  exitCode: number;
  signal?: number | undefined;
  /** Why it ended: `exited`, `signaled`, `timeout`, `cancelled`, ... */
  reason: string;
}

export type SignalName = `SIG${string}` | number;

/** How a command is named in requests: text goes to the shell, a list is executed as it is. */
export function commandFields(command: Command): { command: string; args?: string[]; mode?: string } {
  if (typeof command === "string") return { command };
  const [program = "", ...args] = command;
  return { command: program, args, mode: "argv" };
}

export function durationText(value: Duration | undefined): string | undefined {
  return typeof value === "number" ? `${value}ms` : value;
}

/** What a spawned command is started with, or the id of one to attach to. */
export type ProcessStart = { command: Command | undefined; options: SpawnOptions } | { attach: string };

const HIGH_WATER = 1 << 20;
const OPEN = 1;

export class SandboxProcess implements AsyncIterable<OutputChunk>, AsyncDisposable {
  readonly id: string;
  /** In the guest. */
  readonly pid: number;
  readonly #socket: WebSocketLike;
  readonly #output: Channel<OutputChunk>;
  readonly #exit = Promise.withResolvers<ExitStatus>();
  #reading = false;

  private constructor(
    socket: WebSocketLike,
    started: { process_id: string; pid: number },
    output: Channel<OutputChunk>,
  ) {
    this.id = started.process_id;
    this.pid = started.pid;
    this.#socket = socket;
    this.#output = output;
    this.#exit.promise.catch(() => {}); // also when nobody waits
  }

  static async open(
    transport: Transport,
    sandbox: string,
    start: ProcessStart,
    signal?: AbortSignal,
  ): Promise<SandboxProcess> {
    const socket = await transport.socket("/sandboxes/{id}/exec/ws", { id: sandbox }, signal);
    const output = new Channel<OutputChunk>({
      pause: () => socket.readyState === OPEN && socket.pause?.(),
      resume: () => socket.readyState === OPEN && socket.resume?.(),
    });
    const began = Promise.withResolvers<SandboxProcess>();
    let process: SandboxProcess | undefined;
    const fail = (error: StacyError): void => {
      began.reject(error);
      if (process !== undefined) process.#exit.reject(error);
      output.end(error);
    };
    socket.onmessage = ((event: { data: string | ArrayBuffer }) => {
      if (typeof event.data !== "string") {
        const bytes = new Uint8Array(event.data);
        output.push({ stream: bytes[0] === 2 ? "stderr" : "stdout", data: bytes.subarray(1) });
        return;
      }
      const message = JSON.parse(event.data) as Record<string, unknown>;
      if (message.type === "started") {
        process = new SandboxProcess(socket, message as never, output);
        began.resolve(process);
      } else if (message.type === "exit") {
        output.end();
        if (process === undefined) return;
        process.#exit.resolve({
          exitCode: Number(message.exit_code),
          ...(typeof message.signal === "number" ? { signal: message.signal } : {}),
          reason: String(message.reason ?? "exited"),
        });
      } else if (message.type === "error") fail(errorOf(statusOf(String(message.code)), message));
    }) as never;
    socket.onclose = (() =>
      fail(new ConnectionError("CONNECTION", "the connection to the command broke off"))) as never;
    socket.onerror = (() => {}) as never; // `close` follows
    const abort = (): void => {
      fail(new StacyError("CANCELLED", "cancelled", { cause: signal?.reason }));
      socket.close();
    };
    signal?.addEventListener("abort", abort, { once: true });
    socket.send(JSON.stringify(firstFrame(start)));
    if ("options" in start && start.options.stdin === false) socket.send(JSON.stringify({ type: "stdin_close" }));
    const result = await began.promise.catch((error: unknown) => {
      socket.close();
      throw error;
    });
    const done = (): void => {
      signal?.removeEventListener("abort", abort);
      if (socket.readyState === OPEN) socket.close(1000);
    };
    result.#exit.promise.then(done, done);
    return result;
  }

  /** How it ends; rejects when the connection breaks. It settles only while somebody reads the output, or after `wait`. */
  get exited(): Promise<ExitStatus> {
    return this.#exit.promise;
  }

  /** Output of both streams in the order in which it came. Read it by one loop only. */
  [Symbol.asyncIterator](): AsyncGenerator<OutputChunk> {
    this.#reading = true;
    return this.#output[Symbol.asyncIterator]();
  }

  /** Output as text, piece by piece; characters that are cut between pieces stay whole. */
  async *text(stream?: "stdout" | "stderr"): AsyncGenerator<string> {
    const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
    for await (const chunk of this) {
      if (stream !== undefined && chunk.stream !== stream) continue;
      const text = decoders[chunk.stream].decode(chunk.data, { stream: true });
      if (text !== "") yield text;
    }
  }

  /** How it ended. Output that nobody reads is dropped meanwhile. */
  async wait(): Promise<ExitStatus> {
    if (!this.#reading) for await (const _ of this);
    return this.#exit.promise;
  }

  /** Waits when the command takes its input slowly. */
  async write(data: string | Uint8Array): Promise<void> {
    this.#assertOpen();
    this.#socket.send(typeof data === "string" ? new TextEncoder().encode(data) : data);
    while (this.#socket.bufferedAmount > HIGH_WATER && this.#socket.readyState === OPEN) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** The end of its standard input. */
  closeStdin(): void {
    this.#send({ type: "stdin_close" });
  }

  /** A signal to its process group, for example `SIGINT`. */
  kill(signal: SignalName = "SIGTERM"): void {
    this.#send({ type: "signal", signal });
  }

  resize(rows: number, cols: number): void {
    this.#send({ type: "resize", rows, cols });
  }

  /** Lets go of it: it runs on, and `sandbox.attach(id)` comes back to it. */
  detach(): void {
    this.#send({ type: "detach" });
  }

  /** Ends it if it still runs. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#socket.readyState === OPEN) this.#socket.close();
    await this.#exit.promise.catch(() => {});
  }

  #send(frame: unknown): void {
    if (this.#socket.readyState === OPEN) this.#socket.send(JSON.stringify(frame));
  }

  #assertOpen(): void {
    if (this.#socket.readyState !== OPEN) throw new StacyError("CONFLICT", `process ${this.id} has ended`);
  }
}

function firstFrame(start: ProcessStart): object {
  if ("attach" in start) return { type: "attach", process_id: start.attach, binary: true };
  const { command, options } = start;
  const { pty } = options;
  return {
    type: "start",
    ...(command === undefined ? {} : commandFields(command)),
    env: options.env,
    workdir: options.workdir,
    user: options.user,
    timeout: durationText(options.timeout),
    stop_signal: options.stopSignal,
    binary: true,
    pty: pty !== undefined && pty !== false,
    ...(typeof pty === "object" ? pty : {}),
  };
}
