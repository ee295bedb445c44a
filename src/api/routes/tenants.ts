/**
 * The published server's tenants. Here they are owners (access/tenants.ts): a member is a key, and a policy is asked at each spawn
 * (sandboxes/policies.ts).
 */
import { z } from "@hono/zod-openapi";
import type { Member, Tenant, TenantInput } from "../../access/tenants.ts";
import { StacyError } from "../../host/error.ts";
import type { Policy } from "../../sandboxes/policies.ts";
import type { RouteParts } from "../context.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { maybe, OwnerName, SandboxId } from "../schemas/common.ts";
import { auditBody, PublishedAuditBody } from "../schemas/published-audit.ts";
import { iso } from "../schemas/values.ts";

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
const OneTenant = z.object({ tenant: TenantBody });
const Role = z.enum(["viewer", "operator", "admin"]);
const MemberBody = z
  .object({
    tenant_id: z.string(),
    user_id: z.string().openapi({ description: "The key's name" }),
    role: Role,
    created_at: z.string(),
    updated_at: z.string(),
  })
  .openapi("TenantMember");
const Effect = z.enum(["allow", "deny"]);
const PolicyBody = z
  .object({
    id: z.string(),
    tenant_id: z.string(),
    resource_type: z.string(),
    effect: Effect,
    pattern: z.string(),
    priority: z.int(),
    created_at: z.string(),
    updated_at: z.string(),
  })
  .openapi("TenantPolicy");
const PolicyRequest = z
  .object({
    resource_type: z.enum(["image", "provider", "network"]),
    effect: Effect,
    pattern: z.string().trim().min(1, "is required").max(512),
    priority: maybe(z.int().min(-1_000_000).max(1_000_000)),
  })
  .openapi("TenantPolicyRequest");
const DEFAULT_PRIORITY = 10;

const Text = z.string().trim().max(256);
const fields = { owner_id: maybe(Text), settings: maybe(z.unknown()) };
const CreateRequest = z
  .object({
    id: maybe(z.union([z.literal(""), OwnerName])),
    name: Text.min(1, "is required"),
    ...fields,
  })
  .openapi("TenantRequest");
const ChangeRequest = z.object({ name: maybe(Text), ...fields }).openapi("TenantChange");
const MemberParams = SandboxId.extend({ member: z.string().min(1).max(128) });
const MAX_SETTINGS = 65_536;

export function tenantRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const { tenants, policies } = parts;

  endpoints.add(
    {
      method: "get",
      path: "/admin/tenants",
      scope: "admin",
      tag,
      summary: "Owners, in the published server's form",
      description: "Those that were made here, those that a key names, and `default`.",
      responses: { 200: { description: "By id", schema: z.object({ tenants: z.array(TenantBody) }) } },
    },
    ({ sandboxes }) => json({ tenants: tenants.list(sandboxes.only).map(body) }),
  );
  endpoints.add(
    {
      method: "post",
      path: "/admin/tenants",
      scope: "admin",
      tag,
      summary: "Make an owner",
      description: "Its keys come later: `POST /keys`, or a member.",
      body: CreateRequest,
      responses: { 201: { description: "The owner", schema: OneTenant } },
      errors: [403, 409],
    },
    async ({ sandboxes, body: request }) => {
      const mine = sandboxes.only;
      if (mine !== undefined && request.id !== mine) {
        throw new StacyError("permission", `acting as the owner ${mine}, another one cannot be made`);
      }
      const tenant = await tenants.create(request.id || undefined, { name: request.name, ...given(request) });
      sandboxes.about(tenant.id);
      return json({ tenant: body(tenant) }, 201);
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/admin/tenants/{id}",
      scope: "admin",
      tag,
      summary: "One owner",
      params: SandboxId,
      responses: { 200: { description: "The owner", schema: OneTenant } },
      errors: [404],
    },
    ({ params, sandboxes }) => json({ tenant: body(tenants.get(params.id, sandboxes.only)) }),
  );
  endpoints.add(
    {
      method: "put",
      path: "/admin/tenants/{id}",
      scope: "admin",
      tag,
      summary: "Change what is said of an owner",
      params: SandboxId,
      body: ChangeRequest,
      responses: { 200: { description: "The owner", schema: OneTenant } },
      errors: [404],
    },
    async ({ params, sandboxes, body: request }) => {
      const input = { ...given(request), ...(request.name ? { name: request.name } : {}) };
      const tenant = await tenants.change(params.id, input, sandboxes.only);
      sandboxes.about(params.id);
      return json({ tenant: body(tenant) });
    },
  );
  endpoints.add(
    {
      method: "delete",
      path: "/admin/tenants/{id}",
      scope: "admin",
      tag,
      summary: "Revoke an owner's keys and forget it",
      description: "What it has stays: sandboxes until their time is over. 409 for `default`.",
      params: SandboxId,
      responses: { 204: { description: "It is gone" } },
      errors: [404, 409],
    },
    async ({ params, sandboxes }) => {
      await tenants.remove(params.id, sandboxes.only);
      for (const { id } of policies.list(params.id)) await policies.remove(params.id, id);
      sandboxes.about(params.id);
      return new Response(null, { status: 204 });
    },
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
      const members = tenants.members(params.id, sandboxes.only);
      return json({ members: members.map((member) => memberBody(params.id, member)) });
    },
  );
  endpoints.add(
    {
      method: "put",
      path: "/admin/tenants/{id}/members/{member}",
      scope: "admin",
      tag,
      summary: "Make a key of an owner, or change what it may do",
      description:
        "A viewer's has the scope `read`, an operator's and an admin's `use`: none of them administers the server. `key` is the new key's secret, shown once.",
      params: MemberParams,
      body: z
        .object({
          role: Role,
          user_id: z
            .string()
            .optional()
            .openapi({ description: "As it comes back: the member that the address names" }),
        })
        .openapi("TenantMemberRequest"),
      responses: {
        200: { description: "The member", schema: z.object({ member: MemberBody, key: z.string().optional() }) },
      },
      errors: [404],
    },
    async ({ c, params, sandboxes, body: request }) => {
      if (request.user_id !== undefined && request.user_id !== params.member) {
        throw new StacyError(
          "invalid",
          `user_id: is ${JSON.stringify(request.user_id.slice(0, 100))}, the address names another`,
        );
      }
      const by = { name: c.get("identity").name, only: sandboxes.only };
      const { member, secret } = await tenants.putMember(params.id, params.member, request.role, by);
      sandboxes.about(params.id);
      return json({ member: memberBody(params.id, member), ...(secret === undefined ? {} : { key: secret }) });
    },
  );
  endpoints.add(
    {
      method: "delete",
      path: "/admin/tenants/{id}/members/{member}",
      scope: "admin",
      tag,
      summary: "Revoke a member's keys",
      params: MemberParams,
      responses: { 204: { description: "They let nobody in any more" } },
      errors: [404],
    },
    async ({ params, sandboxes }) => {
      await tenants.removeMember(params.id, params.member, sandboxes.only);
      sandboxes.about(params.id);
      return new Response(null, { status: 204 });
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/admin/tenants/{id}/policies",
      scope: "admin",
      tag,
      summary: "What an owner's sandboxes may be made of",
      description: "Beside what holds for all owners: `images.allow`, `images.deny` and `network.allow`.",
      params: SandboxId,
      responses: { 200: { description: "As they are asked", schema: z.object({ policies: z.array(PolicyBody) }) } },
      errors: [404],
    },
    ({ params, sandboxes }) => {
      tenants.get(params.id, sandboxes.only);
      return json({ policies: policies.list(params.id).map(policyBody) });
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/admin/tenants/{id}/policies",
      scope: "admin",
      tag,
      summary: "Allow or deny an owner images or providers",
      description:
        "In `pattern`, `*` is anything but `/`, and `**` anything; an image is meant by all its names. The lowest `priority` (default: 10) that matches decides, a denial before a permission; what none matches may be used, except an image by digest once there are rules for images. 501 for `network`: set `network.allow`.",
      params: SandboxId,
      body: PolicyRequest,
      responses: { 201: { description: "The policy", schema: z.object({ policy: PolicyBody }) } },
      errors: [404, 501],
    },
    async ({ params, sandboxes, body: { resource_type, effect, pattern, priority } }) => {
      tenants.get(params.id, sandboxes.only);
      if (resource_type === "network") {
        throw new StacyError("not-supported", "a tenant has no policies for networks here", {
          remedy:
            "set network.allow in the configuration, which is for all; a sandbox has no network that it does not ask for",
        });
      }
      const policy = await policies.create({
        ...{ owner: params.id, resource: resource_type, effect, pattern, priority: priority || DEFAULT_PRIORITY },
        createdAt: Date.now(),
      });
      sandboxes.about(params.id);
      return json({ policy: policyBody(policy) }, 201);
    },
  );
  endpoints.add(
    {
      method: "delete",
      path: "/admin/tenants/{id}/policies/{policy}",
      scope: "admin",
      tag,
      summary: "Remove a policy",
      params: SandboxId.extend({ policy: z.string().max(128) }),
      responses: { 204: { description: "It is gone" } },
      errors: [404],
    },
    async ({ params, sandboxes }) => {
      tenants.get(params.id, sandboxes.only);
      await policies.remove(params.id, params.policy);
      sandboxes.about(params.id);
      return new Response(null, { status: 204 });
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
      tenants.get(params.id, sandboxes.only);
      const entries = parts.audit.list({ about: params.id, limit: AUDIT_LIMIT });
      return json({
        tenant_id: params.id,
        admin_audit: entries.map(auditBody),
        op_audit: [],
        exported_at: iso(Date.now()),
      });
    },
  );
}

/** @throws StacyError `limit` */
function given(request: { owner_id?: string | undefined; settings?: unknown }): TenantInput {
  const settings = request.settings === undefined ? undefined : JSON.stringify(request.settings);
  if (settings !== undefined && settings.length > MAX_SETTINGS) {
    throw new StacyError("invalid", `settings: more than ${MAX_SETTINGS} characters`);
  }
  return {
    ...(request.owner_id ? { ownerId: request.owner_id } : {}),
    ...(settings === undefined ? {} : { settings }),
  };
}

function body({ id, name, ownerId, settings, createdAt, updatedAt }: Tenant): z.output<typeof TenantBody> {
  return { id, name, owner_id: ownerId, settings, created_at: iso(createdAt), updated_at: iso(updatedAt) };
}

function memberBody(tenant: string, { user, role, createdAt }: Member): z.output<typeof MemberBody> {
  return { tenant_id: tenant, user_id: user, role, created_at: iso(createdAt), updated_at: iso(createdAt) };
}

function policyBody({
  id,
  owner,
  resource,
  effect,
  pattern,
  priority,
  createdAt,
}: Policy): z.output<typeof PolicyBody> {
  const at = iso(createdAt);
  return { id, tenant_id: owner, resource_type: resource, effect, pattern, priority, created_at: at, updated_at: at };
}
