/** Running commands in a sandbox: timeouts by quota, history, events, measures. */
import type { Command, ExecOptions, ExecResult, ExitStatus } from "../guest/agent.ts";
import { HeldInput } from "../guest/held-input.ts";
import { type CollectedOutput, OutputBudget } from "../guest/output-budget.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import { type CommandRequest, commandArgv } from "./command.ts";
import { formatDuration } from "./duration.ts";
import type { Events } from "./events.ts";
import { effectiveMax, type Limits } from "./limits.ts";
import type { Observer } from "./observer.ts";
import type { Quotas } from "./quotas.ts";
import type { ExecRecord } from "./record.ts";
import type { Lease } from "./sandbox.ts";
import { startRemedy } from "./start-remedy.ts";
import type { Store } from "./store.ts";

export interface ExecRequest extends CommandRequest {
  env: Record<string, string>;
  workdir?: string;
  user?: string;
  /** ms; absent: the default. */
  timeoutMs?: number;
  /** Number of the signal that asks it to end when its time is over; default 15, TERM. */
  stopSignal?: number;
  stdin?: boolean | Uint8Array;
  pty?: { rows: number; cols: number; term?: string };
  /** It goes on by itself: its output is what the sandbox's logs show. */
  detached?: boolean;
}

/** A command that goes on in the guest; the lease is given back when it has ended or when nobody follows it any longer. */
export interface RunningCommand {
  command: Command;
  exited: Promise<ExitStatus>;
}

/** The history shows what ran, not what was piped through it. */
const SHOWN = 1_024;

/** Of collected output, bytes: of one call, and of all at once, of which one owner has half at most. As JSON it takes up to six times as much for a moment. */
const COLLECT_CALL = 32 * 2 ** 20;
const COLLECT_TOTAL = 128 * 2 ** 20;

export class Executions {
  readonly #collected = new OutputBudget(COLLECT_CALL, COLLECT_TOTAL);
  readonly #parts: { store: Store; events: Events; observer: Observer; quotas: Quotas; limits: Limits };

  constructor(parts: { store: Store; events: Events; observer: Observer; quotas: Quotas; limits: Limits }) {
    this.#parts = parts;
  }

  /** Newest first. */
  history(sandboxId: string, limit: number): ExecRecord[] {
    return this.#parts.store.execs(sandboxId, limit);
  }

  /**
   * Runs to the end; its output is in memory until the result is disposed of.
   * @throws StacyError `timeout` when its time is over (its last output is in `data`), `limit` when more time is asked for than allowed,
   * `invalid`
   */
  async run(
    lease: Lease,
    request: ExecRequest,
    signal: AbortSignal,
  ): Promise<ExecResult & { durationMs: number } & Disposable> {
    const options = this.#options(lease, request, true);
    using _input = holdInput(lease, options);
    const note = this.note(lease, shown(options), false);
    const output = this.collecting(lease);
    try {
      const result = await lease.agent.exec({ ...options, signal, output });
      const durationMs = note(result);
      if (result.reason === "timeout") throw timeoutError(options.timeoutMs, result);
      if (result.reason === "cancelled") throw new StacyError("cancelled", "the command was cancelled");
      return { ...result, durationMs, [Symbol.dispose]: () => output[Symbol.dispose]() };
    } catch (error) {
      output[Symbol.dispose]();
      note(error);
      throw startFailure(error, lease, options);
    }
  }

  /** Memory for what a call collects, out of what all may together. */
  collecting(lease: Lease): CollectedOutput {
    return this.#collected.open(lease.sandbox.record.owner);
  }

  /** Starts and follows: aborting `signal` cancels the command. The caller owns the lease and reads the output. */
  async start(lease: Lease, request: ExecRequest, signal?: AbortSignal): Promise<RunningCommand> {
    const options = this.#options(lease, request, false);
    const input = holdInput(lease, options);
    const note = this.note(lease, shown(options), true);
    const begun = performance.now();
    try {
      const command = await lease.agent.start(signal === undefined ? options : { ...options, signal });
      this.#parts.observer.agentRoundTrip(performance.now() - begun);
      const exited = command.exited.then(
        (status) => {
          note(status);
          return status;
        },
        (error: unknown) => {
          note(error);
          throw error;
        },
      );
      // Whoever reads the output meets the same error.
      exited.catch(() => {}).finally(() => input[Symbol.dispose]());
      return { command, exited };
    } catch (error) {
      input[Symbol.dispose]();
      note(error);
      throw startFailure(error, lease, options);
    }
  }

  /** @param collected the caller waits for the result; a stream may last as long as it likes unless it asks otherwise */
  #options(lease: Lease, request: ExecRequest, collected: boolean): ExecOptions {
    const timeout = this.timeoutOf(lease, request.timeoutMs, collected);
    const cwd = request.workdir || this.#parts.limits.defaultWorkdir;
    return {
      argv: commandArgv(request),
      env: request.env,
      ...(cwd === "" ? {} : { cwd }),
      ...(request.user ? { user: request.user } : {}),
      ...(timeout > 0 ? { timeoutMs: Math.max(1, Math.round(timeout)) } : {}),
      ...(request.stopSignal === undefined ? {} : { stopSignal: request.stopSignal }),
      ...(request.stdin === undefined ? {} : { stdin: request.stdin }),
      ...(request.pty === undefined ? {} : { pty: request.pty }),
      ...(request.detached === true ? { detached: true } : {}),
    };
  }

  /** How long something may run that asks for so much; ms, 0: without a limit. @throws StacyError `limit`, `invalid` */
  timeoutOf(lease: Lease, asked: number | undefined, collected: boolean): number {
    const { limits, quotas } = this.#parts;
    const { owner, ownerId } = lease.sandbox.record;
    const max = effectiveMax(limits.maxExecTimeoutMs, quotas.effective(owner, ownerId).maxExecTimeoutMs);
    if (asked !== undefined && asked <= 0) throw new StacyError("invalid", "timeout must be positive");
    if (asked !== undefined && max > 0 && asked > max) {
      throw new StacyError("limit", `the timeout is over the limit of ${formatDuration(max)}`, {
        remedy: "ask for less time, or raise defaults.max_exec_timeout or the owner's quota",
        final: true,
      });
    }
    if (asked !== undefined) return asked;
    const standard = limits.defaultExecTimeoutMs;
    return standard > 0 && max > 0 ? Math.min(standard, max) : standard || (collected ? max : 0);
  }

  /** Writes the beginning, and gives what writes the end (once): an `ExitStatus`, or what was thrown. */
  note(lease: Lease, text: string, streamed: boolean): (end: unknown) => number {
    const { events, store, observer } = this.#parts;
    const sandboxId = lease.sandbox.id;
    const command = text.slice(0, SHOWN);
    const startedAt = Date.now();
    const begun = performance.now();
    let noted = false;
    events.emit("exec.started", sandboxId, { command });
    return (end) => {
      const durationMs = performance.now() - begun;
      if (noted) return durationMs;
      noted = true;
      const status = end instanceof Error ? undefined : (end as ExitStatus);
      const outcome = outcomeOf(end, status);
      const exit = status === undefined ? {} : { exitCode: status.exitCode };
      store.addExec({ sandboxId, command, startedAt, durationMs, outcome, ...exit });
      observer.executed(outcome, durationMs, { provider: lease.sandbox.record.provider, streamed });
      const type = outcome === "timeout" ? "exec.timeout" : outcome === "failed" ? "exec.failed" : "exec.completed";
      events.emit(type, sandboxId, {
        command,
        duration: formatDuration(durationMs),
        ...(status === undefined ? { error: asStacyError(end).message } : { exit_code: status.exitCode }),
      });
      return durationMs;
    };
  }
}

/** Until the guest has taken it; a program that never reads has it wait for as long as it runs. @throws StacyError `limit` */
function holdInput(lease: Lease, options: ExecOptions): HeldInput {
  const held = new HeldInput(lease.sandbox.record.owner);
  if (options.stdin instanceof Uint8Array) held.add(options.stdin.length);
  options.stdinTaken = () => held[Symbol.dispose]();
  return held;
}

function shown({ argv }: ExecOptions): string {
  const shell = argv[0] === "sh" && argv[1] === "-c" && argv.length === 3;
  return shell ? (argv[2] ?? "") : argv.join(" ");
}

/**
 * What the guest does not have to start a command with is a wrong request: `not-found` is said of sandboxes, and clients take it
 * for the end of theirs.
 */
function startFailure(error: unknown, lease: Lease, { argv }: ExecOptions): unknown {
  if (!(error instanceof StacyError) || error.code !== "not-found" || !lease.sandbox.visible) return error;
  return new StacyError("invalid", error.message, {
    phase: "start",
    cause: error,
    remedy: startRemedy(argv),
  });
}

function outcomeOf(end: unknown, status: ExitStatus | undefined): ExecRecord["outcome"] {
  if (status !== undefined)
    return status.reason === "exited" ? "completed" : status.reason === "out-of-memory" ? "failed" : status.reason;
  const { code } = asStacyError(end);
  return code === "timeout" ? "timeout" : code === "cancelled" ? "cancelled" : "failed";
}

/** Of the output of a command whose time was over, in its error; per stream. */
const KEPT_BYTES = 256 * 1024;

export function timeoutError(timeoutMs: number | undefined, output?: { stdout: Buffer; stderr: Buffer }): StacyError {
  const last = (bytes: Buffer): string => bytes.subarray(Math.max(0, bytes.length - KEPT_BYTES)).toString("utf8");
  return new StacyError("timeout", `the command ran longer than ${formatDuration(timeoutMs ?? 0)} and was ended`, {
    phase: "exec",
    ...(output === undefined ? {} : { data: { stdout: last(output.stdout), stderr: last(output.stderr) } }),
  });
}
