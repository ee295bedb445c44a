/**
 * An endpoint: method, path, scope and schemas in one place. From it come the route, the validation, the handler's types and
 * the OpenAPI document. A handler decides nothing: it gets valid input, calls the layer below and encodes the answer.
 */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { OpenAPIHono, type RouteConfig, type z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { getPath } from "hono/utils/url";
import type { Logger } from "pino";
import { StacyError } from "../host/error.ts";
import { checkOwner } from "../sandboxes/owner.ts";
import type { Identity, Scope } from "./auth.ts";
import { type BodyLimits, readJson } from "./body.ts";
import { httpError } from "./problem.ts";
import { ErrorBody } from "./schemas/common.ts";

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
    identity: Identity;
    log: Logger;
    /** The route's pattern, for metrics. */
    route: string;
    /** Phases for `Server-Timing`, ms. */
    timing: Record<string, number>;
  };
  Bindings: { incoming?: IncomingMessage; upgrade?: Upgrade };
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
  /** Limit for a JSON body if not the usual one. */
  maxBytes?: number;
  responses: Record<number, ResponseSpec>;
  /** Statuses of errors, besides 400, 401, 403, 429 and 500, which any endpoint may answer. */
  errors?: number[];
}

export interface Call<P, Q, B> {
  c: ApiContext;
  params: P;
  query: Q;
  body: B;
  /** From `X-User-ID`. */
  owner: string | undefined;
  /** The client went away. */
  signal: AbortSignal;
}

const COMMON_ERRORS = [400, 401, 403, 408, 413, 429, 500, 503];

export class Endpoints {
  readonly app: Api;
  readonly #limits: BodyLimits;
  readonly #paths: { pattern: RegExp; methods: string[] }[] = [];

  constructor(app: Api, limits: BodyLimits) {
    this.app = app;
    this.#limits = limits;
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
    this.#note(endpoint.method, route);
    const limits = endpoint.maxBytes === undefined ? this.#limits : { ...this.#limits, maxBytes: endpoint.maxBytes };
    this.app.on(endpoint.method.toUpperCase(), route.replaceAll(/\{(\w+)\}/g, ":$1"), async (c) => {
      c.set("route", route);
      if (!c.get("identity").scopes.has(endpoint.scope)) {
        throw httpError(403, `this key does not have the scope ${endpoint.scope}`);
      }
      const body = endpoint.body === undefined ? undefined : await readJson(c.req.raw, limits);
      if (body === undefined && endpoint.body !== undefined && endpoint.bodyOptional !== true) {
        throw new StacyError("invalid", "a JSON body is required");
      }
      return handler({
        c,
        params: check(endpoint.params, c.req.param(), "path"),
        query: check(endpoint.query, c.req.query(), "query"),
        body: check(endpoint.body, body ?? {}, "body"),
        owner: checkOwner(c.req.header("x-user-id")),
        signal: c.req.raw.signal,
      });
    });
  }

  /** The methods of a path that has some. */
  allowed(path: string): string[] {
    const methods = this.#paths.filter(({ pattern }) => pattern.test(path)).flatMap((each) => each.methods);
    return [...new Set(methods)];
  }

  #note(method: string, route: string): void {
    const pattern = new RegExp(`^${route.replaceAll(".", "\\.").replaceAll(/\{\w+\}/g, "[^/]+")}$`);
    const methods = method === "get" ? ["GET", "HEAD"] : [method.toUpperCase()];
    this.#paths.push({ pattern, methods });
  }
}

function check<S extends z.ZodType>(schema: S | undefined, value: unknown, where: string): z.output<S> {
  if (schema === undefined) return undefined as z.output<S>;
  const result = schema.safeParse(value);
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
  return new Response(`${JSON.stringify(value)}\n`, {
    status,
    headers: { "content-type": "application/json", ...headers },
  });
}

/** A slash at the end changes nothing, except below a guest's port, where it is the guest's. */
export function newApi(): Api {
  return new OpenAPIHono<ApiEnv>({
    getPath: (request) => {
      const path = getPath(request);
      const ours = path.startsWith(`${API_BASE}/`) && !/^\/api\/v1\/sandboxes\/[^/]*\/ports\//.test(path);
      return ours && path.endsWith("/") ? path.replace(/\/+$/, "") : path;
    },
  });
}
