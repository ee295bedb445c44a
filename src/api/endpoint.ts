/**
 * An endpoint: method, path, scope and schemas in one place. From it come the route, the validation, the handler's types and
 * the OpenAPI document. A handler decides nothing: it gets valid input, calls the layer below and encodes the answer.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { OpenAPIHono, type RouteConfig, type z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { getPath } from "hono/utils/url";
import type { Logger } from "pino";
import type { Audit } from "../access/audit.ts";
import type { Identity, Scope } from "../access/identity.ts";
import { HeldInput } from "../guest/held-input.ts";
import { decodeName } from "../host/byte-name.ts";
import { StacyError } from "../host/error.ts";
import { schemaWords } from "../host/schema-words.ts";
import { withoutEnd } from "../host/trim.ts";
import type { ImageLibrary } from "../images/image.ts";
import { checkOwnerName, checkUser } from "../sandboxes/owner.ts";
import type { Sandboxes } from "../sandboxes/sandboxes.ts";
import { View } from "../sandboxes/view.ts";
import { addressOf } from "./auth.ts";
import { type BodyLimits, readJson } from "./body.ts";
import { OpenCalls } from "./open-calls.ts";
import { httpError, problemOf } from "./problem.ts";
import { ErrorBody } from "./schemas/common.ts";
import { fieldsOf, refuseUnknown } from "./unknown-fields.ts";
import type { Caller } from "./vouched.ts";

export interface Upgrade {
  incoming: IncomingMessage;
  socket: Duplex;
  head: Buffer;
  /** Set by whoever takes the socket; then there is no answer to write. */
  taken: boolean;
}

export interface ApiEnv {
  Variables: {
    requestId: string;
    /** Absent on pages for everybody, and in previews that are. */
    identity: Caller;
    log: Logger;
    /** Headers that say what the rate limit leaves. */
    rate: Record<string, string>;
    /** The route's pattern, for metrics. */
    route: string;
    /** Phases for `Server-Timing`, ms. */
    timing: Record<string, number>;
  };
  Bindings: { incoming?: IncomingMessage; outgoing?: ServerResponse; upgrade?: Upgrade };
}

/** What another protocol gets of the application: who calls is decided in one place. */
export interface Gate {
  /** Work for a caller that may do it: known, within its limits, with this scope. It sees what the caller may see. */
  admit(c: ApiContext, scope: Scope, work: (sandboxes: View) => Promise<Response> | Response): Promise<Response>;
  /** Counts a request without a key: for the sandbox whose token it has shown, else for its address. @throws HTTPException 429 */
  limit(c: ApiContext, sandboxId?: string): void;
  /** Ends the call soon after the key on which it stands; what is admitted by a key is followed already. */
  follow(c: ApiContext, by: Identity): void;
}

/** Another protocol on the same port, asked before our own routes. It is given no way to add what it does not list. */
export interface Mount {
  readonly routes: readonly RouteAccess[];
  /** @returns `undefined` for a request that is not of this protocol */
  answer(c: ApiContext, gate: Gate): Promise<Response | undefined>;
  /**
   * A public port was asked for by host name, as this protocol's clients do it too, and leads nowhere.
   * @returns what they are told; `undefined`: there are no words for it, and the answer is in our own form
   */
  leadsNowhere?(target: { id: string; port: number }, error: unknown): Response | undefined;
}

export type ApiContext = Context<ApiEnv>;
export type Api = OpenAPIHono<ApiEnv>;

export const API_BASE = "/api/v1";

export interface ResponseSpec {
  description: string;
  /** JSON by default. */
  schema?: z.ZodType;
  /** Another content type; its schema is binary. */
  type?: string;
}

export interface Endpoint<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType> {
  method: "get" | "post" | "put" | "patch" | "delete";
  /** Below the base, OpenAPI form: `/sandboxes/{id}`. */
  path: string;
  scope: Scope;
  /** Also below `/admin`, where only administrators may call it. */
  admin?: boolean;
  tag: string;
  summary: string;
  description?: string;
  params?: P;
  query?: Q;
  /** JSON. An empty body is `{}` when `bodyOptional`. */
  body?: B;
  bodyOptional?: boolean;
  /** Bytes of any kind, which the handler reads itself; its content type. */
  rawBody?: string;
  /** Its JSON may carry files, code, input or the arguments of a command, and be as large as those. */
  content?: true;
  responses: Record<number, ResponseSpec>;
  /** Statuses of errors, besides 400, 401, 403, 429 and 500, which any endpoint may answer. */
  errors?: number[];
}

export interface Call<P, Q, B> {
  c: ApiContext;
  params: P;
  query: Q;
  body: B;
  /** The sandboxes, as the caller may see them. */
  sandboxes: View;
  /** The images, by the caller's names. */
  images: ImageLibrary;
  /** From `X-User-ID`: for quotas, within the owner. */
  user: string | undefined;
  /** The client went away. */
  signal: AbortSignal;
  /** What the request's body takes of memory, until the answer begins, or the handler has no use for it any more. */
  held: HeldInput;
}

/** Where what is for every request hangs. */
const MIDDLEWARE: ReadonlySet<string> = new Set(["/*", `${API_BASE}/*`]);

const COMMON_ERRORS = [400, 401, 403, 408, 413, 429, 500, 503];

/** Who may call a route: whoever has the scope, or everybody; `sandbox`: whoever may use the sandbox, or shows its own token. */
export type Access = Scope | "everybody" | "sandbox";

/** A route as the application has it. */
export interface RouteAccess {
  /** `ALL`: any. */
  method: string;
  /** With `:names`. */
  path: string;
  access: Access;
  /** `undefined`: our own. */
  protocol?: "E2B";
  /** Of a sandbox, whose own it is; `other`: any that has no meaning here; `undefined`: it is the server's. */
  port?: number | "other";
  /** A link opens it, too: one with a signature that is for this alone. */
  link?: true;
}

export interface EndpointParts {
  limits: BodyLimits;
  /** For JSON that carries content. */
  contentLimits: BodyLimits;
  sandboxes: Sandboxes;
  images: ImageLibrary;
  audit: Audit;
}

export class Endpoints {
  readonly app: Api;
  /** Every route, with who may call it. */
  readonly table: RouteAccess[] = [];
  readonly #parts: EndpointParts;
  readonly #open = new OpenCalls();
  /** Of each path that can be read: what it has may come back there. */
  readonly #records = new Map<string, ReadonlySet<string>>();
  readonly #paths: { pattern: RegExp; methods: string[] }[] = [];

  constructor(app: Api, parts: EndpointParts) {
    this.app = app;
    this.#parts = parts;
  }

  add<P extends z.ZodType, Q extends z.ZodType, B extends z.ZodType>(
    endpoint: Endpoint<P, Q, B>,
    handler: (call: Call<z.output<P>, z.output<Q>, z.output<B>>) => Promise<Response> | Response,
  ): void {
    if (endpoint.admin === true) {
      this.add({ ...endpoint, admin: false, scope: "admin", path: `/admin${endpoint.path}` }, handler);
    }
    this.app.openAPIRegistry.registerPath(describe(endpoint));
    const route = `${API_BASE}${endpoint.path}`;
    const { images: library } = this.#parts;
    const limits = endpoint.content === true ? this.#parts.contentLimits : this.#parts.limits;
    if (endpoint.method === "get") this.#records.set(route, fieldsOf(endpoint.responses[200]?.schema));
    this.#on(endpoint.method.toUpperCase(), route, endpoint.scope, async (c, sandboxes) => {
      using held = new HeldInput(sandboxes.owner);
      const body = await this.#body(endpoint.body, c, { limits, held, optional: endpoint.bodyOptional === true });
      return await handler({
        c,
        held,
        params: check(endpoint.params, c.req.param(), "path"),
        query: check(endpoint.query, queryOf(c.req.url), "query"),
        body,
        sandboxes,
        get images() {
          return library.of({ name: sandboxes.owner, everything: sandboxes.caller.everything });
        },
        user: checkUser(c.req.header("x-user-id")),
        signal: c.req.raw.signal,
      });
    });
  }

  /** Only what the schema makes of it is there afterwards, and not a second time as it was sent. */
  async #body<B extends z.ZodType>(
    schema: B | undefined,
    c: ApiContext,
    { limits, held, optional }: { limits: BodyLimits; held: HeldInput; optional: boolean },
  ): Promise<z.output<B>> {
    if (schema === undefined) return undefined as z.output<B>;
    const body = await readJson(c.req.raw, limits, held, c.env.incoming);
    if (body === undefined && !optional) throw new StacyError("invalid", "a JSON body is required");
    refuseUnknown(schema, body ?? {}, this.#records.get(c.get("route")));
    return check(schema, body ?? {}, "body");
  }

  /** The methods of a path that has some. */
  allowed(path: string): string[] {
    const methods = this.#paths.filter(({ pattern }) => pattern.test(path)).flatMap((each) => each.methods);
    return [...new Set(methods)];
  }

  /** Nothing validated, and not in the document by itself. @param path below the base, OpenAPI form */
  raw(
    method: "GET" | "ALL",
    path: string,
    scope: Scope,
    handler: (c: ApiContext, sandboxes: View) => Promise<Response> | Response,
  ): void {
    this.#on(method, `${API_BASE}${path}`, scope, handler);
  }

  /** Something for everybody, without any data of anybody. @param path from the root */
  page(path: string, handler: (c: ApiContext) => Promise<Response> | Response): void {
    this.table.push({ method: "GET", path, access: "everybody" });
    this.app.get(path, handler);
  }

  /** @throws StacyError `internal` for a route that does not say who may call it */
  assertComplete(): void {
    for (const { method, path } of this.app.routes) {
      if (method === "ALL" && MIDDLEWARE.has(path)) continue;
      if (this.table.some((each) => each.method === method && each.path === path)) continue;
      throw new StacyError("internal", `the route ${method} ${path} does not say who may call it`, {
        remedy: "add it by Endpoints",
      });
    }
  }

  #on(
    method: string,
    route: string,
    scope: Scope,
    handler: (c: ApiContext, sandboxes: View) => Promise<Response> | Response,
  ): void {
    if (method !== "ALL") this.#know(method, route);
    const path = route.replaceAll(/\{(\w+)\}/g, ":$1");
    this.table.push({ method, path, access: scope });
    const guarded = (c: ApiContext): Promise<Response> => {
      c.set("route", route);
      return this.guard(c, scope, (sandboxes) => handler(c, sandboxes));
    };
    if (method === "ALL") this.app.all(path, guarded);
    else this.app.on(method, path, guarded);
  }

  follow(c: ApiContext, by: Identity): void {
    this.#open.follow(c.env, by);
  }

  /** Lets the work have what the caller may see, if the caller may call it at all; what administrators do is written down. */
  async guard(c: ApiContext, scope: Scope, work: (sandboxes: View) => Promise<Response> | Response): Promise<Response> {
    const caller = c.get("identity") as Caller | undefined;
    if (caller === undefined) throw httpError(401, "missing API key");
    if (!caller.scopes.has(scope)) {
      throw new StacyError("permission", `this key does not have the scope ${scope}`, {
        remedy: `use one that has it: \`stacyvm key create --scope ${scope} NAME\`${scope === "admin" ? ", or auth.admin_api_key" : ""}`,
      });
    }
    this.follow(c, caller);
    const sandboxes = this.#viewOf(c, caller);
    let status = 500;
    const begun = performance.now();
    try {
      const response = await work(sandboxes);
      status = response.status;
      return response;
    } catch (error) {
      status = problemOf(error).status;
      throw error;
    } finally {
      const changes = scope === "admin" && c.req.method !== "GET" && c.req.method !== "HEAD";
      if (changes || sandboxes.foreign.size > 0) this.#audit(c, caller, sandboxes, status, performance.now() - begun);
    }
  }

  /** An administrator sees all, or, with `X-Owner`, acts as that owner; clients of the published server call it their tenant. */
  #viewOf(c: ApiContext, caller: Caller): View {
    // What is below /admin is about all tenants, whichever one a client names in each of its requests.
    const tenant = c.req.path.startsWith(`${API_BASE}/admin/`) ? undefined : c.req.header("x-tenant-id")?.trim();
    const named = c.req.header("x-owner") || tenant;
    const everything = caller.scopes.has("admin");
    const { sandboxes } = this.#parts;
    const limit = caller.hosts === undefined ? {} : { hosts: caller.hosts };
    if (named === undefined || named === "") return new View(sandboxes, { owner: caller.owner, everything, ...limit });
    const owner = checkOwnerName(named);
    if (owner !== caller.owner && !everything) {
      throw new StacyError("permission", "this key does not act for other owners", {
        remedy: `use a key of this owner (\`stacyvm key create --owner ${owner} NAME\`), or one with the scope admin`,
      });
    }
    const view = new View(sandboxes, { owner, everything: false, ...limit });
    if (owner !== caller.owner) view.foreign.add(owner);
    return view;
  }

  #audit(c: ApiContext, caller: Caller, sandboxes: View, status: number, durationMs: number): void {
    const about = [...sandboxes.foreign];
    const userAgent = c.req.header("user-agent")?.slice(0, 256);
    this.#parts.audit.add({
      at: Date.now(),
      actor: caller.name,
      ...(caller.keyId === undefined ? {} : { keyId: caller.keyId }),
      owner: caller.owner,
      ...(about.length === 0 ? {} : { about }),
      method: c.req.method,
      route: c.get("route"),
      path: c.req.path.slice(0, 512),
      status,
      requestId: c.get("requestId"),
      address: addressOf(c.env.incoming),
      durationMs,
      ...(userAgent === undefined ? {} : { userAgent }),
    });
  }

  #know(method: string, route: string): void {
    const pattern = new RegExp(`^${route.replaceAll(".", "\\.").replaceAll(/\{\w+\}/g, "[^/]+")}$`);
    this.#paths.push({ pattern, methods: method === "GET" ? ["GET", "HEAD"] : [method] });
  }
}

function check<S extends z.ZodType>(schema: S | undefined, value: unknown, where: string): z.output<S> {
  if (schema === undefined) return undefined as z.output<S>;
  const result = schema.safeParse(value, { error: schemaWords });
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const at = issue?.path.join(".") ?? "";
  throw new StacyError("invalid", `${at === "" ? where : at}: ${issue?.message ?? "is not valid"}`);
}

function describe(endpoint: Endpoint<z.ZodType, z.ZodType, z.ZodType>): RouteConfig {
  const responses: RouteConfig["responses"] = {};
  for (const [status, { description, schema, type }] of Object.entries(endpoint.responses)) {
    if (schema === undefined && type === undefined) responses[status] = { description };
    else {
      const content = {
        ...(schema === undefined ? {} : { "application/json": { schema } }),
        ...(type === undefined ? {} : { [type]: { schema: { type: "string" as const, format: "binary" } } }),
      };
      responses[status] = { description, content };
    }
  }
  for (const status of new Set([...COMMON_ERRORS, ...(endpoint.errors ?? [])])) {
    responses[status] ??= { description: "Error", content: { "application/json": { schema: ErrorBody } } };
  }
  const request: NonNullable<RouteConfig["request"]> = {};
  if (endpoint.params !== undefined) request.params = endpoint.params as never;
  if (endpoint.query !== undefined) request.query = endpoint.query as never;
  if (endpoint.body !== undefined) {
    request.body = {
      required: endpoint.bodyOptional !== true,
      content: { "application/json": { schema: endpoint.body } },
    };
  } else if (endpoint.rawBody !== undefined) {
    request.body = {
      required: true,
      content: { [endpoint.rawBody]: { schema: { type: "string", format: "binary" } } },
    };
  }
  return {
    method: endpoint.method,
    path: `${API_BASE}${endpoint.path}`,
    tags: [endpoint.tag],
    summary: endpoint.summary,
    description: [endpoint.description, `Scope: ${endpoint.scope}.`].filter(Boolean).join("\n\n"),
    request,
    responses,
  };
}

/** JSON with a newline at its end, as clients of the published server know it. */
export function json(value: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return jsonText(`${JSON.stringify(value)}\n`, status, headers);
}

/** @param text JSON already */
export function jsonText(text: string, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(text, { status, headers: { "content-type": "application/json", ...headers } });
}

/** A slash at the end changes nothing, except below a guest's port, where it is the guest's. */
export function newApi(): Api {
  return new OpenAPIHono<ApiEnv>({
    getPath: (request) => {
      const path = getPath(request);
      const ours = path.startsWith(`${API_BASE}/`) && !/^\/api\/v1\/sandboxes\/[^/]*\/ports\//.test(path);
      return ours && path.endsWith("/") ? withoutEnd(path, "/") : path;
    },
  });
}

/** The first value of each name. Its bytes may be any (host/byte-name.ts). @throws StacyError `invalid` */
function queryOf(url: string): Record<string, string> {
  const at = url.indexOf("?");
  const query: Record<string, string> = {};
  if (at < 0) return query;
  for (const part of url
    .slice(at + 1)
    .replace(/#.*$/, "")
    .split("&")) {
    if (part === "") continue;
    const [name = "", value = ""] = part.split(/=(.*)/s, 2).map((text) => {
      try {
        return decodeName(text.replaceAll("+", " "));
      } catch {
        throw new StacyError("invalid", `the query is not percent-encoded as it should be: ${JSON.stringify(text)}`);
      }
    });
    if (!Object.hasOwn(query, name)) query[name] = value;
  }
  return query;
}
