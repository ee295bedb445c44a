/**
 * QEMU's monitor protocol: one JSON object per line. The server greets, and takes commands after `qmp_capabilities`.
 * Commands are answered in order; events come in between. (QEMU, docs/interop/qmp-spec.rst)
 */
import type { Socket } from "node:net";
import { GUEST_BOUNDS, MONITOR_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import { turns } from "../../host/turns.ts";

interface Waiting {
  command: string;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export interface QmpEvent {
  event: string;
  data: Record<string, unknown>;
}

/** What one line says. The greeting says nothing to us. */
export type QmpMessage = QmpEvent | { return: unknown } | { refused: string; kind: string | undefined } | "greeting";

/** @throws StacyError `protocol` for what QEMU does not send */
export function parseLine(line: string): QmpMessage {
  const message = asRecord(parsed(line));
  if (message === undefined) throw new StacyError("protocol", "QEMU's monitor said what is no message");
  if (typeof message.event === "string") return { event: message.event, data: asRecord(message.data) ?? {} };
  if ("return" in message) return { return: message.return };
  if (!("error" in message)) return "greeting";
  const { class: kind, desc } = asRecord(message.error) ?? {};
  return {
    refused: typeof desc === "string" ? desc.slice(0, MONITOR_BOUNDS.errorBytes) : "no reason given",
    kind: typeof kind === "string" ? kind : undefined,
  };
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function asRecord(value: unknown): Record<string, unknown> | undefined {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
}

export interface WaitOptions {
  /** ms */
  timeoutMs?: number;
  signal?: AbortSignal;
}

/** QEMU answers at once; on a loaded host, in seconds. A stopped one never. */
const ANSWER_LIMIT_MS = 20_000;

export class Qmp {
  readonly #socket: Socket;
  readonly #waiting: Waiting[] = [];
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  /** Settles at once when the connection is gone. Never rejects. */
  readonly closed: Promise<void>;
  /** Settles with the reason, a moment after `closed`: it is what the commands under way fail with. Never rejects. */
  readonly lost: Promise<StacyError>;
  #buffer = "";
  #open = true;
  /** Commands and waits under way: while there is one, the connection keeps our process alive. */
  #pending = 0;

  /**
   * @param socket connected; the greeting is still to come
   * @param why asked once, when the connection is gone
   */
  constructor(socket: Socket, why: () => Promise<StacyError>) {
    this.#socket = socket;
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => this.#receive(text));
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        this.#open = false;
        resolve();
      });
    });
    this.lost = this.closed.then(why);
    void this.lost.then((error) => {
      for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
    });
    // An idle monitor must not keep our process alive.
    socket.unref();
  }

  get open(): boolean {
    return this.#open;
  }

  /**
   * One that is given up is not taken back: QEMU carries it out when it reads it, before whatever is asked for later. One that is not
   * answered in its time is the last over this connection: the next one may be heard over a new one.
   * @throws StacyError `internal` with QEMU's words, `timeout`, `machine-exited`, or the signal's reason
   */
  execute<T = unknown>(command: string, args?: Record<string, unknown>, options: WaitOptions = {}): Promise<T> {
    if (!this.#open) {
      return Promise.reject(new StacyError("machine-exited", `QEMU is gone, so ${command} was not sent`));
    }
    // Answers are told apart by their order, so one that nobody waits for any longer keeps its place.
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#waiting.push({ command, resolve, reject });
    });
    this.#socket.write(
      `${JSON.stringify(args === undefined ? { execute: command } : { execute: command, arguments: args })}\n`,
    );
    return this.bounded(answer as Promise<T>, command, options, () => this.close());
  }

  /** Waits for what comes over this connection, which keeps our process alive meanwhile. @param doing for the error */
  async bounded<T>(
    work: Promise<T>,
    doing: string,
    { timeoutMs = ANSWER_LIMIT_MS, signal }: WaitOptions,
    late = (): void => {},
  ): Promise<T> {
    const { promise: given, reject: giveUp } = Promise.withResolvers<never>();
    const abort = (): void => giveUp(signal?.reason);
    const timer = setTimeout(() => {
      giveUp(new StacyError("timeout", `QEMU did not answer ${doing} within ${timeoutMs} ms`));
      late();
    }, timeoutMs);
    signal?.addEventListener("abort", abort, { once: true });
    if (signal?.aborted === true) abort();
    this.#hold();
    try {
      return await Promise.race([work, given]);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      this.#letGo();
    }
  }

  /** Follows events until `work` settles; the connection keeps our process alive meanwhile. */
  async following<T>(listener: (event: QmpEvent) => void, work: () => Promise<T>): Promise<T> {
    this.#hold();
    const off = this.onEvent(listener);
    try {
      return await work();
    } finally {
      off();
      this.#letGo();
    }
  }

  #hold(): void {
    this.#pending += 1;
    this.#socket.ref();
  }

  #letGo(): void {
    this.#pending -= 1;
    if (this.#pending === 0) this.#socket.unref();
  }

  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  close(): void {
    this.#open = false; // at once: whoever goes on after an error must not write to it
    this.#socket.destroy();
  }

  /** A QEMU that its guest has taken over says whatever that likes: it is worked on in turns, as frames of guests are. */
  #receive(text: string): void {
    this.#buffer += text;
    if (!this.#turn()) return;
    this.#socket.pause();
    turns.add(() => {
      if (this.#turn()) return true;
      if (this.#open) this.#socket.resume();
      return false;
    });
  }

  /** @returns whether lines are left */
  #turn(): boolean {
    const until = performance.now() + GUEST_BOUNDS.turnMs;
    let at = 0;
    let late = false;
    while (this.#open && !late) {
      const end = this.#buffer.indexOf("\n", at);
      if (end < 0) break;
      const line = this.#buffer.slice(at, end);
      at = end + 1;
      if (line.trim() !== "") this.#line(line);
      late = performance.now() >= until;
    }
    this.#buffer = this.#open ? this.#buffer.slice(at) : "";
    // QEMU's lines are small; so much without an end is not QEMU's.
    if (!late && this.#buffer.length > MONITOR_BOUNDS.answerBytes) this.close();
    return late;
  }

  #line(line: string): void {
    let message: QmpMessage;
    try {
      message = parseLine(line);
    } catch {
      this.close();
      return;
    }
    if (message === "greeting") return;
    if ("event" in message) {
      for (const listener of [...this.#listeners]) listener(message);
      return;
    }
    const waiting = this.#waiting.shift();
    if (waiting === undefined) return;
    if ("return" in message) waiting.resolve(message.return);
    else {
      waiting.reject(
        new StacyError("internal", `QEMU refused ${waiting.command}: ${message.refused}`, {
          data: { class: message.kind },
        }),
      );
    }
  }
}
