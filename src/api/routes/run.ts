/** One command in a sandbox of its own: one request instead of three. Files in, output, exit code, files out, gone. */

import type { z } from "@hono/zod-openapi";
import type { Agent } from "../../guest/agent.ts";
import { StacyError } from "../../host/error.ts";
import type { Lease, Sandbox } from "../../sandboxes/sandbox.ts";
import type { Call, Endpoints } from "../endpoint.ts";
import { directoryCaller } from "../schemas/directory.ts";
import { execInput } from "../schemas/exec.ts";
import { RunBody, RunRequest } from "../schemas/run.ts";
import { spawnInput } from "../schemas/sandbox.ts";
import { jsonRecord } from "../streams.ts";
import { execBody, follow, streamedLines } from "./exec.ts";

/** All files that one run gives back. */
const COLLECT_BYTES = 16 * 2 ** 20;
/** What a sandbox outlives the time of its command by, should the server die and nobody end it. */
const SPARE_MS = 60_000;

type Body = z.output<typeof RunRequest>;

export function runRoutes(endpoints: Endpoints): void {
  endpoints.add(
    {
      method: "post",
      path: "/run",
      scope: "use",
      tag: "exec",
      summary: "Run a command in a sandbox of its own, which is gone afterwards",
      description:
        "Fields of a spawn and of an exec. A non-zero exit is no error. With `stream: true` the answer is NDJSON: `{type: started, sandbox_id, boot}`, the lines of a streamed exec, `{type: file, path, data}` for each file of `collect` (base64), and the exit at last. The sandbox ends when the command has ended or the client goes away.",
      body: RunRequest,
      content: true,
      responses: { 200: { description: "The result, or the stream", schema: RunBody, type: "application/x-ndjson" } },
      errors: [404, 408, 409, 413, 501, 507],
    },
    async ({ c, sandboxes, body, user, signal }) => {
      const input = { ...spawnInput(body, user), directoriesFor: directoryCaller(c.get("identity")) };
      if (body.timeout !== undefined) input.ttlMs ??= outliving(body.timeout, sandboxes.maxTtlMs(input.ownerId));
      const run = await sandboxes.lend(input, signal);
      const { sandbox } = run;
      c.set("timing", sandbox.record.boot?.phases ?? {});
      // Nobody waits for it; that it failed is told where all ends are.
      const end = (): void => void Promise.resolve(run[Symbol.asyncDispose]()).catch(() => {});
      try {
        await Promise.all((body.files ?? []).map((file) => write(run.agent, file, signal)));
        const asked = { sandboxes, body, signal };
        return await (body.stream === true ? stream(asked, run, end) : collected(asked, run, end));
      } catch (error) {
        end();
        throw error;
      }
    },
  );
}

/** Time for a sandbox whose command may take so long, ms. One that may not be given as much as the command itself is refused. */
function outliving(timeoutMs: number, mostMs = Number.POSITIVE_INFINITY): number {
  return Math.max(timeoutMs, Math.min(timeoutMs + SPARE_MS, mostMs));
}

type Asked = Pick<Call<unknown, unknown, Body>, "sandboxes" | "body" | "signal">;

/** What clients are told of the sandbox. */
function told({ id, record: { boot } }: Sandbox): Pick<z.output<typeof RunBody>, "sandbox_id" | "boot"> {
  return { sandbox_id: id, ...(boot === undefined ? {} : { boot: { path: boot.path, total_ms: boot.totalMs } }) };
}

function write(agent: Agent, file: NonNullable<Body["files"]>[number], signal: AbortSignal): Promise<void> {
  const data = Buffer.from(file.content, file.encoding ?? "utf8");
  return agent.writeFile(file.path, data, { mode: file.mode ?? 0o644, signal });
}

async function collected({ sandboxes, body, signal }: Asked, run: Lease, end: () => void): Promise<Response> {
  const result = await sandboxes.run(run, execInput(body), signal);
  try {
    const files: Record<string, string> = {};
    const missing: string[] = [];
    for await (const { path, data } of collect(run.agent, body.collect, signal)) {
      if (data === undefined) missing.push(path);
      else files[path] = data;
    }
    const answer = { ...execBody(result, body.encoding ?? "utf8"), ...told(run.sandbox), files, missing };
    end();
    return jsonRecord(answer, () => result[Symbol.dispose]());
  } catch (error) {
    result[Symbol.dispose]();
    throw error;
  }
}

async function stream(asked: Asked, run: Lease, end: () => void): Promise<Response> {
  async function* files(): AsyncGenerator<object> {
    for await (const { path, data } of collect(run.agent, asked.body.collect, asked.signal)) {
      yield data === undefined ? { type: "missing", path, data: "" } : { type: "file", path, data };
    }
  }
  const following = await follow(asked, run, files);
  async function* lines(): AsyncGenerator<string> {
    yield `${JSON.stringify({ type: "started", ...told(run.sandbox), data: "" })}\n`;
    yield* following;
  }
  return streamedLines(lines(), end);
}

/** Files in base64, without `data` where there is none. @throws StacyError `limit` when they are too large together */
async function* collect(
  agent: Agent,
  paths: readonly string[] = [],
  signal: AbortSignal,
): AsyncGenerator<{ path: string; data?: string }> {
  let left = COLLECT_BYTES;
  for (const path of paths) {
    const data = await agent.readFile(path, { limitBytes: left, signal }).catch((error: unknown) => {
      if (error instanceof StacyError && error.code === "not-found") return undefined;
      throw error;
    });
    left -= data?.length ?? 0;
    yield { path, ...(data === undefined ? {} : { data: data.toString("base64") }) };
  }
}
