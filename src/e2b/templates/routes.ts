/** The control plane's part about templates: lists and names, builds and the files that they copy. */
import { z } from "zod";
import { bodyStream } from "../../api/body.ts";
import { maybe } from "../../api/schemas/common.ts";
import { StacyError } from "../../host/error.ts";
import type { Template } from "../../sandboxes/record.ts";
import { builtInTemplates } from "../../sandboxes/templates.ts";
import type { ControlContext } from "../control/env.ts";
import { pageOf } from "../control/paging.ts";
import type { ControlRoutes } from "../control/routes.ts";
import { notThere } from "../error.ts";
import type { E2bParts } from "../parts.ts";
import { type Build, TemplateBuilds } from "./builds.ts";
import { TemplateFiles } from "./files.ts";
import { letGo } from "./images.ts";
import { BuildStart } from "./instructions.ts";
import { buildIdOf, byName, getNamed, idOf, OWN, ownTags, parseName, tagsOf, wholeName } from "./names.ts";
import { tagRoutes } from "./tags.ts";

const NewBuild = z.object({
  name: maybe(z.string()),
  alias: maybe(z.string()),
  tags: maybe(z.array(z.string()).max(32)),
  cpuCount: maybe(z.int().min(1).max(32)),
  memoryMB: maybe(
    z
      .int()
      .min(64)
      .max(1 << 20),
  ),
});

const LOG_PAGE = 100;
const LINK_SECONDS = 3_600;
const HASH = /^[0-9a-f]{1,128}$/;

type Read = <S extends z.ZodType>(c: ControlContext, schema: S) => Promise<z.output<S>>;

export function templateRoutes(routes: ControlRoutes, parts: E2bParts, read: Read): void {
  const files = new TemplateFiles(parts.dataDir, { stopping: parts.stopping });
  const builds = new TemplateBuilds(parts, files);
  const { limits, tokens } = parts;
  const nothing = (): Response => new Response(null, { status: 204 });

  // Lists and names

  const shown = (template: Template): Record<string, unknown> => {
    const { name, metadata, vcpus, memoryMiB, createdAt, updatedAt, version } = template;
    const whole = wholeName(template);
    return {
      ...{
        templateID: metadata[OWN.id] ?? name,
        buildID: buildIdOf(template),
        aliases: [whole],
        names: [whole],
      },
      ...{ public: template.shared === true, buildStatus: "ready", cpuCount: vcpus, memoryMB: memoryMiB },
      ...{ diskSizeMB: limits.defaultDiskMiB, envdVersion: "", createdBy: null, lastSpawnedAt: null, spawnCount: 0 },
      buildCount: version,
      createdAt: new Date(createdAt).toISOString(),
      updatedAt: new Date(updatedAt).toISOString(),
    };
  };
  const all = (c: ControlContext): Template[] => byName(c.var.sandboxes.templates.list());
  routes.on("GET", "/templates", "read", (c) => Response.json(all(c).map(shown)));
  routes.on("GET", "/v2/templates", "read", (c) => {
    const named = all(c).map((template) => ({ id: `${template.owner}/${wholeName(template)}`, template }));
    const { page, next } = pageOf(named, c.req.query("limit"), c.req.query("nextToken"));
    return Response.json(
      page.map(({ template }) => shown(template)),
      { headers: next === undefined ? {} : { "x-next-token": next } },
    );
  });
  routes.on("GET", "/default-templates", "read", () => Response.json(builtInTemplates.map(shown)));
  routes.on("GET", "/templates/aliases/:alias", "read", (c) => {
    const { alias } = c.req.param();
    const found = getNamed(alias, c.var.sandboxes);
    return Response.json({ templateID: found.metadata[OWN.id] ?? found.name, public: found.shared === true });
  });

  tagRoutes(routes, parts, read);

  // Builds

  const requested = async (c: ControlContext): Promise<Response> => {
    const body = await read(c, NewBuild);
    const { sandboxes } = c.var;
    const { name, tag } = parseName(body.name ?? body.alias ?? "");
    const others = (body.tags ?? []).map((each) => parseName(`${name}:${each}`).tag);
    const tags = [...new Set([tag, ...others])];
    const memoryMiB = body.memoryMB ?? limits.defaultMemoryMiB;
    const vcpus = body.cpuCount ?? limits.defaultVcpus;
    const id = idOf(name, sandboxes, builds.idOf(sandboxes.owner, name));
    const build = builds.request(sandboxes.owner, id, { name, tags, memoryMiB, vcpus });
    const answer = {
      templateID: build.templateId,
      buildID: build.id,
      public: false,
      names: [name],
      aliases: [name],
      tags,
    };
    return Response.json(answer, { status: 202 });
  };
  routes.on("POST", "/v3/templates", "use", requested);
  routes.on("POST", "/v2/templates", "use", requested);

  const find = (c: ControlContext): Build => {
    const { id = "", build = "" } = c.req.param() as { id?: string; build?: string };
    return builds.find(c.var.sandboxes.owner, id, build);
  };
  routes.on("POST", "/v2/templates/:id/builds/:build", "use", async (c) => {
    const build = find(c);
    await builds.start(build, await read(c, BuildStart), c.var.sandboxes);
    // Said, so that clients do not look for JSON in it.
    return new Response(null, { status: 202, headers: { "content-length": "0" } });
  });
  routes.on("GET", "/templates/:id/builds/:build/status", "read", (c) => {
    const { id, templateId, status, logs, reason } = find(c);
    const offset = Number(c.req.query("logsOffset") ?? 0) || 0;
    const page = logs.slice(offset, offset + LOG_PAGE);
    return Response.json({
      ...{ templateID: templateId, buildID: id, status, logs: [], logEntries: page },
      ...(reason === undefined ? {} : { reason: { ...reason, logEntries: [] } }),
    });
  });
  routes.on("GET", "/templates/:id/builds/:build/logs", "read", (c) =>
    Response.json({ logs: find(c).logs.slice(0, 1_000) }),
  );

  // Files

  // The link writes, and needs no key then.
  routes.on("GET", "/templates/:id/files/:hash", "use", async (c) => {
    const { id, hash } = c.req.param();
    if (!HASH.test(hash)) throw new StacyError("invalid", "that is not a hash of files");
    const { sandboxes, credential } = c.var;
    const { owner } = sandboxes;
    const expires = String(Math.floor(Date.now() / 1000) + LINK_SECONDS);
    const upload = { owner, hash, expires };
    const signed = credential === undefined ? {} : { signature: tokens.ofUpload(upload, credential) };
    const query = new URLSearchParams({ owner, expires, ...signed });
    const url = new URL(`/templates/${encodeURIComponent(id)}/files/${hash}?${query}`, originOf(c));
    return Response.json({ present: await files.has(owner, hash), url: String(url) }, { status: 201 });
  });
  const receive = async (c: ControlContext): Promise<Response> => {
    const hash = c.req.param("hash") ?? "";
    const { owner } = c.var.sandboxes;
    if (!HASH.test(hash)) throw new StacyError("invalid", "that is not a hash of files");
    const { max_upload_bytes, body_timeout } = parts.config.server;
    await files.put(owner, hash, bodyStream(c.req.raw, { maxBytes: max_upload_bytes, timeoutMs: body_timeout }));
    return new Response(null, { status: 200 });
  };
  routes.on("PUT", "/templates/:id/files/:hash", "use", receive, { link: true });

  routes.on("GET", "/templates/:id", "read", (c) => {
    const { sandboxes } = c.var;
    const id = c.req.param("id");
    const found = getNamed(id, sandboxes);
    const own = builds.of(sandboxes.owner, found.metadata[OWN.id] ?? found.name);
    const state = ({ id, status, memoryMiB, vcpus }: Build): Record<string, unknown> => {
      const now = new Date(found.updatedAt).toISOString();
      return { buildID: id, status, createdAt: now, updatedAt: now, cpuCount: vcpus, memoryMB: memoryMiB };
    };
    return Response.json({ ...shown(found), builds: own.map(state) });
  });
  routes.on("DELETE", "/templates/:id", "use", async (c) => {
    const id = c.req.param("id");
    const { sandboxes } = c.var;
    // Snapshots are templates to clients.
    if (id.startsWith("cp-")) await sandboxes.checkpoints.remove(id);
    else {
      // Before its tags, which a build's end would make anew.
      const wasBuilt = await builds.cancel(sandboxes.owner, parseName(id).name);
      const tags = wasBuilt ? ownTags(id, sandboxes) : tagsOf(id, sandboxes);
      for (const { name } of tags) await sandboxes.templates.remove(name);
      await letGo(
        parts,
        sandboxes,
        tags.map(({ image }) => image),
      );
    }
    return nothing();
  });
  for (const path of ["/templates/:id", "/v2/templates/:id"] as const) {
    routes.on("PATCH", path, "use", () => {
      throw notThere("templates that everybody may use, made so over this protocol");
    });
  }
}

/** Where clients reach this server, as the client has written it. */
function originOf(c: ControlContext): string {
  const { origin } = new URL(c.req.url);
  return c.req.header("x-forwarded-proto") === "https" ? origin.replace(/^http:/, "https:") : origin;
}
