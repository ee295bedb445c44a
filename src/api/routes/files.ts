import { posix } from "node:path";
import { z } from "@hono/zod-openapi";
import type { Agent } from "../../guest/agent.ts";
import { asStacyError, StacyError } from "../../host/error.ts";
import { observed } from "../../sandboxes/observer.ts";
import type { Lease } from "../../sandboxes/sandbox.ts";
import { bodyStream } from "../body.ts";
import type { RouteParts } from "../context.ts";
import { type Call, type Endpoints, json } from "../endpoint.ts";
import { httpError } from "../problem.ts";
import { parseRange } from "../range.ts";
import { Flag, GuestPath, GuestText, SandboxId, StatusBody, whole } from "../schemas/common.ts";
import {
  ChmodRequest,
  CopyRequest,
  FileBody,
  fileBody,
  MkdirRequest,
  Mode,
  MoveRequest,
  WriteFileRequest,
} from "../schemas/file.ts";
import { begun, exactly, jsonList, resultOrTimeout, SSE_HEADERS, streamed } from "../streams.ts";

const tag = "files";
const PathQuery = z.object({ path: GuestPath });
const UploadQuery = PathQuery.extend({
  mode: Mode.optional(),
  append: Flag,
  exclusive: Flag,
  offset: whole(0, Number.MAX_SAFE_INTEGER).optional(),
});
const HEARTBEAT_MS = 15_000;

export function fileRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const { config } = parts;
  const upload = { maxBytes: config.server.max_upload_bytes, timeoutMs: config.server.body_timeout };
  const errors = [404, 409, 507];
  const done = (description: string) => ({ 200: { description, schema: StatusBody } });

  /** One file operation: a lease, measures, and an event for what wrote (`written`). */
  async function operation(
    { sandboxes, params: { id } }: Pick<Call<z.output<typeof SandboxId>, unknown, unknown>, "sandboxes" | "params">,
    name: `file_${string}`,
    written: Record<string, unknown> | undefined,
    work: (lease: Lease) => Promise<Response>,
  ): Promise<Response> {
    using lease = await sandboxes.lease(id);
    const { observer } = parts.metrics;
    const { provider } = lease.sandbox.record;
    const begunAt = performance.now();
    const response = await observed(observer, { name, provider }, () => work(lease));
    observer.agentRoundTrip(performance.now() - begunAt);
    if (written !== undefined) sandboxes.events.emit("file.written", lease.sandbox.id, written);
    return response;
  }

  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/files",
      scope: "use",
      tag,
      summary: "Write a file",
      description: "Parent directories are made. Any bytes with `encoding: base64`.",
      params: SandboxId,
      body: WriteFileRequest,
      content: true,
      responses: done("Written"),
      errors,
    },
    ({ sandboxes, params, body, signal }) =>
      operation({ sandboxes, params }, "file_write", { path: body.path }, async ({ agent }) => {
        const data = Buffer.from(body.content ?? "", body.encoding ?? "utf8");
        const append = body.append === true ? { append: true } : {};
        await agent.writeFile(body.path, data, { mode: body.mode ?? 0o644, ...append, signal });
        return json({ status: "written" });
      }),
  );

  for (const path of ["/sandboxes/{id}/files", "/sandboxes/{id}/files/raw"]) {
    endpoints.add(
      {
        method: "put",
        path,
        scope: "use",
        tag,
        summary: "Upload a file: the body is its content",
        description: "A reader sees the old file or the whole new one. `offset` writes into an existing file.",
        params: SandboxId,
        query: UploadQuery,
        rawBody: "application/octet-stream",
        responses: done("Written"),
        errors,
      },
      ({ c, sandboxes, params, query, signal }) =>
        operation({ sandboxes, params }, "file_write", { path: query.path }, async ({ agent }) => {
          await agent.writeFile(query.path, bodyStream(c.req.raw, upload), {
            ...(query.offset === undefined ? { mode: query.mode ?? 0o644 } : { offset: query.offset }),
            ...(query.append ? { append: true } : {}),
            ...(query.exclusive ? { exclusive: true } : {}),
            signal,
          });
          return json({ status: "written" });
        }),
    );
    endpoints.add(
      {
        method: "get",
        path,
        scope: "read",
        tag,
        summary: "Download a file, or a range of it",
        params: SandboxId,
        query: PathQuery,
        responses: {
          200: { description: "The bytes", type: "application/octet-stream" },
          206: { description: "The range that was asked for", type: "application/octet-stream" },
        },
        errors: [...errors, 416],
      },
      (call) => download(call, call.query.path),
    );
  }

  async function download(
    { c, sandboxes, params, signal }: Call<z.output<typeof SandboxId>, unknown, unknown>,
    path: string,
  ): Promise<Response> {
    const lease = await sandboxes.lease(params.id);
    const abort = new AbortController();
    const begunAt = performance.now();
    try {
      const stat = await lease.agent.stat(path, { follow: true, signal });
      if (stat.kind === "directory") throw new StacyError("is-directory", `${path} is a directory`);
      const range = parseRange(c.req.header("range"), stat.size);
      const headers: Record<string, string> = {
        "content-type": "application/octet-stream",
        "accept-ranges": "bytes",
        "last-modified": new Date(stat.mtimeMs).toUTCString(),
        "x-content-type-options": "nosniff",
      };
      if (range === "unsatisfiable") {
        throw httpError(416, `the range is outside of the file, which has ${stat.size} bytes`);
      }
      if (range !== undefined) headers["content-range"] = `bytes ${range.start}-${range.end}/${stat.size}`;
      // /proc and the like have size 0 and content all the same: their length is not announced.
      const size = range === undefined ? stat.size : range.end - range.start + 1;
      const promised = stat.size > 0 ? size : undefined;
      if (promised !== undefined) headers["content-length"] = String(promised);
      if (c.req.method === "HEAD") {
        lease[Symbol.dispose]();
        return new Response(null, { headers });
      }
      const { stream } = await lease.agent.readStream(path, {
        ...(range === undefined ? {} : { offset: range.start }),
        // Also of a whole file: one that grows meanwhile is read to the length that was announced.
        ...(promised === undefined ? {} : { length: promised }),
        signal: AbortSignal.any([signal, abort.signal]),
      });
      parts.metrics.observer.operation("file_read", lease.sandbox.record.provider, performance.now() - begunAt);
      sandboxes.events.emit("file.read", lease.sandbox.id, { path });
      async function* bytes(): AsyncGenerator<Uint8Array> {
        try {
          yield* promised === undefined ? stream : exactly(stream, promised);
        } finally {
          abort.abort();
          lease[Symbol.dispose]();
        }
      }
      return streamed(begun(bytes()), headers, range === undefined ? 200 : 206);
    } catch (error) {
      lease[Symbol.dispose]();
      throw error;
    }
  }

  endpoints.add(
    {
      method: "delete",
      path: "/sandboxes/{id}/files",
      scope: "use",
      tag,
      summary: "Delete a file or directory",
      description: "With `recursive`, all that is in it too, and it is no error that there is nothing.",
      params: SandboxId,
      query: PathQuery.extend({ recursive: Flag }),
      responses: done("Deleted"),
      errors,
    },
    ({ sandboxes, params, query, signal }) =>
      operation({ sandboxes, params }, "file_delete", undefined, async ({ agent }) => {
        await agent.remove(query.path, { recursive: query.recursive, signal }).catch((error: unknown) => {
          // As `rm -r -f`: what shall be gone with all that is in it is gone.
          if (!query.recursive || asStacyError(error).code !== "not-found") throw error;
        });
        return json({ status: "deleted" });
      }),
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/files/list",
      scope: "read",
      tag,
      summary: "Entries of a directory",
      params: SandboxId,
      query: z.object({ path: GuestText.max(4096).default("/"), recursive: Flag, depth: whole(1, 64).optional() }),
      responses: { 200: { description: "Entries", schema: z.array(FileBody) } },
      errors,
    },
    ({ sandboxes, params, query, signal }) =>
      operation({ sandboxes, params }, "file_list", undefined, async ({ agent }) => {
        const depth = query.depth === undefined ? {} : { depth: query.depth };
        const entries = await agent.list(query.path || "/", { recursive: query.recursive, ...depth, signal });
        return jsonList(entries, fileBody);
      }),
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/files/stat",
      scope: "read",
      tag,
      summary: "Facts about one file",
      params: SandboxId,
      query: PathQuery,
      responses: { 200: { description: "The facts", schema: FileBody } },
      errors,
    },
    ({ sandboxes, params, query, signal }) =>
      operation({ sandboxes, params }, "file_stat", undefined, async ({ agent }) =>
        json(fileBody(await agent.stat(query.path, { signal }))),
      ),
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/files/glob",
      scope: "read",
      tag,
      summary: "Paths that match a pattern",
      params: SandboxId,
      query: z.object({ pattern: GuestPath }),
      responses: { 200: { description: "Paths", schema: z.array(z.string()) } },
      errors,
    },
    ({ sandboxes, params, query, signal }) =>
      operation({ sandboxes, params }, "file_glob", undefined, async ({ agent }) =>
        jsonList(await agent.glob(query.pattern, undefined, { signal }), (path) => path),
      ),
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/files/move",
      scope: "use",
      tag,
      summary: "Move or rename",
      description: "Parent directories of the new name are made.",
      params: SandboxId,
      body: MoveRequest,
      responses: done("Moved"),
      errors,
    },
    ({ sandboxes, params, body, signal }) =>
      operation({ sandboxes, params }, "file_move", undefined, async ({ agent }) => {
        await moveTo(agent, body.old_path, body.new_path, signal);
        return json({ status: "moved" });
      }),
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/files/copy",
      scope: "use",
      tag,
      summary: "Copy",
      params: SandboxId,
      body: CopyRequest,
      responses: done("Copied"),
      errors,
    },
    ({ sandboxes, params, body, signal }) =>
      operation({ sandboxes, params }, "file_copy", undefined, async ({ agent }) => {
        await agent.copy(body.old_path, body.new_path, { recursive: body.recursive === true, signal });
        return json({ status: "copied" });
      }),
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/files/chmod",
      scope: "use",
      tag,
      summary: "Change permission bits",
      params: SandboxId,
      body: ChmodRequest,
      responses: done("Changed"),
      errors,
    },
    ({ sandboxes, params, body, signal }) =>
      operation({ sandboxes, params }, "file_chmod", undefined, async ({ agent }) => {
        const recursive = body.recursive === true;
        if (typeof body.mode === "number") await agent.chmod(body.path, body.mode, { recursive, signal });
        else if (!recursive)
          await agent.chmod(body.path, body.mode(await agent.stat(body.path, { follow: true, signal })), { signal });
        else {
          throw new StacyError(
            "invalid",
            "mode: letters stand for one file; with recursive, use octal bits such as 0755",
          );
        }
        return json({ status: "chmod applied" });
      }),
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/files/mkdir",
      scope: "use",
      tag,
      summary: "Make a directory, with its parents",
      params: SandboxId,
      body: MkdirRequest,
      responses: done("Made"),
      errors,
    },
    ({ sandboxes, params, body, signal }) =>
      operation({ sandboxes, params }, "file_mkdir", undefined, async ({ agent }) => {
        await agent.mkdir(body.path, {
          parents: true,
          ...(body.mode === undefined ? {} : { mode: body.mode }),
          signal,
        });
        return json({ status: "created" });
      }),
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/files/archive",
      scope: "read",
      tag,
      summary: "A directory as a tar stream",
      params: SandboxId,
      query: PathQuery,
      responses: { 200: { description: "PAX tar", type: "application/x-tar" } },
      errors,
    },
    async ({ sandboxes, params, query, signal }) => {
      const lease = await sandboxes.lease(params.id);
      const abort = new AbortController();
      try {
        const tar = await lease.agent.tarOut(query.path, { signal: AbortSignal.any([signal, abort.signal]) });
        async function* bytes(): AsyncGenerator<Uint8Array> {
          try {
            for await (const part of tar) yield part as Uint8Array;
          } finally {
            abort.abort();
            lease[Symbol.dispose]();
          }
        }
        return streamed(begun(bytes()), { "content-type": "application/x-tar" });
      } catch (error) {
        lease[Symbol.dispose]();
        throw error;
      }
    },
  );
  endpoints.add(
    {
      method: "put",
      path: "/sandboxes/{id}/files/archive",
      scope: "use",
      tag,
      summary: "Unpack a tar stream below a directory",
      params: SandboxId,
      query: PathQuery,
      rawBody: "application/x-tar",
      responses: done("Unpacked"),
      errors,
    },
    ({ c, sandboxes, params, query, signal }) =>
      operation({ sandboxes, params }, "file_unpack", { path: query.path, archive: true }, async ({ agent }) => {
        await agent.tarIn(query.path, bodyStream(c.req.raw, upload), { signal });
        return json({ status: "unpacked" });
      }),
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/files/watch",
      scope: "read",
      tag,
      summary: "Changes below a path, as server-sent events",
      params: SandboxId,
      query: PathQuery.extend({ recursive: Flag }),
      responses: { 200: { description: "`data: {change, path, to?}`", type: "text/event-stream" } },
      errors,
    },
    async ({ sandboxes, params, query, signal }) => {
      const lease = await sandboxes.lease(params.id);
      const abort = new AbortController();
      const release = (): void => {
        abort.abort();
        lease[Symbol.dispose]();
      };
      const inForce = Promise.withResolvers<void>();
      const changes = lease.agent
        .watch(query.path, {
          recursive: query.recursive,
          signal: AbortSignal.any([signal, abort.signal, parts.stopping]),
          ready: inForce.resolve,
        })
        [Symbol.asyncIterator]();
      let next = changes.next();
      try {
        // Whoever has the answer relies on it: what changes from now on is told. And what cannot be watched has a status of its own.
        await Promise.race([inForce.promise, next]);
      } catch (error) {
        release();
        throw error;
      }
      async function* events(): AsyncGenerator<string> {
        try {
          yield ": watching\n\n";
          for (;;) {
            const result = await resultOrTimeout(next, HEARTBEAT_MS);
            if (result === undefined) yield ": heartbeat\n\n";
            else if (result.done === true) return;
            else {
              next = changes.next();
              next.catch(() => {}); // met in the next round
              yield `data: ${JSON.stringify(result.value)}\n\n`;
            }
          }
        } finally {
          release();
        }
      }
      return streamed(begun(events()), SSE_HEADERS);
    },
  );
}

/** The usual move is one request to the guest; only one into a directory that is not there needs more. */
async function moveTo(agent: Agent, from: string, to: string, signal: AbortSignal): Promise<void> {
  try {
    await agent.move(from, to, { signal });
  } catch (error) {
    if (asStacyError(error).code !== "not-found") throw error;
    await agent.stat(from, { signal }); // it is not what shall be moved that is missing
    await agent.mkdir(posix.dirname(to), { parents: true, signal });
    await agent.move(from, to, { signal });
  }
}
