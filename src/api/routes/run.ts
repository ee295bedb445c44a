/** One command in a sandbox of its own: one request instead of three. Files in, output, exit code, files out, gone. */
import type { z } from "@hono/zod-openapi";
import type { Agent } from "../../guest/agent.ts";
import { StacyError } from "../../host/error.ts";
import type { Lease } from "../../sandboxes/sandbox.ts";
import type { RouteParts } from "../context.ts";
import type { Call, Endpoints } from "../endpoint.ts";
import { execInput } from "../schemas/exec.ts";
import { RunBody, RunRequest } from "../schemas/run.ts";
import { defined, spawnInput } from "../schemas/sandbox.ts";
import { jsonRecord } from "../streams.ts";
import { execBody, follow, streamedLines } from "./exec.ts";

/** All files that one run gives back. */
const COLLECT_BYTES = 16 * 2 ** 20;
/** What a sandbox outlives the time of its command by, should the server die and nobody end it. */
const SPARE_MS = 60_000;

type Body = z.output<typeof RunRequest>;

export function runRoutes(endpoints: Endpoints, parts: RouteParts): void {
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
      responses: { 200: { description: "The result, or the stream", schema: RunBody, type: "application/x-ndjson" } },
      errors: [404, 408, 409, 413, 501, 507],
    },
    async (call) => {
      const run = await begin(call, parts);
      try {
        return await (call.body.stream === true ? stream(call, run) : collected(call, run));
      } catch (error) {
        run[Symbol.dispose]();
        throw error;
      }
    },
  );
}

interface Run extends Disposable {
  lease: Lease;
  id: string;
  boot: { path: "warm" | "restored" | "cold"; total_ms: number } | undefined;
}

/** A sandbox with the run's files in it. Whoever disposes of it does not wait for its end, which is told where all ends are. */
async function begin(
  { c, sandboxes, body, user, signal }: Call<unknown, unknown, Body>,
  { log }: RouteParts,
): Promise<Run> {
  const ttlMs = body.ttl ?? (body.timeout === undefined ? undefined : body.timeout + SPARE_MS);
  const sandbox = await sandboxes.spawn({ ...spawnInput(body, user), ...defined({ ttlMs }) }, signal);
  const { id } = sandbox;
  const { boot } = sandbox.record;
  c.set("timing", boot?.phases ?? {});
  const lease = sandbox.lease();
  let over = false;
  const run: Run = {
    lease,
    id,
    boot: boot === undefined ? undefined : { path: boot.path, total_ms: boot.totalMs },
    [Symbol.dispose]() {
      if (over) return;
      over = true;
      lease[Symbol.dispose]();
      sandboxes.destroy(id).catch((error: unknown) => log.debug({ err: error, sandbox: id }, "the end goes on"));
    },
  };
  try {
    await Promise.all((body.files ?? []).map((file) => write(lease.agent, file, signal)));
  } catch (error) {
    run[Symbol.dispose]();
    throw error;
  }
  return run;
}

function write(agent: Agent, file: NonNullable<Body["files"]>[number], signal: AbortSignal): Promise<void> {
  const data = Buffer.from(file.content, file.encoding ?? "utf8");
  return agent.writeFile(file.path, data, { mode: file.mode ?? 0o644, signal });
}

async function collected({ sandboxes, body, signal }: Call<unknown, unknown, Body>, run: Run): Promise<Response> {
  const result = await sandboxes.run(run.lease, execInput(body), signal);
  try {
    const { files, missing } = await collect(run.lease.agent, body.collect ?? [], signal);
    const { id: sandbox_id, boot } = run;
    const answer = { ...execBody(result, body.encoding ?? "utf8"), sandbox_id, ...defined({ boot }), files, missing };
    run[Symbol.dispose]();
    return jsonRecord(answer, () => result[Symbol.dispose]());
  } catch (error) {
    result[Symbol.dispose]();
    throw error;
  }
}

async function stream(call: Call<unknown, unknown, Body>, run: Run): Promise<Response> {
  const { id: sandbox_id, boot, lease } = run;
  async function* files(): AsyncGenerator<object> {
    for (const path of call.body.collect ?? []) {
      const data = (await collect(lease.agent, [path], call.signal)).files[path];
      yield data === undefined ? { type: "missing", path, data: "" } : { type: "file", path, data };
    }
  }
  const following = await follow(call, lease, files);
  async function* lines(): AsyncGenerator<string> {
    yield `${JSON.stringify({ type: "started", sandbox_id, ...defined({ boot }), data: "" })}\n`;
    yield* following;
  }
  return streamedLines(lines(), () => run[Symbol.dispose]());
}

/** @throws StacyError `limit` */
async function collect(
  agent: Agent,
  paths: readonly string[],
  signal: AbortSignal,
): Promise<{ files: Record<string, string>; missing: string[] }> {
  const files: Record<string, string> = {};
  const missing: string[] = [];
  let left = COLLECT_BYTES;
  for (const path of paths) {
    try {
      const data = await agent.readFile(path, { limitBytes: left, signal });
      left -= data.length;
      files[path] = data.toString("base64");
    } catch (error) {
      if (!(error instanceof StacyError) || error.code !== "not-found") throw error;
      missing.push(path);
    }
  }
  return { files, missing };
}
