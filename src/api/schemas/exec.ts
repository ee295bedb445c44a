import { z } from "@hono/zod-openapi";
import type { ProcessInfo } from "../../guest/agent.ts";
import { signalNumber } from "../../guest/signal-number.ts";
import type { ExecRequest as ExecInput } from "../../sandboxes/executions.ts";
import { Duration, EnvMap, GuestText, maybe } from "./common.ts";
import { defined, iso } from "./values.ts";

/** What Linux takes is a matter of bytes; so many of the shortest ones fit. */
const MAX_ARGUMENTS = 262_144;

/** A number, `TERM` or `SIGTERM`. The guest is Linux on x86-64, whatever the client is. */
export const Signal = z
  .union([z.int().min(1).max(64), z.string().max(16)])
  .transform((value, context): number => {
    if (typeof value === "number") return value;
    const number = signalNumber(value);
    if (number !== undefined) return number;
    context.addIssue({ code: "custom", message: "is not a signal; use a number or a name such as SIGTERM" });
    return z.NEVER;
  })
  .openapi({ type: "string", example: "SIGTERM" });

/** What a command is asked to end with when its time is over or its caller goes away, before it is killed. */
const StopSignal = maybe(Signal).openapi({ type: "string", description: "Default: TERM.", example: "SIGQUIT" });

export const ExecRequest = z
  .object({
    command: maybe(GuestText),
    args: maybe(z.array(GuestText).max(MAX_ARGUMENTS)),
    mode: maybe(z.string()),
    env: maybe(EnvMap),
    workdir: maybe(GuestText.max(4_096)),
    work_dir: maybe(GuestText.max(4_096)),
    user: maybe(GuestText.max(256)),
    timeout: maybe(Duration),
    stop_signal: StopSignal,
    stream: maybe(z.boolean()),
    stdin: maybe(z.string()),
    encoding: maybe(z.enum(["utf8", "base64"])).openapi({
      type: "string",
      enum: ["utf8", "base64"],
      description: "Of stdin and of the output. base64 carries any bytes.",
    }),
  })
  .openapi("ExecRequest");

export function execInput(body: z.output<typeof ExecRequest>): ExecInput {
  return {
    command: body.command ?? "",
    args: body.args ?? [],
    mode: body.mode ?? "",
    env: body.env ?? {},
    ...defined({
      workdir: body.workdir || body.work_dir,
      user: body.user,
      timeoutMs: body.timeout,
      stopSignal: body.stop_signal,
      stdin: body.stdin === undefined ? undefined : Buffer.from(body.stdin, body.encoding ?? "utf8"),
    }),
  };
}

export const ExecBody = z
  .object({
    exit_code: z.int(),
    stdout: z.string(),
    stderr: z.string(),
    duration: z.string(),
    signal: z.int().optional(),
    reason: z.string().optional().openapi({
      description: "`out-of-memory`: it ended because the sandbox's memory had run out.",
      example: "out-of-memory",
    }),
    truncated: z.boolean().optional(),
    encoding: z.string().optional(),
  })
  .openapi("ExecResult");

export const ProcessRequest = z
  .object({
    command: maybe(GuestText),
    args: maybe(z.array(GuestText).max(MAX_ARGUMENTS)),
    mode: maybe(z.string()),
    env: maybe(EnvMap),
    workdir: maybe(GuestText.max(4_096)),
    user: maybe(GuestText.max(256)),
    timeout: maybe(Duration),
    stop_signal: StopSignal,
    stdin: maybe(z.boolean()),
    pty: maybe(z.object({ rows: z.int().min(1).max(65_535), cols: z.int().min(1).max(65_535) })),
  })
  .openapi("ProcessRequest");

export const ProcessBody = z
  .object({
    id: z.string(),
    pid: z.int(),
    command: z.string(),
    started_at: z.string(),
    running: z.boolean(),
    detached: z.boolean().optional().openapi({ description: "Started to go on by itself" }),
    exit_code: z.int().optional(),
    signal: z.int().optional(),
    reason: z.string().optional(),
  })
  .openapi("Process");

export function processBody(info: ProcessInfo): z.output<typeof ProcessBody> {
  return {
    id: info.id,
    pid: info.pid,
    command: info.command,
    started_at: iso(info.startedAt),
    running: info.running,
    ...defined({
      detached: info.detached,
      exit_code: info.exit?.exitCode,
      signal: info.exit?.signal,
      reason: info.exit?.reason,
    }),
  };
}

export const HistoryBody = z
  .object({
    command: z.string(),
    started_at: z.string(),
    duration: z.string(),
    exit_code: z.int().optional(),
    outcome: z.string(),
  })
  .openapi("ExecRecord");
