/** A context of the code interpreter: a process of the guest that keeps its state from one piece of code to the next. */
import type { Agent, Command } from "../../guest/agent.ts";
import { StacyError } from "../../host/error.ts";

/** What the driver tells (driver.py); anything else of a line goes to the client as it is. */
export interface DriverEvent {
  type: string;
  [field: string]: unknown;
}

export interface ContextOptions {
  id: string;
  cwd: string;
  user: string;
  env: Record<string, string>;
  /** Path of the driver in the guest. */
  driver: string;
}

const INTERRUPT = 2;
const KILL = 9;
/** One line: a picture in base64 and what belongs to it. */
const MAX_LINE = 64 << 20;
/** How long a piece of code may go on after its interruption. */
const GRACE_MS = 5_000;

export class Context {
  readonly id: string;
  readonly language = "python";
  readonly cwd: string;
  readonly #command: Command;
  readonly #events: AsyncGenerator<DriverEvent>;
  #turn: Promise<unknown> = Promise.resolve();
  #ended = false;

  private constructor(options: ContextOptions, command: Command) {
    this.id = options.id;
    this.cwd = options.cwd;
    this.#command = command;
    this.#events = lines(command);
  }

  /** @throws StacyError `not-supported` in an image without Python */
  static async start(agent: Agent, options: ContextOptions): Promise<Context> {
    const command = await agent
      .start({
        argv: ["python3", "-u", options.driver],
        cwd: options.cwd,
        user: options.user,
        env: { PYTHONIOENCODING: "utf-8", ...options.env },
        stdin: true,
      })
      .catch((cause) => {
        if (!(cause instanceof StacyError) || cause.code !== "not-found") throw cause;
        throw new StacyError("not-supported", "the sandbox's image has no python3", { cause });
      });
    const context = new Context(options, command);
    const { value } = await context.#events.next();
    if (value?.type !== "ready") throw new StacyError("unavailable", "the interpreter did not start");
    return context;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /**
   * What a piece of code does, as it comes; pieces run one after another. A reader that goes away interrupts it.
   * @throws StacyError `unavailable` when the process ends
   */
  async *run(code: string, env: Record<string, string>, signal: AbortSignal): AsyncGenerator<DriverEvent> {
    const before = this.#turn;
    const turn = Promise.withResolvers<void>();
    this.#turn = turn.promise;
    await before;
    let open = true;
    const interrupt = (): void => void this.#command.kill(INTERRUPT).catch(() => {});
    try {
      if (signal.aborted) return;
      signal.addEventListener("abort", interrupt, { once: true });
      await this.#command.write(Buffer.from(`${JSON.stringify({ code, env })}\n`));
      for (;;) {
        const event = await this.#next();
        if (event.type === "end") open = false;
        yield event;
        if (!open) return;
      }
    } finally {
      signal.removeEventListener("abort", interrupt);
      if (open && !this.#ended) await this.#stop();
      turn.resolve();
    }
  }

  /** The client is gone in the middle of it: interrupted, and what it still tells is read, so that the next piece begins anew. */
  async #stop(): Promise<void> {
    await this.#command.kill(INTERRUPT).catch(() => {});
    const limit = setTimeout(() => void this.close(), GRACE_MS);
    try {
      while ((await this.#next()).type !== "end");
    } catch {
      // It has ended, and the next use is told so.
    } finally {
      clearTimeout(limit);
    }
  }

  async #next(): Promise<DriverEvent> {
    const { value, done } = await this.#events.next();
    if (done !== true) return value;
    this.#ended = true;
    throw new StacyError("unavailable", "the interpreter's process has ended", { remedy: "restart the context" });
  }

  async close(): Promise<void> {
    this.#ended = true;
    await this.#command.kill(KILL).catch(() => {});
  }
}

async function* lines(command: Command): AsyncGenerator<DriverEvent> {
  let parts: Buffer[] = [];
  let length = 0;
  for await (const event of command.output()) {
    if (event.type !== "stdout") continue;
    let { data } = event;
    for (let end = data.indexOf(10); end !== -1; end = data.indexOf(10)) {
      parts.push(data.subarray(0, end));
      yield parse(Buffer.concat(parts));
      data = data.subarray(end + 1);
      parts = [];
      length = 0;
    }
    length += data.length;
    if (length > MAX_LINE) throw new StacyError("limit", "a result of the interpreter is too large");
    parts.push(data);
  }
}

/** The guest may write what it likes where the driver does. */
function parse(line: Buffer): DriverEvent {
  try {
    const value: unknown = JSON.parse(line.toString("utf8"));
    if (typeof value === "object" && value !== null && typeof (value as DriverEvent).type === "string") {
      return value as DriverEvent;
    }
  } catch {}
  throw new StacyError("protocol", "the interpreter does not speak its protocol");
}
