/** Images over HTTP: list, inspect, pull, import, tag, remove, collect. */
import { z } from "@hono/zod-openapi";
import { collectImages, removeImage } from "../../images/care.ts";
import type { Image, ImageLibrary, Progress } from "../../images/image.ts";
import type { RouteParts } from "../context.ts";
import { type ApiContext, type Endpoints, json } from "../endpoint.ts";
import { progressStream } from "../progress-stream.ts";
import { maybe, StatusBody } from "../schemas/common.ts";
import {
  ImageBody,
  ImageDetailsBody,
  ImageGcBody,
  ImportRequest,
  imageBody,
  imageDetailsBody,
  imageGcBody,
  Name,
  PullRequest,
  Shared,
} from "../schemas/image.ts";

const STREAM = "With `stream: true`: NDJSON, progress per line, at last `{image}` or `{error}`.";
const Reference = z.object({ reference: Name });

/** What is made gets an owner's own name, or everybody's. */
export function naming(images: ImageLibrary, owner: string, shared: boolean | undefined): ImageLibrary {
  return shared === true ? images.of({ name: owner, shares: true }) : images;
}

export function imageRoutes(endpoints: Endpoints, parts: RouteParts): void {
  const { imageUsers } = parts;
  const tag = "images";

  /** The image as one answer, or the way to it line by line. */
  async function answer(
    c: ApiContext,
    stream: boolean | undefined,
    work: (progress?: (progress: Progress) => void) => Promise<Image>,
  ): Promise<Response> {
    if (stream !== true) return json(imageBody(await work()));
    return progressStream(async (progress) => ({ image: imageBody(await work(progress)) }), c.get("requestId"));
  }

  endpoints.add(
    {
      method: "get",
      path: "/images",
      scope: "read",
      tag,
      summary: "Images on this host",
      responses: { 200: { description: "Images", schema: z.array(ImageBody) } },
    },
    async ({ images }) => json((await images.list()).map(imageBody)),
  );
  endpoints.add(
    {
      method: "get",
      path: "/images/inspect",
      scope: "read",
      tag,
      summary: "One image with its configuration, its other names and its layers",
      query: Reference,
      responses: { 200: { description: "The image", schema: ImageDetailsBody } },
      errors: [404],
    },
    async ({ images, query }) => json(imageDetailsBody(await images.inspect(query.reference))),
  );
  endpoints.add(
    {
      method: "post",
      path: "/images/pull",
      scope: "use",
      tag,
      summary: "Pull or build an image",
      description: `\`pull: always\` asks the registry again, for tags that move. ${STREAM}`,
      body: PullRequest,
      responses: { 200: { description: "The image", schema: ImageBody, type: "application/x-ndjson" } },
      errors: [404, 507],
    },
    ({ c, images, body, signal }) =>
      answer(c, body.stream, (progress) =>
        images.resolve(body.reference, {
          pull: body.pull ?? "missing",
          signal,
          ...(progress === undefined ? {} : { progress }),
        }),
      ),
  );
  endpoints.add(
    {
      method: "post",
      path: "/images/import",
      scope: "admin",
      tag,
      summary: "Take an image from a file or directory of the server's host",
      description: `The name is the caller's owner's own, or everybody's with \`shared: true\`. An OCI layout (directory or archive), an archive of \`docker save\`, a tar of a file tree, or a directory. ${STREAM}`,
      body: ImportRequest,
      responses: { 200: { description: "The image", schema: ImageBody, type: "application/x-ndjson" } },
      errors: [404, 507],
    },
    ({ c, sandboxes, images, body, signal }) =>
      answer(c, body.stream, (progress) =>
        naming(images, sandboxes.owner, body.shared).import(body.source, body.reference, {
          signal,
          ...(body.tag === undefined ? {} : { tag: body.tag }),
          ...(body.as === undefined ? {} : { as: body.as }),
          ...(progress === undefined ? {} : { progress }),
        }),
      ),
  );
  endpoints.add(
    {
      method: "post",
      path: "/images/tag",
      scope: "admin",
      tag,
      summary: "Another name for an image that is here",
      body: z.object({ reference: Name, name: Name, shared: Shared }).openapi("TagRequest"),
      responses: { 200: { description: "The image under its new name", schema: ImageBody } },
      errors: [404],
    },
    async ({ sandboxes, images, body }) =>
      json(imageBody(await naming(images, sandboxes.owner, body.shared).tag(body.reference, body.name))),
  );
  endpoints.add(
    {
      method: "delete",
      path: "/images",
      scope: "admin",
      tag,
      summary: "Remove an image that no sandbox uses, with its golden snapshots",
      query: Reference,
      responses: { 200: { description: "It is gone", schema: StatusBody } },
      errors: [404, 409],
    },
    async ({ sandboxes, images, query }) => {
      await sandboxes.freed();
      await removeImage(images, imageUsers, query.reference);
      return json({ status: "deleted" });
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/images/gc",
      scope: "admin",
      tag,
      summary: "Remove what nobody needs, then what was used longest ago, until the rest fits",
      body: z.object({ dry_run: maybe(z.boolean()), max_bytes: maybe(z.int().min(0)) }).openapi("ImageGcRequest"),
      bodyOptional: true,
      responses: { 200: { description: "What was (or would be) removed", schema: ImageGcBody } },
    },
    async ({ sandboxes, images, body }) => {
      await sandboxes.freed();
      const dryRun = body.dry_run === true;
      const limit = body.max_bytes ?? (parts.config.images.max_bytes || undefined);
      const done = await collectImages(images, imageUsers, {
        dryRun,
        ...(limit === undefined ? {} : { maxBytes: limit }),
      });
      return json(imageGcBody(done, dryRun));
    },
  );
}
