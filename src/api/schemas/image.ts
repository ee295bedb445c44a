/** Images as the API shows and takes them. */
import { z } from "@hono/zod-openapi";
import type { CaredFor } from "../../images/care.ts";
import type { Image, ImageConfig, ImageDetails } from "../../images/image.ts";
import { GuestText, maybe } from "./common.ts";
import { iso } from "./values.ts";

export const Name = GuestText.min(1).max(600);

const ConfigBody = z
  .object({
    env: z.array(z.string()),
    workdir: z.string().optional(),
    user: z.string().optional(),
    entrypoint: z.array(z.string()),
    cmd: z.array(z.string()),
    labels: z.record(z.string(), z.string()),
    stop_signal: z.string().optional(),
    exposed_ports: z.array(z.string()),
    volumes: z.array(z.string()).optional(),
  })
  .openapi("ImageConfig");

export const ImageBody = z
  .object({
    reference: z.string(),
    digest: z.string(),
    filesystem: z.string(),
    bytes: z.int(),
    created_at: z.string(),
    owner: z.string().optional().openapi({ description: "Whose name it is; absent: everybody's" }),
    config: ConfigBody,
  })
  .openapi("Image");

export const ImageDetailsBody = ImageBody.extend({
  references: z.array(z.string()),
  last_used_at: z.string(),
  blobs: z.array(z.string()),
}).openapi("ImageDetails");

export const ImageGcBody = z
  .object({
    images: z.array(z.string()),
    blobs: z.array(z.string()),
    builds: z.array(z.string()),
    snapshots: z.array(z.string()),
    freed_bytes: z.int(),
    kept_bytes: z.int(),
    dry_run: z.boolean(),
  })
  .openapi("ImageGc");

export const Shared = maybe(z.boolean()).openapi({
  type: "boolean",
  description: "Every owner finds it under the name.",
});

export const PullRequest = z
  .object({
    reference: Name,
    pull: maybe(z.enum(["missing", "always", "never"])),
    stream: maybe(z.boolean()),
  })
  .openapi("PullRequest");

export const ImportRequest = z
  .object({
    /** A path on the server's host. */
    source: z.string().min(1).max(4096),
    reference: Name,
    tag: maybe(z.string().min(1).max(300)),
    as: maybe(z.enum(["rootfs"])),
    shared: Shared,
    stream: maybe(z.boolean()),
  })
  .openapi("ImportRequest");

function configBody(config: ImageConfig): z.output<typeof ConfigBody> {
  return {
    env: config.env,
    ...(config.cwd === undefined ? {} : { workdir: config.cwd }),
    ...(config.user === undefined ? {} : { user: config.user }),
    entrypoint: config.entrypoint,
    cmd: config.cmd,
    labels: config.labels,
    ...(config.stopSignal === undefined ? {} : { stop_signal: config.stopSignal }),
    exposed_ports: config.exposedPorts,
    ...(config.volumes === undefined ? {} : { volumes: config.volumes }),
  };
}

export function imageBody(image: Image): z.output<typeof ImageBody> {
  return {
    reference: image.reference,
    digest: image.digest,
    filesystem: image.filesystem,
    bytes: image.sizeBytes,
    created_at: iso(image.createdAt),
    ...(image.owner === undefined ? {} : { owner: image.owner }),
    config: configBody(image.config),
  };
}

export function imageDetailsBody(image: ImageDetails): z.output<typeof ImageDetailsBody> {
  return { ...imageBody(image), references: image.references, last_used_at: iso(image.usedAt), blobs: image.blobs };
}

export function imageGcBody(done: CaredFor, dryRun: boolean): z.output<typeof ImageGcBody> {
  return {
    images: done.images,
    blobs: done.blobs,
    builds: done.builds,
    snapshots: done.snapshots,
    freed_bytes: done.freed,
    kept_bytes: done.kept,
    dry_run: dryRun,
  };
}
