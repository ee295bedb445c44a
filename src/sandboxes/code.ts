/** The code interpreter of sandboxes: limits of time, history, events and measures are those of commands. */
import { setTimeout as sleep } from "node:timers/promises";
import type { CollectedOutput } from "../guest/output-budget.ts";
import { StacyError } from "../host/error.ts";
import type { Context, ContextInfo, ContextOptions } from "../interpreter/context.ts";
import { Contexts, type InterpreterGuest, type NewContext } from "../interpreter/contexts.ts";
import { type Language, languageOf } from "../interpreter/language.ts";
import type { CodeEvent } from "../interpreter/wire.ts";
import { type Executions, timeoutError } from "./executions.ts";
import type { Lease } from "./sandbox.ts";

export interface CodeRequest {
  code: string;
  /** Its id; absent: the default one of the language. */
  context?: string;
  /** Default: Python. */
  language?: string;
  /** For this piece alone. */
  env: Record<string, string>;
  /** ms; absent: the default. */
  timeoutMs?: number;
  /** What the default context begins with, if it has to be started. */
  begin?: Pick<ContextOptions, "cwd" | "user" | "env">;
}

export interface ContextRequest extends Pick<NewContext, "cwd" | "user" | "env"> {
  language?: string;
}

export class CodeRuns {
  readonly #contexts = new Contexts();
  readonly #executions: Executions;

  constructor(executions: Executions) {
    this.#executions = executions;
  }

  /**
   * Resolves when its context is there, with what the code does as it comes; the last event is `end`. Aborting interrupts it; the
   * context stays. The generator has to be read, or returned.
   * @throws StacyError `timeout`, `not-supported` (a language that is unknown, or that the image has nothing for), `not-found` (context),
   * `unavailable` (its process has ended)
   */
  async run(lease: Lease, request: CodeRequest, signal: AbortSignal): Promise<AsyncGenerator<CodeEvent>> {
    const { context: id, begin = {} } = request;
    if (id !== undefined && request.language !== undefined) {
      throw new StacyError("invalid", "a context has its language: name one of the two");
    }
    const timeoutMs = this.#executions.timeoutOf(lease, request.timeoutMs, false);
    const guest = guestOf(lease);
    const language = languageOf(request.language);
    const context = await (id === undefined
      ? this.#contexts.default(guest, { ...begin, language })
      : this.#contexts.get(guest, id));
    return this.#follow(lease, context, request, timeoutMs, signal);
  }

  /** Memory for the events of a call that is answered when all of them have come. */
  collecting(lease: Lease): CollectedOutput {
    return this.#executions.collecting(lease);
  }

  async *#follow(
    lease: Lease,
    context: Context,
    { code, env }: CodeRequest,
    timeoutMs: number,
    signal: AbortSignal,
  ): AsyncGenerator<CodeEvent> {
    const note = this.#executions.note(lease, `${context.info.language}: ${code}`, true);
    using limit = timeLimit(timeoutMs);
    let failed = false;
    try {
      for await (const event of context.run({ code, env }, AbortSignal.any([signal, limit.signal]))) {
        // An interruption is how its time ends; what it says of that is nobody's fault but the clock's.
        if (event.type === "error") {
          if (limit.signal.aborted) continue;
          failed = true;
        }
        if (event.type === "end" && limit.signal.aborted) break;
        yield event;
      }
      if (limit.signal.aborted) throw timeoutError(timeoutMs);
      note({ exitCode: failed ? 1 : 0, reason: signal.aborted ? "cancelled" : "exited" });
    } catch (error) {
      note(error);
      throw error;
    } finally {
      note(new StacyError("cancelled", "its reader went away"));
    }
  }

  contexts(lease: Lease): Promise<ContextInfo[]> {
    return this.#contexts.list(guestOf(lease));
  }

  /** @throws StacyError `not-supported`, `limit` */
  async create(lease: Lease, { language, ...options }: ContextRequest): Promise<ContextInfo> {
    const made = await this.#contexts.create(guestOf(lease), { ...options, language: languageOf(language) });
    return made.info;
  }

  /** @throws StacyError `not-found` */
  async remove(lease: Lease, id: string): Promise<void> {
    await this.#contexts.remove(guestOf(lease), id);
  }

  /** @throws StacyError `not-found` */
  async restart(lease: Lease, id: string, begin: Pick<ContextOptions, "user" | "env"> = {}): Promise<ContextInfo> {
    return (await this.#contexts.restart(guestOf(lease), id, begin)).info;
  }
}

function guestOf({ agent, sandbox }: Lease): InterpreterGuest {
  return { id: sandbox.id, agent, env: sandbox.env };
}

/** @param ms 0: never */
function timeLimit(ms: number): { signal: AbortSignal } & Disposable {
  const limit = new AbortController();
  const stop = new AbortController();
  if (ms > 0) {
    sleep(ms, undefined, { signal: stop.signal }).then(
      () => limit.abort(),
      () => {},
    );
  }
  return { signal: limit.signal, [Symbol.dispose]: () => stop.abort() };
}

export type { CodeEvent, ContextInfo, Language };
