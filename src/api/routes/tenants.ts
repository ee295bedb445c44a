/**
 * The published server's tenants. Here they are owners: one is there as soon as a key says so, its members are its keys, and
 * what may be pulled and reached is the server's configuration for all. So they are shown, and made elsewhere.
 */
import { z } from "@hono/zod-openapi";
import type { KeyRecord } from "../../access/keys.ts";
import { StacyError } from "../../host/error.ts";
import { DEFAULT_OWNER } from "../../sandboxes/owner.ts";
import type { View } from "../../sandboxes/view.ts";
import type { RouteParts } from "../context.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { SandboxId } from "../schemas/common.ts";
import { auditBody, PublishedAuditBody } from "../schemas/published-audit.ts";
import { iso } from "../schemas/sandbox.ts";

const tag = "tenants";
const AUDIT_LIMIT = 200;

const TenantBody = z
  .object({
    id: z.string(),
    name: z.string(),
    owner_id: z.string(),
    settings: z.string(),
    created_at: z.string(),
    updated_at: z.string(),
  })
  .openapi("Tenant");
const MemberBody = z
  .object({
    tenant_id: z.string(),
    user_id: z.string().openapi({ description: "The key's name" }),
    role: z.enum(["viewer", "operator", "admin"]),
    created_at: z.string(),
    updated_at: z.string(),
  })
  .openapi("TenantMember");

export function tenantRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const { keys } = parts.access;
  /** Those that the caller may know of: an administrator all, and one who acts as an owner that one's. */
  const active = ({ caller, owner }: View): KeyRecord[] =>
    keys.list(caller.everything ? undefined : owner).filter((key) => keys.state(key) === "active");

  function tenants(view: View): z.output<typeof TenantBody>[] {
    const since = new Map([[view.caller.everything ? DEFAULT_OWNER : view.owner, parts.startedAt]]);
    for (const { owner, createdAt } of active(view)) {
      since.set(owner, Math.min(since.get(owner) ?? createdAt, createdAt));
    }
    return [...since].sort().map(([id, at]) => ({
      id,
      name: id,
      owner_id: id,
      settings: "{}",
      created_at: iso(at),
      updated_at: iso(at),
    }));
  }
  function tenant(view: View, id: string): z.output<typeof TenantBody> {
    const found = tenants(view).find((each) => each.id === id);
    if (found === undefined) throw new StacyError("not-found", `there is no owner ${JSON.stringify(id.slice(0, 64))}`);
    return found;
  }

  endpoints.add(
    {
      method: "get",
      path: "/admin/tenants",
      scope: "admin",
      tag,
      summary: "Owners, in the published server's form",
      description: "Those that a key of this server names, and `default`.",
      responses: { 200: { description: "By name", schema: z.object({ tenants: z.array(TenantBody) }) } },
    },
    ({ sandboxes }) => json({ tenants: tenants(sandboxes) }),
  );
  endpoints.add(
    {
      method: "get",
      path: "/admin/tenants/{id}",
      scope: "admin",
      tag,
      summary: "One owner",
      params: SandboxId,
      responses: { 200: { description: "The owner", schema: z.object({ tenant: TenantBody }) } },
      errors: [404],
    },
    ({ params, sandboxes }) => json({ tenant: tenant(sandboxes, params.id) }),
  );
  endpoints.add(
    {
      method: "get",
      path: "/admin/tenants/{id}/members",
      scope: "admin",
      tag,
      summary: "An owner's keys",
      params: SandboxId,
      responses: { 200: { description: "Those that work", schema: z.object({ members: z.array(MemberBody) }) } },
      errors: [404],
    },
    ({ params, sandboxes }) => {
      tenant(sandboxes, params.id);
      const members = active(sandboxes).filter(({ owner }) => owner === params.id);
      return json({
        members: members.map(({ owner, name, scopes, createdAt }) => ({
          tenant_id: owner,
          user_id: name,
          role: scopes.includes("admin") ? "admin" : scopes.includes("use") ? "operator" : "viewer",
          created_at: iso(createdAt),
          updated_at: iso(createdAt),
        })),
      });
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/admin/tenants/{id}/policies",
      scope: "admin",
      tag,
      summary: "An owner's policies: none of its own",
      description:
        "What may be pulled and reached is `images.allow`, `images.deny` and `network.allow`, for all owners.",
      params: SandboxId,
      responses: {
        200: { description: "None", schema: z.object({ policies: z.array(z.record(z.string(), z.unknown())) }) },
      },
      errors: [404],
    },
    ({ params, sandboxes }) => {
      tenant(sandboxes, params.id);
      return json({ policies: [] });
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/admin/tenants/{id}/audit",
      scope: "admin",
      tag,
      summary: "What administrators did with an owner's things",
      params: SandboxId,
      responses: {
        200: {
          description: "Newest first",
          schema: z.object({
            tenant_id: z.string(),
            admin_audit: z.array(PublishedAuditBody),
            op_audit: z.array(z.record(z.string(), z.unknown())),
            exported_at: z.string(),
          }),
        },
      },
      errors: [404],
    },
    ({ params, sandboxes }) => {
      tenant(sandboxes, params.id);
      const about = parts.audit.list({ about: params.id, limit: AUDIT_LIMIT });
      return json({
        tenant_id: params.id,
        admin_audit: about.map(auditBody),
        op_audit: [],
        exported_at: iso(Date.now()),
      });
    },
  );

  for (const [method, path, remedy] of [
    ["post", "/admin/tenants", "make a key for the owner: `stacyvm key create --owner NAME`, or POST /api/v1/keys"],
    ["put", "/admin/tenants/{id}", "an owner is only its name; make keys for another one"],
    ["delete", "/admin/tenants/{id}", "revoke its keys: `stacyvm key revoke`"],
    ["put", "/admin/tenants/{id}/members/{member}", "make a key with the scopes that are wanted: `stacyvm key create`"],
    ["delete", "/admin/tenants/{id}/members/{member}", "revoke the key: `stacyvm key revoke`"],
    ["post", "/admin/tenants/{id}/policies", "set images.allow, images.deny or network.allow in the configuration"],
    ["delete", "/admin/tenants/{id}/policies/{member}", "there is none of its own"],
  ] as const) {
    endpoints.add(
      {
        method,
        path,
        scope: "admin",
        tag,
        summary: "Owners are made otherwise here",
        description: `501: ${remedy}.`,
        ...(path.includes("{member}")
          ? { params: SandboxId.extend({ member: z.string() }) }
          : path.includes("{id}")
            ? { params: SandboxId }
            : {}),
        responses: {},
        errors: [501],
      },
      () => {
        throw new StacyError("not-supported", "tenants are owners here, which come with their keys", { remedy });
      },
    );
  }
}
