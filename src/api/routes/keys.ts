/** Who may call: keys that this server makes, for administrators; what administrators did; and who the caller is. */
import { z } from "@hono/zod-openapi";
import type { KeyRecord } from "../../access/keys.ts";
import { HostRules } from "../../egress/host-rules.ts";
import type { RouteParts } from "../context.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { AllowedHosts, Duration, maybe, OwnerName, whole } from "../schemas/common.ts";
import { auditBody, auditCsv, PublishedAuditBody } from "../schemas/published-audit.ts";
import { defined, iso } from "../schemas/values.ts";

const ScopeName = z.enum(["read", "use", "admin"]);

const KeyBody = z
  .object({
    id: z.string(),
    name: z.string(),
    owner: z.string(),
    scopes: z.array(ScopeName),
    state: z.enum(["active", "expired", "revoked"]),
    allowed_hosts: z.array(z.string()).optional(),
    hint: z.string().openapi({ description: "The first characters of the secret" }),
    created_at: z.string(),
    created_by: z.string(),
    expires_at: z.string().optional(),
    revoked_at: z.string().optional(),
    last_used_at: z.string().optional(),
  })
  .openapi("Key");
const MadeKeyBody = KeyBody.extend({
  key: z.string().openapi({ description: "The secret: shown once, and never again" }),
}).openapi("MadeKey");

const KeyRequest = z
  .object({
    name: z.string().min(1).max(128),
    owner: maybe(OwnerName),
    scopes: maybe(z.array(ScopeName).min(1)),
    expires_in: maybe(Duration),
    allowed_hosts: maybe(AllowedHosts).openapi({
      type: "array",
      items: { type: "string" },
      description: "What the sandboxes that it makes or sets may connect to at most (default: no limit of its own)",
    }),
  })
  .openapi("KeyRequest");

const AuditBody = z
  .object({
    id: z.int(),
    at: z.string(),
    actor: z.string(),
    key_id: z.string().optional(),
    owner: z.string(),
    about: z.array(z.string()).optional().openapi({ description: "Other owners whose things were used" }),
    method: z.string(),
    route: z.string(),
    path: z.string(),
    status: z.int(),
    request_id: z.string(),
    address: z.string().optional(),
    user_agent: z.string().optional(),
    duration_ms: z.number().optional(),
  })
  .openapi("AuditEntry");

const AuditQuery = z.object({
  limit: whole(1, 1_000).default(100),
  before: whole(1, Number.MAX_SAFE_INTEGER).optional(),
  actor: z.string().max(128).optional(),
  method: z.string().max(16).optional(),
  status: whole(100, 599).optional(),
  path: z.string().max(512).optional(),
  about: z.string().max(64).optional(),
});

const WhoBody = z.object({ name: z.string(), owner: z.string(), scopes: z.array(ScopeName) }).openapi("Identity");

const KeyParam = z.object({ key: z.string().min(1).max(128) });
const tag = "keys";

export function keyRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const { keys } = parts.access;
  const body = (record: KeyRecord): z.output<typeof KeyBody> => ({
    id: record.id,
    name: record.name,
    owner: record.owner,
    scopes: record.scopes,
    state: keys.state(record),
    hint: record.hint,
    created_at: iso(record.createdAt),
    created_by: record.createdBy,
    ...defined({
      allowed_hosts: record.allowedHosts,
      expires_at: record.expiresAt === undefined ? undefined : iso(record.expiresAt),
      revoked_at: record.revokedAt === undefined ? undefined : iso(record.revokedAt),
      last_used_at: record.lastUsedAt === undefined ? undefined : iso(record.lastUsedAt),
    }),
  });

  endpoints.add(
    {
      method: "get",
      path: "/identity",
      scope: "read",
      tag,
      summary: "Who the caller is to this server",
      responses: { 200: { description: "Name of the key, owner, scopes", schema: WhoBody } },
    },
    ({ c, sandboxes }) => {
      const { name, scopes } = c.get("identity");
      return json({ name, owner: sandboxes.owner, scopes: [...scopes] });
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/keys",
      scope: "admin",
      tag,
      summary: "Make a key",
      description:
        "For an owner (default: the caller's), with scopes (default: `use`). 256 bits; only its hash is kept.",
      body: KeyRequest,
      responses: { 201: { description: "With the secret", schema: MadeKeyBody } },
    },
    async ({ c, sandboxes, body: request }) => {
      const { name, owner = sandboxes.owner, scopes = ["use"], expires_in, allowed_hosts } = request;
      if (allowed_hosts !== undefined) new HostRules(allowed_hosts, parts.limits.hostGroups);
      const input = { name, owner, scopes, ...defined({ expiresInMs: expires_in, allowedHosts: allowed_hosts }) };
      const { record, secret } = await keys.create(input, c.get("identity").name);
      sandboxes.about(owner);
      return json({ ...body(record), key: secret }, 201);
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/keys",
      scope: "admin",
      tag,
      summary: "Keys that were made here, without their secrets",
      description: "Those of the configuration are in `/config`.",
      query: z.object({ owner: OwnerName.optional() }),
      responses: { 200: { description: "Oldest first; ended ones for 90 days", schema: z.array(KeyBody) } },
    },
    ({ query, sandboxes }) => json(keys.list(query.owner ?? sandboxes.only).map(body)),
  );
  endpoints.add(
    {
      method: "post",
      path: "/keys/{key}/rotate",
      scope: "admin",
      tag,
      summary: "A new secret for a key",
      description: "By id or name. The one before works on for `grace` (default: not at all).",
      params: KeyParam,
      body: z.object({ grace: maybe(Duration) }).openapi("KeyRotateRequest"),
      bodyOptional: true,
      responses: { 200: { description: "With the secret", schema: MadeKeyBody } },
      errors: [404, 409],
    },
    async ({ params, body: request }) => {
      const { record, secret } = await keys.rotate(params.key, request.grace ?? 0);
      return json({ ...body(record), key: secret });
    },
  );
  endpoints.add(
    {
      method: "delete",
      path: "/keys/{key}",
      scope: "admin",
      tag,
      summary: "Revoke a key, at once and for good",
      description: "By id or name. Requests that are under way, open streams among them, end by themselves.",
      params: KeyParam,
      responses: { 200: { description: "The key as it is now", schema: KeyBody } },
      errors: [404, 409],
    },
    async ({ params }) => json(body(await keys.revoke(params.key))),
  );
  endpoints.add(
    {
      method: "get",
      path: "/audit",
      scope: "admin",
      tag,
      summary: "What administrators did: to the server, and with other owners' things",
      query: AuditQuery,
      responses: { 200: { description: "Newest first", schema: z.array(AuditBody) } },
    },
    ({ query }) =>
      json(
        parts.audit.list(query).map(({ at, keyId, requestId, userAgent, durationMs, ...entry }) => ({
          ...entry,
          at: iso(at),
          request_id: requestId,
          ...defined({ key_id: keyId, user_agent: userAgent, duration_ms: durationMs }),
        })),
      ),
  );
  endpoints.add(
    {
      method: "get",
      path: "/admin/audit",
      scope: "admin",
      tag,
      summary: "The same in the published server's form",
      query: AuditQuery.extend({ format: z.string().max(16).optional() }).openapi({
        description: "`format=csv` for a table.",
      }),
      responses: { 200: { description: "Newest first", schema: z.array(PublishedAuditBody), type: "text/csv" } },
    },
    ({ query: { format, ...filter } }) => {
      const entries = parts.audit.list(filter).map(auditBody);
      if (format?.toLowerCase() !== "csv") return json(entries);
      return new Response(auditCsv(entries), {
        headers: {
          "content-type": "text/csv; charset=utf-8",
          "content-disposition": 'attachment; filename="stacyvm-admin-audit.csv"',
        },
      });
    },
  );
}
