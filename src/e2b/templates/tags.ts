/**
 * The control plane's part about tags: each is a template of its own here, so a tag has one assignment, its latest, and is ready.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import type { Template } from "../../sandboxes/record.ts";
import type { ControlContext } from "../control/env.ts";
import { pageOf } from "../control/paging.ts";
import type { ControlRoutes } from "../control/routes.ts";
import { E2bError } from "../error.ts";
import type { E2bParts } from "../parts.ts";
import { letGo } from "./images.ts";
import {
  buildIdOf,
  DEFAULT_TAG,
  findTemplate,
  getTemplate,
  nameOf,
  OWN,
  parseName,
  remember,
  tagsOf,
} from "./names.ts";

const NewTags = z.object({ target: z.string(), tags: z.array(z.string()).min(1).max(32) });
const OldTags = z.object({ name: z.string(), tags: z.array(z.string()).min(1).max(32) });
/** Tags of a page, where a client does not say. */
const GROUPS = "25";

type Read = <S extends z.ZodType>(c: ControlContext, schema: S) => Promise<z.output<S>>;

export function tagRoutes(routes: ControlRoutes, parts: E2bParts, read: Read): void {
  routes.on("GET", "/templates/:id/tags", "read", (c) =>
    Response.json(
      tagsOf(c.req.param("id"), c.var.sandboxes).map((template) => ({
        tag: tagOf(template),
        buildID: buildIdOf(template),
        createdAt: new Date(template.updatedAt).toISOString(),
      })),
    ),
  );
  routes.on("GET", "/templates/:id/tags/count", "read", (c) =>
    Response.json({ total: tagsOf(c.req.param("id"), c.var.sandboxes).length }),
  );
  routes.on("GET", "/templates/:id/tags/exists", "read", (c) => {
    const id = c.req.param("id");
    const { tag } = parseName(`${parseName(id).name}:${c.req.query("tag") ?? ""}`);
    const exists = tagsOf(id, c.var.sandboxes).some((template) => tagOf(template) === tag);
    return Response.json({ exists, normalizedTag: tag });
  });
  routes.on("GET", "/templates/:id/tags/groups", "read", (c) => {
    const { search = "", sort = "latest_desc", tagsLimit = GROUPS, tagsCursor } = c.req.query();
    const found = tagsOf(c.req.param("id"), c.var.sandboxes).filter((each) => tagOf(each).includes(search));
    const named = sorted(found, sort).map((template) => ({ id: tagOf(template), template }));
    const { page, next } = pageOf(named, tagsLimit, tagsCursor);
    const tags = page.map(({ id, template }) => ({ tag: id, assignments: [assignment(template)], hasMore: false }));
    return Response.json({ tags, nextCursor: next ?? null });
  });
  routes.on("GET", "/templates/:id/tags/:tag/assignments", "read", (c) => {
    const { id, tag } = c.req.param();
    const found = tagsOf(id, c.var.sandboxes).filter((template) => tagOf(template) === tag);
    return Response.json({ data: found.map(assignment), nextCursor: null });
  });
  routes.on("POST", "/templates/tags", "use", async (c) => {
    const { target, tags } = await read(c, NewTags);
    const { sandboxes } = c.var;
    const source = getTemplate(target, sandboxes);
    const name = source.metadata[OWN.name] ?? source.name;
    const before = sandboxes.templates.list().map(({ image }) => image);
    for (const next of tags) {
      const { tag } = parseName(`${name}:${next}`);
      // All that its sandboxes are made of; not what is the name's own.
      const { owner: _o, shared: _s, version: _v, createdAt: _c, updatedAt: _u, ...whole } = source;
      const metadata = { ...source.metadata, [OWN.name]: name, [OWN.tag]: tag };
      await remember(sandboxes, nameOf(name, tag), { ...whole, poolSize: 0, metadata });
    }
    await letGo(parts, sandboxes, before);
    return Response.json({ buildID: buildIdOf(source), tags }, { status: 201 });
  });
  routes.on("DELETE", "/templates/tags", "use", async (c) => {
    const { name, tags } = await read(c, OldTags);
    const { sandboxes } = c.var;
    for (const each of tags) {
      const { name: whole, tag } = parseName(`${parseName(name).name}:${each}`);
      const found = findTemplate(nameOf(whole, tag), sandboxes);
      if (found === undefined) throw new E2bError(404, `template '${whole}:${tag}' not found`);
      await sandboxes.templates.remove(found.name);
      await letGo(parts, sandboxes, [found.image]);
    }
    return new Response(null, { status: 204 });
  });
}

function tagOf({ metadata }: Template): string {
  return metadata[OWN.tag] ?? DEFAULT_TAG;
}

/** The one that a tag has. Its id changes with its build, as a fresh one's would. */
function assignment(template: Template): Record<string, string> {
  const buildId = buildIdOf(template);
  const digest = createHash("sha256")
    .update(`${buildId} ${tagOf(template)}`)
    .digest("hex");
  const [assignedAt, buildCreatedAt] = [template.updatedAt, template.createdAt].map((ms) => new Date(ms).toISOString());
  const times = { assignedAt: assignedAt ?? "", buildCreatedAt: buildCreatedAt ?? "" };
  return { assignmentId: digest.slice(0, 32), buildId, ...times, buildFinishedAt: times.assignedAt };
}

function sorted(templates: Template[], sort: string): Template[] {
  const names = (a: Template, b: Template): number => (tagOf(a) < tagOf(b) ? -1 : 1);
  const byName = sort.startsWith("name_");
  const ascending = templates.toSorted((a, b) => (byName ? 0 : a.updatedAt - b.updatedAt) || names(a, b));
  return sort.endsWith("_desc") ? ascending.reverse() : ascending;
}
