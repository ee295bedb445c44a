import { z } from "@hono/zod-openapi";
import type { Command, ExecResult, ExitStatus, OutputEvent } from "../../guest/agent.ts";
import { HeldInput } from "../../guest/held-input.ts";
import { GUEST_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import { formatDuration } from "../../sandboxes/duration.ts";
import type { ExecRequest as ExecInput } from "../../sandboxes/executions.ts";
import type { Lease } from "../../sandboxes/sandbox.ts";
import { readBody } from "../body.ts";
import type { RouteParts } from "../context.ts";
import { type Call, type Endpoints, json } from "../endpoint.ts";
import { keptOutput, MAIN, numberOf } from "../kept-output.ts";
import { chunks, type Encoding, pieces, withExit } from "../output.ts";
import { problemOf } from "../problem.ts";
import { Flag, maybe, SandboxId, StatusBody, whole } from "../schemas/common.ts";
import {
  ExecBody,
  ExecRequest,
  execInput,
  HistoryBody,
  ProcessBody,
  ProcessRequest,
  processBody,
  Signal,
} from "../schemas/exec.ts";
import { defined, iso } from "../schemas/values.ts";
import { begun, jsonList, jsonRecord, NDJSON_HEADERS, streamed } from "../streams.ts";

const tag = "exec";
const ProcessId = SandboxId.extend({ process: z.string().regex(/^\d{1,20}$/, "is not a process id") });

/** Words for clients that print what comes and look at nothing else. */
const NOTICES: Partial<Record<ExitStatus["reason"], string>> = {
  timeout: "exec timeout",
  "out-of-memory": "out of memory",
};

export function execRoutes(endpoints: Endpoints, parts: RouteParts): void {
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/exec",
      scope: "use",
      tag,
      summary: "Run a command",
      description:
        "A non-zero exit is no error. With `stream: true` the answer is NDJSON: `{stream, data}` per piece and at last `{type: exit, exit_code}`, or `{type: error, code, message, ended?}`.",
      params: SandboxId,
      body: ExecRequest,
      content: true,
      responses: { 200: { description: "The result, or the stream", schema: ExecBody, type: "application/x-ndjson" } },
      errors: [404, 408, 409],
    },
    async (call) => {
      const lease = await call.sandboxes.lease(call.params.id);
      if (call.body.stream === true) {
        const done = (): void => lease[Symbol.dispose]();
        const lines = await follow(call, lease).catch((error: unknown) => {
          done();
          throw error;
        });
        return streamedLines(lines, done);
      }
      using _ = lease;
      const encoding: Encoding = call.body.encoding ?? "utf8";
      const result = await call.sandboxes.run(lease, takenInput(call), call.signal);
      const body = execBody(result, encoding);
      return jsonRecord(body, () => result[Symbol.dispose]());
    },
  );

  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/history",
      scope: "read",
      tag,
      summary: "Commands that ran, newest first",
      params: SandboxId,
      query: z.object({ limit: whole(1, 1_000).default(100) }),
      responses: { 200: { description: "Also of a sandbox that is gone", schema: z.array(HistoryBody) } },
    },
    ({ sandboxes, params, query }) =>
      json(
        sandboxes.history(params.id, query.limit).map((record) => ({
          command: record.command,
          started_at: iso(record.startedAt),
          duration: formatDuration(record.durationMs),
          outcome: record.outcome,
          ...defined({ exit_code: record.exitCode }),
        })),
      ),
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/processes",
      scope: "use",
      tag: "processes",
      summary: "Start a command and leave it running",
      params: SandboxId,
      body: ProcessRequest,
      content: true,
      responses: {
        201: { description: "It runs", schema: z.object({ id: z.string(), pid: z.int() }).openapi("ProcessStarted") },
      },
      errors: [404, 409],
    },
    async ({ sandboxes, params, body }) => {
      using lease = await sandboxes.lease(params.id);
      const request = {
        command: body.command ?? "",
        args: body.args ?? [],
        mode: body.mode ?? "",
        env: body.env ?? {},
        ...defined({
          workdir: body.workdir,
          user: body.user,
          timeoutMs: body.timeout,
          stopSignal: body.stop_signal,
          stdin: body.stdin === true ? true : undefined,
          pty: body.pty,
        }),
        detached: true,
      };
      const { command } = await sandboxes.start(lease, request);
      await command.detach();
      return json({ id: command.id, pid: command.pid }, 201);
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/processes",
      scope: "read",
      tag: "processes",
      summary: "Commands that the agent knows",
      params: SandboxId,
      responses: {
        200: { description: "Running ones, and ended ones it still remembers", schema: z.array(ProcessBody) },
      },
      errors: [404, 409],
    },
    async ({ sandboxes, params, signal }) => {
      using lease = await sandboxes.lease(params.id);
      return jsonList(await lease.agent.processes({ signal }), processBody);
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/processes/{process}",
      scope: "read",
      tag: "processes",
      summary: "One command",
      params: ProcessId,
      responses: { 200: { description: "The command", schema: ProcessBody } },
      errors: [404, 409],
    },
    async ({ sandboxes, params, signal }) => {
      using lease = await sandboxes.lease(params.id);
      const found = (await lease.agent.processes({ signal })).find(({ id }) => id === params.process);
      if (found === undefined) throw new StacyError("not-found", `there is no process ${params.process}`);
      return json(processBody(found));
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/processes/{process}/output",
      scope: "use",
      tag: "processes",
      summary: "Attach: its recent output, then what comes, as NDJSON",
      description:
        "Going away detaches; the command goes on. `main` in place of a number: the command that was last started to go on by itself. About the last MiB of each is kept in the guest's memory, over pause, suspend, fork and restarts of the server; of commands that have ended the last 64, and those that were left running before others. With `follow=false` the answer ends with what is there.",
      params: SandboxId.extend({ process: z.union([ProcessId.shape.process, z.literal(MAIN)]) }),
      query: z.object({
        encoding: maybe(z.enum(["utf8", "base64"])),
        follow: z.enum(["true", "false"]).default("true").openapi({
          description: "Go on with what comes until the command has ended; `false`: end with what is there",
        }),
        tail: whole(0, 1_000_000).optional().openapi({ description: "So many lines of what is there" }),
        timestamps: Flag.openapi({ description: "Say of each piece when it was written" }),
      }),
      responses: {
        200: {
          description: "Lines as in a streamed exec; with `timestamps` each says as `time` when it was written",
          type: "application/x-ndjson",
        },
      },
      errors: [404, 409, 501],
    },
    async ({ sandboxes, params, query, signal }) => {
      const lease = await sandboxes.lease(params.id);
      const { encoding = "utf8", tail, timestamps: times } = query;
      const follow = query.follow === "true";
      let command: Command | undefined;
      const leave = async (): Promise<void> => {
        lease[Symbol.dispose]();
        await command?.detach().catch(() => {}); // it has ended
      };
      const attach = async (): Promise<{ kept: AsyncGenerator<OutputEvent>; exited: Command["exited"] }> => {
        const number = await numberOf(lease.agent, params.process, lease.sandbox.id, signal);
        command = await lease.agent.attach(number, { times, signal });
        return {
          kept: keptOutput(command, { tail, follow, owner: lease.sandbox.record.owner }),
          exited: command.exited,
        };
      };
      const { kept, exited } = await attach().catch(async (error: unknown) => {
        await leave();
        throw error;
      });
      async function* lines(): AsyncGenerator<string> {
        try {
          for await (const chunk of follow ? withExit(pieces(kept, encoding), exited) : pieces(kept, encoding)) {
            yield `${JSON.stringify(chunk)}\n`;
          }
        } finally {
          await leave();
        }
      }
      return streamed(begun(lines()), NDJSON_HEADERS);
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/processes/{process}/signal",
      scope: "use",
      tag: "processes",
      summary: "Send a signal to its process group",
      params: ProcessId,
      body: z.object({ signal: Signal }).openapi("SignalRequest"),
      responses: { 200: { description: "Sent", schema: StatusBody } },
      errors: [404, 409],
    },
    async ({ sandboxes, params, body }) => {
      using lease = await sandboxes.lease(params.id);
      await lease.agent.signal(params.process, body.signal);
      return json({ status: "signalled" });
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/processes/{process}/stdin",
      scope: "use",
      tag: "processes",
      summary: "Write to its standard input",
      params: ProcessId,
      query: z.object({ eof: Flag }),
      rawBody: "application/octet-stream",
      responses: { 200: { description: "Written", schema: StatusBody } },
      errors: [404, 409],
    },
    async ({ c, sandboxes, params, query, signal }) => {
      using lease = await sandboxes.lease(params.id);
      using held = new HeldInput(lease.sandbox.record.owner);
      const { max_file_json_bytes: maxBytes, body_timeout: timeoutMs } = parts.config.server;
      const data = await readBody(c.req.raw, { maxBytes, timeoutMs }, held);
      const command = await lease.agent.attach(params.process, { signal });
      command.exited.catch(() => {});
      try {
        if (data.length > 0) await command.write(data, { withinMs: GUEST_BOUNDS.inputMs });
        if (query.eof) await command.closeStdin();
      } finally {
        await command.detach().catch(() => {});
      }
      return json({ status: "written" });
    },
  );
}

/** How a collected command ended. */
export function execBody(result: ExecResult & { durationMs: number }, encoding: Encoding): z.output<typeof ExecBody> {
  return {
    exit_code: result.exitCode,
    stdout: result.stdout.toString(encoding),
    stderr: result.stderr.toString(encoding),
    duration: formatDuration(result.durationMs),
    ...defined({
      signal: result.signal,
      reason: result.reason === "out-of-memory" ? result.reason : undefined,
      truncated: result.truncated || undefined,
      encoding: encoding === "utf8" ? undefined : encoding,
    }),
  };
}

type StreamCall = Pick<Call<unknown, unknown, z.output<typeof ExecRequest>>, "sandboxes" | "body" | "signal"> & {
  held?: HeldInput | undefined;
};

/** Its input waits for the command, which counts it by itself; as a part of the body it is needed no more. */
function takenInput({ body, held }: Pick<StreamCall, "body" | "held">): ExecInput {
  const input = execInput(body);
  body.stdin = undefined;
  held?.[Symbol.dispose]();
  return input;
}

/**
 * Starts the command and gives its output and exit as lines. Whoever stops reading them ends it.
 * @param beforeExit further lines, once the command has ended
 */
export async function follow(
  { sandboxes, body, signal, held }: StreamCall,
  lease: Lease,
  beforeExit?: () => AsyncGenerator<object>,
): Promise<AsyncGenerator<string>> {
  const abort = new AbortController();
  const { encoding = "utf8" } = body;
  const input = takenInput({ body, held });
  const { command, exited } = await sandboxes.start(lease, input, AbortSignal.any([signal, abort.signal]));
  const line = (value: object): string => `${JSON.stringify(value)}\n`;
  async function* lines(): AsyncGenerator<string> {
    try {
      for await (const chunk of chunks(command, exited, encoding)) {
        if ("type" in chunk && chunk.type === "exit") {
          const why = NOTICES[chunk.reason];
          if (why !== undefined) yield line({ stream: "stderr", data: `${why}: ${lease.sandbox.id}\n` });
          if (beforeExit !== undefined) for await (const more of beforeExit()) yield line(more);
        }
        yield line(chunk);
      }
    } catch (thrown) {
      // The last line says why; then the answer breaks off, for clients that take a whole one for a success.
      yield line({ type: "error", ...problemOf(thrown).body, data: "" });
      throw thrown;
    } finally {
      // Ended: nothing to abort. Given up by the reader: the command goes with it.
      abort.abort();
    }
  }
  return lines();
}

/** @param done once, when the stream is over */
export function streamedLines(lines: AsyncGenerator<string>, done: () => void): Response {
  async function* all(): AsyncGenerator<string> {
    try {
      yield* lines;
    } finally {
      done();
    }
  }
  return streamed(begun(all()), NDJSON_HEADERS);
}
