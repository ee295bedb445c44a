/** E2B's code interpreter, port 49999 of any sandbox: contexts, and code that runs in them, told as lines of JSON. */
import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { readJson } from "../../api/body.ts";
import { begun, NDJSON_HEADERS, streamed } from "../../api/streams.ts";
import { asStacyError, StacyError } from "../../host/error.ts";
import { type Guest, openGuest, type Target } from "../envd/guest.ts";
import { pathOf } from "../envd/users.ts";
import { E2bError, notThere } from "../error.ts";
import type { E2bParts } from "../parts.ts";
import { Context, type DriverEvent } from "./context.ts";

const DRIVER = "/run/stacyvm-interpreter.py";
const MAX_CODE = 16 << 20;
const PYTHON = new Set(["python", "python3"]);

const optional = <T extends z.ZodType>(schema: T) => schema.nullish().transform((value) => value ?? undefined);
const ExecuteBody = z.object({
  code: z.string(),
  context_id: optional(z.string()),
  language: optional(z.string()),
  env_vars: optional(z.record(z.string(), z.string())),
});
const ContextBody = z.object({ language: optional(z.string()), cwd: optional(z.string()) });

export class Interpreter {
  readonly #parts: E2bParts;
  /** By sandbox and id. The default one has the id of its language. */
  readonly #contexts = new Map<string, Map<string, Promise<Context>>>();

  constructor(parts: E2bParts) {
    this.#parts = parts;
  }

  /** @param target a sandbox that runs, for whoever may use it. @throws StacyError, E2bError */
  async handle(target: Target, request: Request): Promise<Response> {
    const { id } = target;
    const { pathname } = new URL(request.url);
    if (pathname === "/health") return new Response(JSON.stringify("OK"), { status: 200 });
    const [, first, context, action] = pathname.split("/");
    const route = `${request.method} ${[first, context && ":id", action].filter(Boolean).join("/")}`;
    switch (route) {
      case "POST execute":
        return await this.#execute(target, request);
      case "GET contexts":
        return Response.json((await this.#all(id)).map(shown));
      case "POST contexts": {
        const { language, cwd } = await this.#body(request, ContextBody);
        checkLanguage(language);
        return Response.json(shown(await this.#start(target, randomUUID(), cwd)));
      }
      case "DELETE contexts/:id":
        await (await this.#find(id, context ?? "")).close();
        this.#contexts.get(id)?.delete(context ?? "");
        return new Response(null, { status: 204 });
      case "POST contexts/:id/restart": {
        const { cwd, id: name } = await this.#find(id, context ?? "");
        await (await this.#find(id, name)).close();
        await this.#start(target, name, cwd);
        return new Response(null, { status: 204 });
      }
      default:
        throw notThere(`${request.method} ${pathname} of the code interpreter`);
    }
  }

  async #execute(target: Target, request: Request): Promise<Response> {
    const { code, context_id, language, env_vars = {} } = await this.#body(request, ExecuteBody);
    if (context_id !== undefined && language !== undefined) {
      throw new StacyError("invalid", "only one of context_id and language can be given");
    }
    checkLanguage(language);
    const lease = await target.sandboxes.lease(target.id);
    try {
      const context = context_id === undefined ? await this.#default(target) : await this.#find(target.id, context_id);
      const signal = AbortSignal.any([request.signal, this.#parts.stopping]);
      return streamed(begun(told(context.run(code, env_vars, signal), () => lease[Symbol.dispose]())), NDJSON_HEADERS);
    } catch (error) {
      lease[Symbol.dispose]();
      throw error;
    }
  }

  async #body<S extends z.ZodType>(request: Request, schema: S): Promise<z.output<S>> {
    const timeoutMs = this.#parts.config.server.body_timeout;
    const parsed = schema.safeParse((await readJson(request, { maxBytes: MAX_CODE, timeoutMs })) ?? {});
    if (parsed.success) return parsed.data;
    const issue = parsed.error.issues[0];
    throw new StacyError("invalid", `${issue?.path.join(".") || "the body"}: ${issue?.message}`);
  }

  async #default(target: Target): Promise<Context> {
    const known = await this.#contexts.get(target.id)?.get("python");
    return known !== undefined && !known.ended ? known : await this.#start(target, "python", undefined);
  }

  /** @throws E2bError 404 */
  async #find(id: string, context: string): Promise<Context> {
    const found = await this.#contexts.get(id)?.get(context);
    if (found !== undefined) return found;
    throw new E2bError(404, `Context ${context} not found`);
  }

  async #all(id: string): Promise<Context[]> {
    return await Promise.all(this.#contexts.get(id)?.values() ?? []);
  }

  /** Once, however many ask for it at the same time. */
  #start(target: Target, name: string, cwd: string | undefined): Promise<Context> {
    const { id } = target;
    const own = this.#contexts.get(id) ?? new Map<string, Promise<Context>>();
    this.#contexts.set(id, own);
    const starting = (async () => {
      const guest = await openGuest(this.#parts, target);
      try {
        return await start(guest, name, cwd);
      } finally {
        guest.free();
      }
    })();
    own.set(name, starting);
    starting.catch(() => own.get(name) === starting && own.delete(name));
    return starting;
  }
}

async function start(guest: Guest, id: string, cwd: string | undefined): Promise<Context> {
  const { agent } = guest;
  const user = (await guest.users()).find(undefined);
  await agent.writeFile(DRIVER, await driver(), { mode: 0o644 });
  return await Context.start(agent, {
    id,
    cwd: pathOf(cwd ?? "", user),
    user: user.name,
    env: { HOME: user.home, USER: user.name, E2B_SANDBOX_ID: guest.id },
    driver: DRIVER,
  });
}

let text: Promise<Buffer> | undefined;
function driver(): Promise<Buffer> {
  text ??= readFile(new URL("driver.py", import.meta.url));
  return text;
}

/** The driver's events in E2B's words. */
async function* told(events: AsyncGenerator<DriverEvent>, done: () => void): AsyncGenerator<string> {
  const line = (event: DriverEvent): string => `${JSON.stringify(event)}\n`;
  try {
    for await (const event of events) {
      if (event.type === "end") {
        yield line({ type: "number_of_executions", execution_count: event.count });
        yield line({ type: "end_of_execution" });
      } else if (event.type === "stdout" || event.type === "stderr") {
        yield line({ ...event, timestamp: new Date().toISOString() });
      } else yield line(event);
    }
  } catch (error) {
    const { message } = asStacyError(error);
    yield line({ type: "error", name: "ContextEnded", value: message, traceback: message });
    yield line({ type: "end_of_execution" });
  } finally {
    done();
  }
}

function shown({ id, language, cwd }: Context): Record<string, string> {
  return { id, language, cwd };
}

function checkLanguage(language: string | undefined): void {
  if (language !== undefined && !PYTHON.has(language)) throw notThere(`code in ${language}`);
}
