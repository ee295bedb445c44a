/** E2B's code interpreter, port 49999 of any sandbox: contexts, and code that runs in them, told as lines of JSON. */
import { z } from "zod";
import { readJson } from "../../api/body.ts";
import type { RouteAccess } from "../../api/endpoint.ts";
import { maybe } from "../../api/schemas/common.ts";
import { begun, NDJSON_HEADERS, streamed } from "../../api/streams.ts";
import { HeldInput } from "../../guest/held-input.ts";
import { asStacyError, StacyError } from "../../host/error.ts";
import { schemaWords } from "../../host/schema-words.ts";
import type { CodeEvent, ContextInfo } from "../../sandboxes/code.ts";
import type { Lease } from "../../sandboxes/sandbox.ts";
import { openGuest, type Target } from "../envd/guest.ts";
import { type GuestUser, pathOf } from "../envd/users.ts";
import { E2bError, notThere } from "../error.ts";
import { type E2bParts, INTERPRETER_PORT } from "../parts.ts";

const MAX_CODE = 16 << 20;
const HEALTH = "/health";

const ExecuteBody = z.object({
  code: z.string(),
  context_id: maybe(z.string()),
  language: maybe(z.string()),
  env_vars: maybe(z.record(z.string(), z.string())),
});
const ContextBody = z.object({ language: maybe(z.string()), cwd: maybe(z.string()) });

interface Call {
  target: Target;
  lease: Lease;
  request: Request;
  /** Of a context, from the path; empty where there is none. */
  id: string;
  /** Set by whoever frees the lease itself. */
  kept: boolean;
}

export class Interpreter {
  readonly #parts: E2bParts;
  /** By method and path, with `:id` for a context's. */
  readonly #routes: Readonly<Record<string, (call: Call) => Promise<Response>>> = {
    "POST /execute": (call) => {
      call.kept = true;
      return this.#execute(call);
    },
    "GET /contexts": async ({ target, lease, request }) => {
      const user = await this.#user(target, request);
      return Response.json((await target.sandboxes.code.contexts(lease)).map((info) => shown(info, user)));
    },
    "POST /contexts": async ({ target, lease, request }) => {
      const { language, cwd } = await this.#body(request, ContextBody, target.sandboxes.owner);
      const user = await this.#user(target, request);
      const begin = { ...asUser(user, target.id), cwd: pathOf(cwd || "~", user) };
      const { code } = target.sandboxes;
      const made = await known(code.create(lease, { ...begin, ...(language === undefined ? {} : { language }) }));
      return Response.json(shown(made, user));
    },
    "DELETE /contexts/:id": async ({ target, lease, id }) => {
      await found(id, target.sandboxes.code.remove(lease, id));
      return new Response(null, { status: 204 });
    },
    "POST /contexts/:id/restart": async ({ target, lease, request, id }) => {
      const user = await this.#user(target, request);
      await found(id, target.sandboxes.code.restart(lease, id, asUser(user, target.id)));
      return new Response(null, { status: 204 });
    },
  };

  constructor(parts: E2bParts) {
    this.#parts = parts;
  }

  get routes(): RouteAccess[] {
    const listed = Object.keys(this.#routes).map((each) => each.split(" ") as [string, string]);
    return [["ALL", HEALTH] as const, ...listed].map(([method, path]) => ({
      ...{ method, path, access: "sandbox", protocol: "E2B", port: INTERPRETER_PORT },
    }));
  }

  /** @param target a sandbox that runs, for whoever may use it. @throws StacyError, E2bError */
  async handle(target: Target, request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === HEALTH) return new Response(JSON.stringify("OK"), { status: 200 });
    const lease = await target.sandboxes.lease(target.id);
    const call: Call = { target, lease, request, id: "", kept: false };
    try {
      const [, first, id = "", action] = pathname.split("/");
      const route = `${request.method} /${[first, id && ":id", action].filter(Boolean).join("/")}`;
      const answer = Object.hasOwn(this.#routes, route) ? this.#routes[route] : undefined;
      if (answer === undefined) throw notThere(`${request.method} ${pathname} of the code interpreter`);
      call.id = id;
      return await answer(call);
    } finally {
      if (!call.kept) lease[Symbol.dispose]();
    }
  }

  /** Owns the lease. */
  async #execute({ target, lease, request }: Call): Promise<Response> {
    try {
      const {
        code,
        context_id,
        language,
        env_vars = {},
      } = await this.#body(request, ExecuteBody, target.sandboxes.owner);
      const user = await this.#user(target, request);
      const signal = AbortSignal.any([request.signal, this.#parts.stopping]);
      const running = target.sandboxes.code.run(
        lease,
        {
          code,
          env: env_vars,
          begin: { ...asUser(user, target.id), cwd: user.home },
          ...(context_id === undefined ? {} : { context: context_id }),
          ...(language === undefined ? {} : { language }),
        },
        signal,
      );
      // What cannot begin is an answer with a status of its own.
      const events = await found(context_id ?? "", known(running));
      return streamed(begun(told(events, lease)), NDJSON_HEADERS);
    } catch (error) {
      lease[Symbol.dispose]();
      throw error;
    }
  }

  /** Who its processes belong to. */
  async #user(target: Target, { signal }: Request): Promise<GuestUser> {
    const guest = await openGuest(this.#parts, target, signal);
    try {
      return (await guest.users()).find(undefined);
    } finally {
      guest.free();
    }
  }

  async #body<S extends z.ZodType>(request: Request, schema: S, owner: string): Promise<z.output<S>> {
    const timeoutMs = this.#parts.config.server.body_timeout;
    using held = new HeldInput(owner);
    const parsed = schema.safeParse((await readJson(request, { maxBytes: MAX_CODE, timeoutMs }, held)) ?? {}, {
      error: schemaWords,
    });
    if (parsed.success) return parsed.data;
    const issue = parsed.error.issues[0];
    throw new StacyError("invalid", `${issue?.path.join(".") || "the body"}: ${issue?.message}`);
  }
}

function asUser(user: GuestUser, id: string): { user: string; env: Record<string, string> } {
  return { user: user.name, env: { HOME: user.home, USER: user.name, E2B_SANDBOX_ID: id } };
}

/** `not-found` is said of sandboxes; of a context clients expect 404 with its name. */
async function found<T>(id: string, work: Promise<T>): Promise<T> {
  return await work.catch((error) => {
    if (error instanceof StacyError && error.code === "not-found") throw new E2bError(404, `Context ${id} not found`);
    throw error;
  });
}

async function known<T>(work: Promise<T>): Promise<T> {
  return await work.catch((error) => {
    if (error instanceof StacyError && error.code === "not-supported") throw notThere(error.message);
    throw error;
  });
}

/** The events in E2B's words. */
async function* told(events: AsyncGenerator<CodeEvent>, lease: Lease): AsyncGenerator<string> {
  const line = (event: object): string => `${JSON.stringify(event)}\n`;
  try {
    for await (const event of events) {
      if (event.type === "end") {
        yield line({ type: "number_of_executions", execution_count: event.execution_count });
        yield line({ type: "end_of_execution" });
      } else if (event.type === "stdout" || event.type === "stderr") {
        yield line({ ...event, timestamp: new Date().toISOString() });
      } else if (event.type === "result") yield line(withFloats(withExtra(withoutQuotes(event))));
      else yield line(event);
    }
  } catch (error) {
    const { code, message } = asStacyError(error);
    // Clients learn of its sandbox's end by a stream that breaks off, and look then.
    if (code === "machine-exited" || code === "disconnected" || code === "not-found") throw error;
    yield line({ type: "error", name: "ContextEnded", value: message, traceback: message });
    yield line({ type: "end_of_execution" });
  } finally {
    lease[Symbol.dispose]();
  }
}

/** E2B's numbers of a chart are all floats, which Python's clients tell from whole ones. */
export function withFloats(event: CodeEvent): CodeEvent {
  return event.chart === undefined ? event : { ...event, chart: floats(event.chart) };
}

function floats(value: unknown): unknown {
  // Those from 1e21 on are written with an exponent, which makes them floats.
  if (Number.isInteger(value) && /^-?\d+$/.test(String(value))) return rawJson(`${value}.0`);
  if (Array.isArray(value)) return value.map(floats);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, floats(each)]));
}

const KNOWN: ReadonlySet<string> = new Set([
  ...["type", "is_main_result", "text", "html", "markdown", "svg", "png", "jpeg"],
  ...["pdf", "latex", "json", "javascript", "data", "chart"],
]);

/** Forms that have no name of E2B's, by their types: JavaScript's clients find them among the others, Python's in `extra`. */
export function withExtra(event: CodeEvent): CodeEvent {
  const extra = Object.entries(event).filter(([name]) => !KNOWN.has(name));
  return extra.length === 0 ? event : { ...event, extra: Object.fromEntries(extra) };
}

/** Not yet among TypeScript's own. */
const { rawJSON: rawJson } = JSON as unknown as { rawJSON(text: string): unknown };

/** E2B shows a text as it is, and not as its language writes it. */
function withoutQuotes(event: CodeEvent): CodeEvent {
  const { text } = event;
  const quoted = typeof text === "string" && text.length > 1 && /^(?:'.*'|".*")$/s.test(text);
  return quoted ? { ...event, text: text.slice(1, -1) } : event;
}

function shown({ id, language, cwd }: ContextInfo, { home }: GuestUser): Record<string, string> {
  return { id, language, cwd: cwd ?? home };
}
