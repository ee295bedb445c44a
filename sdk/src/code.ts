/** The code interpreter of a sandbox: code with state between calls, in contexts that know nothing of each other. */
import { errorOf, StacyError, statusOf } from "./errors.ts";
import type * as wire from "./generated.ts";
import { durationText } from "./process.ts";
import { ndjson } from "./streams.ts";
import { type CallOptions, LONG, type Transport } from "./transport.ts";

export type CodeContext = wire.CodeContext;
export type CodeResult = wire.CodeResult;
export type CodeError = wire.CodeError;

export interface CodeOptions {
  /** `python` (default), `javascript`, `typescript` or `bash`, where the sandbox's image has it. */
  language?: string | undefined;
  /** Default: the one of the language, which is started when it is needed. */
  context?: string | CodeContext | undefined;
  /** For this piece alone. */
  env?: Record<string, string> | undefined;
  /** The code is interrupted after it; its context stays. */
  timeout?: wire.Duration | undefined;
  /** Aborting interrupts the code. */
  signal?: AbortSignal | undefined;
}

/** What code does, as it comes. */
export type CodeEvent =
  | { type: "stdout" | "stderr"; text: string }
  | ({ type: "result" } & CodeResult)
  | ({ type: "error" } & CodeError)
  | { type: "end"; executionCount: number };

export interface CodeExecution {
  /** The value of the last expression, as text. */
  text?: string | undefined;
  /** What was displayed, and the value of the last expression, in every form that they have. */
  results: CodeResult[];
  stdout: string;
  stderr: string;
  /** What the code has failed with. */
  error?: CodeError | undefined;
  executionCount: number;
}

export async function* streamCode(
  transport: Transport,
  id: string,
  code: string,
  options: CodeOptions,
): AsyncGenerator<CodeEvent> {
  const { language, context, env, timeout, signal } = options;
  const response = await transport.open("POST /sandboxes/{id}/code", {
    params: { id },
    body: {
      ...{ code, language, env, stream: true, timeout: durationText(timeout) },
      context: typeof context === "object" ? context.id : context,
    },
    ...LONG,
    signal,
  });
  for await (const line of ndjson(response.body)) {
    if (line.type === "problem") throw errorOf(statusOf(String(line.code)), line);
    if (line.type === "end") {
      yield { type: "end", executionCount: Number(line.execution_count) };
      return;
    }
    yield line as CodeEvent;
  }
  throw new StacyError("CONNECTION", "the stream ended before the code did");
}

export async function runCode(events: AsyncGenerator<CodeEvent>): Promise<CodeExecution> {
  const done: CodeExecution = { results: [], stdout: "", stderr: "", executionCount: 0 };
  for await (const event of events) {
    if (event.type === "stdout" || event.type === "stderr") done[event.type] += event.text;
    else if (event.type === "end") done.executionCount = event.executionCount;
    else {
      const { type, ...fields } = event;
      if (type === "error") done.error = fields as CodeError;
      else {
        const result = fields as CodeResult;
        done.results.push(result);
        if (result.main) done.text = result.text;
      }
    }
  }
  return done;
}

/** Contexts of one sandbox. */
export class CodeContexts {
  readonly #transport: Transport;
  readonly #id: string;

  constructor(transport: Transport, id: string) {
    this.#transport = transport;
    this.#id = id;
  }

  /** Oldest first. */
  list(options: CallOptions = {}): Promise<CodeContext[]> {
    return this.#transport.call("GET /sandboxes/{id}/contexts", { params: { id: this.#id }, ...options });
  }

  create({ signal, timeoutMs, ...body }: wire.ContextRequest & CallOptions = {}): Promise<CodeContext> {
    return this.#transport.call("POST /sandboxes/{id}/contexts", {
      params: { id: this.#id },
      body,
      signal,
      timeoutMs: timeoutMs ?? LONG.timeoutMs,
    });
  }

  /** The same, without its state. */
  restart(context: string | CodeContext, options: CallOptions = {}): Promise<CodeContext> {
    return this.#transport.call("POST /sandboxes/{id}/contexts/{context}/restart", {
      params: { id: this.#id, context: idOf(context) },
      ...LONG,
      ...options,
    });
  }

  async remove(context: string | CodeContext, options: CallOptions = {}): Promise<void> {
    await this.#transport.call("DELETE /sandboxes/{id}/contexts/{context}", {
      params: { id: this.#id, context: idOf(context) },
      ...options,
    });
  }
}

function idOf(context: string | CodeContext): string {
  return typeof context === "string" ? context : context.id;
}
