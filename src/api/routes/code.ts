/** The code interpreter: code with state between calls, and the contexts that it runs in. */
import { z } from "@hono/zod-openapi";
import type { CodeEvent } from "../../sandboxes/code.ts";
import type { Lease } from "../../sandboxes/sandbox.ts";
import { collectCode } from "../collected-code.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { problemOf } from "../problem.ts";
import {
  CodeBody,
  CodeRequest,
  ContextBody,
  ContextRequest,
  codeError,
  codeInput,
  codeResult,
  contextBody,
} from "../schemas/code.ts";
import { SandboxId, StatusBody } from "../schemas/common.ts";
import { defined } from "../schemas/values.ts";
import { begun, jsonRecord, NDJSON_HEADERS, streamed } from "../streams.ts";

const tag = "code";
const ContextId = SandboxId.extend({ context: z.string().max(128) });

export function codeRoutes(endpoints: Endpoints): void {
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/code",
      scope: "use",
      tag,
      summary: "Run code with state between calls",
      description:
        "What fails in the code is no error of the call. With `stream: true` the answer is NDJSON: `{type: stdout | stderr, text}`, `{type: result, ...}`, `{type: error, name, value, traceback}` and at last `{type: end, execution_count}`, or `{type: problem, code, message}`. A client that goes away interrupts the code.",
      params: SandboxId,
      body: CodeRequest,
      content: true,
      responses: { 200: { description: "The result, or the stream", schema: CodeBody, type: "application/x-ndjson" } },
      errors: [404, 408, 409, 501],
    },
    async ({ sandboxes, params, body, signal }) => {
      const lease = await sandboxes.lease(params.id);
      let events: AsyncGenerator<CodeEvent>;
      try {
        events = await sandboxes.code.run(lease, codeInput(body), signal);
      } catch (error) {
        lease[Symbol.dispose]();
        throw error;
      }
      if (body.stream === true) return streamed(begun(lines(events, lease)), NDJSON_HEADERS);
      using _ = lease;
      const memory = sandboxes.code.collecting(lease);
      try {
        const body = await collectCode(events, memory);
        return jsonRecord(body, () => memory[Symbol.dispose]());
      } catch (error) {
        memory[Symbol.dispose]();
        throw error;
      }
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/sandboxes/{id}/contexts",
      scope: "read",
      tag,
      summary: "Contexts that code runs in",
      params: SandboxId,
      responses: { 200: { description: "Oldest first", schema: z.array(ContextBody) } },
      errors: [404, 409],
    },
    async ({ sandboxes, params }) => {
      using lease = await sandboxes.lease(params.id);
      return json((await sandboxes.code.contexts(lease)).map(contextBody));
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/contexts",
      scope: "use",
      tag,
      summary: "Make a context, apart from the others",
      params: SandboxId,
      body: ContextRequest,
      bodyOptional: true,
      responses: { 201: { description: "It waits for code", schema: ContextBody } },
      errors: [404, 409, 501],
    },
    async ({ sandboxes, params, body }) => {
      using lease = await sandboxes.lease(params.id);
      const request = defined({ language: body.language, cwd: body.workdir, user: body.user, env: body.env });
      return json(contextBody(await sandboxes.code.create(lease, request)), 201);
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/sandboxes/{id}/contexts/{context}/restart",
      scope: "use",
      tag,
      summary: "Begin a context anew",
      params: ContextId,
      responses: { 200: { description: "The same, without its state", schema: ContextBody } },
      errors: [404, 409],
    },
    async ({ sandboxes, params }) => {
      using lease = await sandboxes.lease(params.id);
      return json(contextBody(await sandboxes.code.restart(lease, params.context)));
    },
  );
  endpoints.add(
    {
      method: "delete",
      path: "/sandboxes/{id}/contexts/{context}",
      scope: "use",
      tag,
      summary: "Remove a context with its process",
      params: ContextId,
      responses: { 200: { description: "It is gone", schema: StatusBody } },
      errors: [404, 409],
    },
    async ({ sandboxes, params }) => {
      using lease = await sandboxes.lease(params.id);
      await sandboxes.code.remove(lease, params.context);
      return json({ status: "removed" });
    },
  );
}

async function* lines(events: AsyncGenerator<CodeEvent>, lease: Lease): AsyncGenerator<string> {
  const line = (value: object): string => `${JSON.stringify(value)}\n`;
  try {
    for await (const event of events) {
      if (event.type === "result") yield line({ type: "result", ...codeResult(event) });
      else if (event.type === "error") yield line({ type: "error", ...codeError(event) });
      else yield line(event);
    }
  } catch (thrown) {
    yield line({ type: "problem", ...problemOf(thrown).body }); // and no `end`
  } finally {
    lease[Symbol.dispose]();
  }
}
