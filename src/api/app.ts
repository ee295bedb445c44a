/** The application: middleware, routes, errors. A function from `Request` to `Response`; sockets are elsewhere (server.ts). */
import { DEFAULT_OWNER } from "../sandboxes/owner.ts";
import { View } from "../sandboxes/view.ts";
import { addressOf, assertLocalRequest, identify, originAllowed, presentedKeys } from "./auth.ts";
import { consoleRoutes } from "./console.ts";
import type { RouteParts, ServerParts } from "./context.ts";
import { type Document, describeFields } from "./describe-fields.ts";
import { docsRoutes } from "./docs-page.ts";
import {
  API_BASE,
  type Api,
  type ApiContext,
  Endpoints,
  type Gate,
  json,
  type Mount,
  newApi,
  type RouteAccess,
} from "./endpoint.ts";
import { assertOwnPage } from "./other-pages.ts";
import { isClosed, previewTarget, proxyPreview } from "./preview.ts";
import { httpError, mayFitElsewhere, problemOf, requestIdOf, retryAfterOf } from "./problem.ts";
import { codeRoutes } from "./routes/code.ts";
import { environmentRoutes } from "./routes/environments.ts";
import { eventRoutes } from "./routes/events.ts";
import { execRoutes } from "./routes/exec.ts";
import { fileRoutes } from "./routes/files.ts";
import { hostRoutes } from "./routes/host.ts";
import { imageBuildRoutes } from "./routes/image-build.ts";
import { imageRoutes } from "./routes/images.ts";
import { keyRoutes } from "./routes/keys.ts";
import { nodeRoutes } from "./routes/nodes.ts";
import { providerRoutes } from "./routes/providers.ts";
import { reportRoutes } from "./routes/reports.ts";
import { runRoutes } from "./routes/run.ts";
import { sandboxRoutes } from "./routes/sandboxes.ts";
import { secretRoutes } from "./routes/secrets.ts";
import { snapshotRoutes } from "./routes/snapshots.ts";
import { socketRoutes } from "./routes/sockets.ts";
import { systemRoutes } from "./routes/system.ts";
import { quotaRoutes, templateRoutes } from "./routes/templates.ts";
import { tenantRoutes } from "./routes/tenants.ts";
import { volumeRoutes } from "./routes/volumes.ts";
import { workerRoutes } from "./routes/workers.ts";
import { ErrorBody } from "./schemas/common.ts";
import { type Caller, REFUSAL_HEADER, vouchedOf } from "./vouched.ts";

const CORS_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD";
const CORS_HEADERS =
  "Content-Type,X-API-Key,X-Admin-API-Key,X-Owner,X-User-ID,X-Tenant-ID,X-Request-ID,Authorization,Last-Event-ID,Range";
const CORS_EXPOSED =
  "X-Request-ID,Server-Timing,Retry-After,X-RateLimit-Limit,X-RateLimit-Remaining,Content-Range,Accept-Ranges";

export interface App extends Api {
  /** Every route, other protocols' too, with who may call it. */
  readonly routeTable: readonly RouteAccess[];
}

export function createApp(parts: ServerParts, mounts: readonly Mount[] = []): App {
  const app = newApi();
  const { config, access, log, metrics, rateLimiter, sandboxes } = parts;

  app.onError((error, c) => fail(c, error));
  app.notFound((c) => {
    const { method, path } = c.req;
    const allowed = endpoints.allowed(path);
    if (allowed.length === 0) return fail(c, httpError(404, `there is no route ${method} ${path}`));
    const allow = allowed.join(", ");
    return fail(c, httpError(405, `${path} does not know ${method}, but ${allow}`), { allow });
  });

  function fail(c: ApiContext, error: unknown, headers: Record<string, string> = {}): Response {
    const problem = problemOf(error, c.get("requestId"));
    const about = { request: c.get("requestId"), route: c.get("route") };
    // Whoever stops the server ends what is under way: that is no error of its own.
    if (problem.status === 503 && parts.stopping.aborted) log.info(about, `cut off: ${problem.body.message}`);
    else log[problem.status >= 500 ? "error" : "debug"]({ err: error, ...about }, problem.body.message);
    if (vouchedOf(c.env.incoming)?.elsewhere && mayFitElsewhere(error)) headers[REFUSAL_HEADER] = "full";
    if (problem.status === 429 && c.res.headers.get("retry-after") === null) headers["retry-after"] = "1";
    const again = retryAfterOf(error);
    if (again !== undefined) headers["retry-after"] = again;
    return json(problem.body, problem.status, headers);
  }

  app.use(async (c, next) => {
    const begun = performance.now();
    c.set("requestId", requestIdOf(c.req.header("x-request-id")));
    c.set("timing", {});
    await next();
    // Hono answers HEAD by GET and drops the body unread: a stream behind it would keep its lease for ever.
    if (c.req.method === "HEAD" && c.res.body !== null) await c.res.body.cancel();
    const ms = performance.now() - begun;
    c.res.headers.set("x-request-id", c.get("requestId"));
    for (const [name, value] of Object.entries(c.get("rate") ?? {})) c.res.headers.set(name, value);
    const timing = Object.entries({ ...c.get("timing"), total: ms });
    c.res.headers.set("server-timing", timing.map(([name, value]) => `${name};dur=${value.toFixed(2)}`).join(", "));
    metrics.request(c.req.method, c.get("route") ?? "none", c.res.status, ms);
    log.debug(
      { request: c.get("requestId"), method: c.req.method, path: c.req.path, status: c.res.status, ms },
      "request",
    );
  });

  app.use(async (c, next) => {
    const origin = c.req.header("origin");
    const host = c.req.header("host");
    const allowed = origin !== undefined && originAllowed(origin, host, config);
    // A preflight carries no key by design; it is answered before anyone asks for one.
    if (c.req.method === "OPTIONS" && origin !== undefined && c.req.header("access-control-request-method")) {
      if (!allowed) throw httpError(403, "this origin is not allowed; see server.cors_allowed_origins");
      return new Response(null, {
        status: 204,
        headers: {
          "access-control-allow-origin": origin,
          "access-control-allow-methods": CORS_METHODS,
          "access-control-allow-headers": CORS_HEADERS,
          "access-control-max-age": "600",
          vary: "Origin",
        },
      });
    }
    // Pages for everybody too: what a foreign page cannot load, it cannot build upon.
    // A preview may be what is asked for, or E2B's protocol, with a sandbox's token: who else answers looks again (`identify`).
    // Of one that another node passes on, that node has looked.
    const known = vouchedOf(c.env.incoming);
    const unknown = known === undefined || known.refused !== undefined;
    if (unknown && access.ownUser && presentedKeys(c.req.raw.headers).length === 0) {
      assertLocalRequest(c.req.raw.headers, config, { preview: true });
      assertOwnPage(c.req.raw.headers, c.req.path, config);
    }
    await next();
    if (allowed) {
      c.res.headers.set("access-control-allow-origin", origin);
      c.res.headers.set("access-control-expose-headers", CORS_EXPOSED);
      c.res.headers.append("vary", "Origin");
    }
    return undefined;
  });

  const gate: Gate = {
    async admit(c, scope, work) {
      const caller = await identify(c.req.raw.headers, c.env.incoming, access, config);
      c.set("identity", caller);
      limit(c, bucketOf(c, caller));
      return endpoints.guard(c, scope, work);
    },
    limit(c, sandboxId) {
      const byAddress = sandboxId === undefined || config.rate_limit.key_by === "ip";
      limit(c, byAddress ? bucketOf(c) : `sandbox:${sandboxId}`);
    },
    follow: (c, by) => endpoints.follow(c, by),
  };
  for (const mount of mounts) app.use(async (c, next) => (await mount.answer(c, gate)) ?? next());

  // Previews by host name: everything under such a name is the guest's.
  app.use(async (c, next) => {
    const target = previewTarget(c.req.header("host"), config.server.preview_domain);
    if (target === undefined) return next();
    c.set("route", "preview");
    const { pathname, search } = new URL(c.req.url);
    const request = { ...target, path: `${pathname}${search}`, sameOrigin: false };
    // A public one shows what the sandbox's owner serves, to everybody; by name, the default owner's.
    const anyones = new View(sandboxes, { owner: DEFAULT_OWNER, everything: true });
    const closed = config.server.preview_public && isClosed(anyones, target.id);
    if (closed && presentedKeys(c.req.raw.headers).length === 0) {
      limit(c, bucketOf(c));
      throw httpError(403, "the ports of this sandbox are closed: show its traffic token, or a key");
    }
    if (config.server.preview_public && !closed) {
      limit(c, bucketOf(c));
      return proxyPreview(c, anyones, request).catch((error: unknown) => {
        for (const mount of mounts) {
          const told = mount.leadsNowhere?.(target, error);
          if (told !== undefined) return told;
        }
        throw error;
      });
    }
    const caller = await identify(c.req.raw.headers, c.env.incoming, access, config, { preview: true });
    c.set("identity", caller);
    limit(c, bucketOf(c, caller));
    return endpoints.guard(c, "use", (view) => proxyPreview(c, view, request));
  });

  app.use(`${API_BASE}/*`, async (c, next) => {
    const caller = await identify(c.req.raw.headers, c.env.incoming, access, config);
    c.set("identity", caller);
    limit(c, bucketOf(c, caller));
    return next();
  });

  /** Whose requests it counts among. What a caller says of itself (`X-User-ID`) makes no further bucket. */
  function bucketOf(c: ApiContext, caller?: Caller): string {
    const by = config.rate_limit.key_by;
    if (caller === undefined || by === "ip") return `address:${addressOf(c.env.incoming)}`;
    // Two owners may call their keys the same.
    return by === "owner"
      ? `owner:${caller.owner}`
      : `key:${caller.keyId ?? JSON.stringify([caller.owner, caller.name])}`;
  }

  /** @throws HTTPException 429 */
  function limit(c: ApiContext, bucket: string): void {
    if (rateLimiter === undefined) return;
    const { allowed, limit: perMinute, remaining, retryAfter } = rateLimiter.take(bucket);
    const rate = { "x-ratelimit-limit": String(perMinute), "x-ratelimit-remaining": String(remaining) };
    c.set("rate", allowed ? rate : { ...rate, "retry-after": String(retryAfter) });
    if (!allowed) throw httpError(429, "too many requests");
  }

  const endpoints = new Endpoints(app, {
    limits: { maxBytes: config.server.max_json_bytes, timeoutMs: config.server.body_timeout },
    contentLimits: { maxBytes: config.server.max_file_json_bytes, timeoutMs: config.server.body_timeout },
    sandboxes,
    images: parts.images,
    audit: parts.audit,
  });
  const { sandboxes: _bound, images: _owned, ...rest } = parts;
  const { providers, limits, store, policies } = sandboxes;
  const imageUsers = sandboxes.imageUsers(parts.images);
  const shared: RouteParts = { ...rest, providers, imageUsers, limits, store, policies };
  sandboxRoutes(endpoints, shared);
  execRoutes(endpoints, shared);
  codeRoutes(endpoints);
  runRoutes(endpoints);
  socketRoutes(endpoints, shared);
  fileRoutes(endpoints, shared);
  templateRoutes(endpoints, shared);
  quotaRoutes(endpoints, shared);
  secretRoutes(endpoints);
  volumeRoutes(endpoints, shared);
  providerRoutes(endpoints, shared);
  snapshotRoutes(endpoints);
  imageRoutes(endpoints, shared);
  imageBuildRoutes(endpoints, shared);
  systemRoutes(endpoints, shared);
  hostRoutes(endpoints, shared);
  eventRoutes(endpoints, shared);
  reportRoutes(endpoints, shared);
  workerRoutes(endpoints, shared);
  environmentRoutes(endpoints, shared);
  keyRoutes(endpoints, shared);
  nodeRoutes(endpoints, shared);
  tenantRoutes(endpoints, shared);

  // Any method and any path below: not an endpoint with a schema of its own, but documented as one.
  app.openAPIRegistry.registerPath({
    method: "get",
    path: `${API_BASE}/sandboxes/{id}/ports/{port}/{path}`,
    tags: ["streams"],
    summary: "HTTP to a port in the guest: any method, any path below, WebSockets too",
    description: `Also as http://{port}-{id}.${config.server.preview_domain}/. Scope: use.`,
    responses: {
      200: { description: "What the program in the guest answers; any other status of its own as well" },
      ...Object.fromEntries([400, 401, 403, 404, 409, 429, 503].map((status) => [status, PROBLEM])),
    },
  });
  endpoints.raw("ALL", "/sandboxes/{id}/ports/{port}/*", "use", (c, view) => {
    const port = Number(c.req.param("port"));
    if (!Number.isInteger(port) || port < 1 || port > 65_535) throw httpError(400, "port: is not a port");
    const { pathname, search } = new URL(c.req.url);
    const rest = pathname.slice(pathname.indexOf("/ports/") + 7).replace(/^\d+/, "");
    const id = c.req.param("id") ?? "";
    return proxyPreview(c, view, { id, port, path: `${rest || "/"}${search}`, sameOrigin: true });
  });

  const document = (): object => {
    const made = app.getOpenAPI31Document({
      openapi: "3.1.0",
      info: { title: "StacyVM", version: parts.version, description: "microVM sandboxes over HTTP." },
      servers: [{ url: "/" }],
      security: [{ apiKey: [] }, { adminKey: [] }, { bearer: [] }],
    });
    describeFields(made as unknown as Document);
    return made;
  };
  app.openAPIRegistry.registerComponent("securitySchemes", "apiKey", {
    type: "apiKey",
    in: "header",
    name: "X-API-Key",
  });
  app.openAPIRegistry.registerComponent("securitySchemes", "adminKey", {
    type: "apiKey",
    in: "header",
    name: "X-Admin-API-Key",
  });
  app.openAPIRegistry.registerComponent("securitySchemes", "bearer", { type: "http", scheme: "bearer" });
  let text: string | undefined;
  const documentText = (): string => (text ??= JSON.stringify(document()));
  const asJson = (): Response => new Response(documentText(), { headers: { "content-type": "application/json" } });
  endpoints.raw("GET", "/openapi.json", "read", asJson);
  endpoints.page("/swagger/doc.json", asJson);
  docsRoutes(endpoints);
  consoleRoutes(endpoints);
  endpoints.assertComplete();
  return Object.assign(app, { routeTable: [...endpoints.table, ...mounts.flatMap(({ routes }) => routes)] });
}

const PROBLEM = { description: "Error", content: { "application/json": { schema: ErrorBody } } };
