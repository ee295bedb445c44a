import { z } from "@hono/zod-openapi";
import { formatDuration } from "../../sandboxes/duration.ts";
import { effectiveMax } from "../../sandboxes/limits.ts";
import { checkUser } from "../../sandboxes/owner.ts";
import type { RouteParts } from "../context.ts";
import { type ApiContext, type Endpoints, json } from "../endpoint.ts";
import { httpError } from "../problem.ts";
import { NameParam, StatusBody } from "../schemas/common.ts";
import { SandboxBody, sandboxBody } from "../schemas/sandbox.ts";
import {
  QuotaBody,
  QuotaRequest,
  QuotaSummaryBody,
  QuotaUsageBody,
  quotaBody,
  TemplateBody,
  TemplateName,
  TemplateRequest,
  TemplateSpawnRequest,
  templateBody,
  templateInput,
} from "../schemas/template.ts";
import { defined } from "../schemas/values.ts";

export function templateRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const tag = "templates";
  const one = { 200: { description: "The template", schema: TemplateBody } };

  endpoints.add(
    {
      method: "post",
      path: "/templates",
      scope: "use",
      tag,
      summary: "Create a template",
      body: TemplateRequest.extend({ name: TemplateName }).openapi("TemplateCreateRequest"),
      responses: { 201: { description: "The template", schema: TemplateBody } },
      errors: [409],
    },
    async ({ c, sandboxes, body }) => {
      assertMayShare(c, body.shared);
      return json(templateBody(await sandboxes.templates.create(templateInput(body, body.name, parts.limits))), 201);
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/templates",
      scope: "read",
      tag,
      summary: "All templates",
      responses: { 200: { description: "By name", schema: z.array(TemplateBody) } },
    },
    ({ sandboxes }) => json(sandboxes.templates.list().map(templateBody)),
  );
  endpoints.add(
    {
      method: "get",
      path: "/templates/{name}",
      scope: "read",
      tag,
      summary: "One template",
      params: NameParam,
      responses: one,
      errors: [404],
    },
    ({ sandboxes, params }) => json(templateBody(sandboxes.templates.get(params.name))),
  );
  endpoints.add(
    {
      method: "put",
      path: "/templates/{name}",
      scope: "use",
      tag,
      summary: "Replace a template",
      params: NameParam,
      body: TemplateRequest,
      responses: one,
      errors: [404],
    },
    async ({ c, sandboxes, params, body }) => {
      assertMayShare(c, body.shared);
      return json(
        templateBody(await sandboxes.templates.replace(params.name, templateInput(body, params.name, parts.limits))),
      );
    },
  );
  endpoints.add(
    {
      method: "delete",
      path: "/templates/{name}",
      scope: "use",
      tag,
      summary: "Delete a template",
      params: NameParam,
      responses: { 200: { description: "It is gone", schema: StatusBody } },
      errors: [404],
    },
    async ({ sandboxes, params }) => {
      await sandboxes.templates.remove(params.name);
      return json({ status: "deleted" });
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/templates/{name}/spawn",
      scope: "use",
      tag,
      summary: "Spawn from a template",
      params: NameParam,
      body: TemplateSpawnRequest,
      bodyOptional: true,
      responses: { 201: { description: "It runs", schema: SandboxBody } },
      errors: [404, 409, 501, 507],
    },
    async ({ c, sandboxes, params, body, user, signal }) => {
      const { name, provider, ttl: ttlMs } = body;
      const input = { template: params.name, ...defined({ name, provider, ttlMs, ownerId: user }) };
      const sandbox = await sandboxes.spawn(input, signal);
      c.set("timing", sandbox.record.boot?.phases ?? {});
      return json(sandboxBody(sandbox.record, parts.config.server.preview_domain), 201);
    },
  );
}

/** A shared name is one for all owners. */
function assertMayShare(c: ApiContext, shared: boolean | undefined): void {
  if (shared === undefined || c.get("identity").scopes.has("admin")) return;
  throw httpError(403, "shared: only administrators share templates");
}

export function quotaRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const { limits } = parts;
  const tag = "quotas";
  const OwnerParam = z.object({ owner: z.string() });
  const one = { 200: { description: "The quota", schema: QuotaBody } };
  endpoints.add(
    {
      method: "get",
      path: "/quotas",
      scope: "read",
      admin: true,
      tag,
      summary: "All quotas",
      responses: { 200: { description: "By owner", schema: z.array(QuotaBody) } },
    },
    ({ sandboxes }) => json(sandboxes.quotas.list().map(quotaBody)),
  );
  endpoints.add(
    {
      method: "get",
      path: "/quotas/summary",
      scope: "read",
      admin: true,
      tag,
      summary: "How many quotas set which limit",
      responses: { 200: { description: "Counts", schema: QuotaSummaryBody } },
    },
    ({ sandboxes }) => {
      const summary = sandboxes.quotas.summary();
      return json({
        total: summary.total,
        with_max_sandboxes: summary.withMaxSandboxes,
        with_max_ttl: summary.withMaxTtl,
        with_max_exec_timeout: summary.withMaxExecTimeout,
      });
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/quotas/{owner}",
      scope: "read",
      admin: true,
      tag,
      summary: "An owner's quota",
      params: OwnerParam,
      responses: one,
      errors: [404],
    },
    ({ sandboxes, params }) => json(quotaBody(sandboxes.quotas.get(params.owner))),
  );
  endpoints.add(
    {
      method: "put",
      path: "/quotas/{owner}",
      scope: "admin",
      admin: true,
      tag,
      summary: "Set an owner's quota",
      description: "0 means no limit of its own.",
      params: OwnerParam,
      body: QuotaRequest,
      responses: one,
    },
    async ({ sandboxes, params, body }) => {
      const limitsOf = {
        maxSandboxes: body.max_sandboxes ?? 0,
        maxTtlMs: body.max_ttl ?? 0,
        maxExecTimeoutMs: body.max_exec_timeout ?? 0,
      };
      return json(quotaBody(await sandboxes.quotas.put(params.owner, limitsOf)));
    },
  );
  endpoints.add(
    {
      method: "delete",
      path: "/quotas/{owner}",
      scope: "admin",
      admin: true,
      tag,
      summary: "Delete an owner's quota",
      params: OwnerParam,
      responses: { 200: { description: "It is gone", schema: StatusBody } },
      errors: [404],
    },
    async ({ sandboxes, params }) => {
      await sandboxes.quotas.remove(params.owner);
      return json({ status: "deleted" });
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/quotas/{owner}/usage",
      scope: "read",
      admin: true,
      tag,
      summary: "What an owner uses and may use",
      params: OwnerParam,
      responses: { 200: { description: "Usage", schema: QuotaUsageBody } },
    },
    async ({ sandboxes, params }) => {
      const user = checkUser(params.owner);
      const quota = sandboxes.quotas.find(user);
      const { maxSandboxes, maxTtlMs, maxExecTimeoutMs } = sandboxes.quotas.effective(user);
      return json({
        owner_id: params.owner,
        active_sandboxes: await sandboxes.countOfUser(user),
        max_sandboxes: maxSandboxes || limits.maxSandboxesPerOwner,
        max_ttl: formatDuration(effectiveMax(limits.maxTtlMs, maxTtlMs)),
        max_exec_timeout: formatDuration(effectiveMax(limits.maxExecTimeoutMs, maxExecTimeoutMs)),
        quota_configured: quota !== undefined,
      });
    },
  );
}
