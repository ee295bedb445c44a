/** Volumes of the caller's owner: disks that outlive sandboxes. */
import { z } from "@hono/zod-openapi";
import { bodyStream } from "../body.ts";
import type { RouteParts } from "../context.ts";
import type { Endpoints } from "../endpoint.ts";
import { json } from "../endpoint.ts";
import { NameParam, StatusBody } from "../schemas/common.ts";
import {
  VolumeBody,
  VolumeClone,
  VolumeRequest,
  VolumeResize,
  VolumeUsageBody,
  volumeBody,
  volumeUsageBody,
} from "../schemas/volume.ts";

export function volumeRoutes(endpoints: Endpoints, { config }: RouteParts): void {
  const upload = { maxBytes: config.server.max_upload_bytes, timeoutMs: config.server.body_timeout };
  const tag = "volumes";
  const one = { 200: { description: "The volume", schema: VolumeBody } };
  const made = { 201: { description: "It is there, on disk", schema: VolumeBody } };
  endpoints.add(
    {
      method: "get",
      path: "/volumes",
      scope: "read",
      tag,
      summary: "All volumes, with who has them",
      responses: { 200: { description: "By name", schema: z.array(VolumeBody) } },
    },
    async ({ sandboxes }) => json((await sandboxes.volumes.list()).map(volumeBody)),
  );
  endpoints.add(
    {
      method: "get",
      path: "/usage/volumes",
      scope: "read",
      tag,
      summary: "What an owner's volumes take, and may take",
      description: "Administrators see every owner that has some.",
      responses: { 200: { description: "By owner", schema: z.array(VolumeUsageBody) } },
    },
    async ({ sandboxes }) => json((await sandboxes.volumes.usage()).map(volumeUsageBody)),
  );
  endpoints.add(
    {
      method: "post",
      path: "/volumes",
      scope: "use",
      tag,
      summary: "Make a volume",
      description: "An empty disk, ext4. It occupies what is written to it, and stays until it is removed.",
      body: VolumeRequest,
      responses: made,
      errors: [409, 507],
    },
    async ({ sandboxes, body }) =>
      json(volumeBody(await sandboxes.volumes.create({ name: body.name, sizeMiB: body.size_mb })), 201),
  );
  endpoints.add(
    {
      method: "get",
      path: "/volumes/{name}",
      scope: "read",
      tag,
      summary: "One volume",
      params: NameParam,
      responses: one,
      errors: [404],
    },
    async ({ sandboxes, params }) => json(volumeBody(await sandboxes.volumes.get(params.name))),
  );
  endpoints.add(
    {
      method: "patch",
      path: "/volumes/{name}",
      scope: "use",
      tag,
      summary: "Make a volume larger",
      description: "While no sandbox has it. Its filesystem grows when a sandbox is next given it to write to.",
      params: NameParam,
      body: VolumeResize,
      responses: one,
      errors: [404, 409],
    },
    async ({ sandboxes, params, body }) => json(volumeBody(await sandboxes.volumes.resize(params.name, body.size_mb))),
  );
  endpoints.add(
    {
      method: "post",
      path: "/volumes/{name}/clone",
      scope: "use",
      tag,
      summary: "Copy a volume, or save a snapshot of it",
      description:
        "While no sandbox may write to it. What is on disk is shared where the host's filesystem can do that.",
      params: NameParam,
      body: VolumeClone,
      responses: made,
      errors: [404, 409, 507],
    },
    async ({ sandboxes, params, body }) => {
      const to = { name: body.name, frozen: body.read_only === true };
      return json(volumeBody(await sandboxes.volumes.clone(params.name, to)), 201);
    },
  );
  endpoints.add(
    {
      method: "get",
      path: "/volumes/{name}/content",
      scope: "read",
      tag,
      summary: "Export a volume",
      description: "Its disk, compressed with gzip, while no sandbox may write to it.",
      params: NameParam,
      responses: { 200: { description: "The disk", type: "application/gzip" } },
      errors: [404, 409],
    },
    async ({ sandboxes, params }) =>
      new Response(await sandboxes.volumes.export(params.name), { headers: { "content-type": "application/gzip" } }),
  );
  endpoints.add(
    {
      method: "put",
      path: "/volumes/{name}/content",
      scope: "use",
      tag,
      summary: "Make a volume of an export",
      description: "Its name must be free.",
      params: NameParam,
      rawBody: "application/gzip",
      responses: made,
      errors: [408, 409, 413, 507],
    },
    async ({ c, sandboxes, params }) =>
      json(volumeBody(await sandboxes.volumes.import(params.name, bodyStream(c.req.raw, upload))), 201),
  );
  endpoints.add(
    {
      method: "delete",
      path: "/volumes/{name}",
      scope: "use",
      tag,
      summary: "Remove a volume, with all that is in it",
      description: "While no sandbox has it.",
      params: NameParam,
      responses: { 200: { description: "It is gone", schema: StatusBody } },
      errors: [404, 409],
    },
    async ({ sandboxes, params }) => {
      await sandboxes.volumes.remove(params.name);
      return json({ status: "deleted" });
    },
  );
}
