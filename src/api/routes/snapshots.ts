import { z } from "@hono/zod-openapi";
import { StacyError } from "../../host/error.ts";
import type { SnapshotInfo } from "../../providers/provider.ts";
import type { View } from "../../sandboxes/view.ts";
import { type Endpoints, json } from "../endpoint.ts";
import { Duration, maybe, StatusBody } from "../schemas/common.ts";
import { SpawnRequest, spawnInput } from "../schemas/sandbox.ts";
import { iso } from "../schemas/values.ts";

const SnapshotBody = z
  .object({
    key: z.string(),
    kind: z.enum(["golden", "checkpoint"]),
    image: z.string(),
    image_digest: z.string(),
    provider: z.string(),
    vcpus: z.int(),
    memory_mb: z.int(),
    disk_mb: z.int(),
    created_at: z.string(),
    last_used_at: z.string(),
    bytes: z.int(),
    in_use: z.int(),
  })
  .openapi("Snapshot");

function snapshotBody(info: SnapshotInfo): z.output<typeof SnapshotBody> {
  return {
    key: info.key,
    kind: info.kind,
    image: info.image,
    image_digest: info.imageDigest,
    provider: info.vmm,
    vcpus: info.vcpus,
    memory_mb: info.memoryMiB,
    disk_mb: info.diskMiB,
    created_at: iso(info.createdAt),
    last_used_at: iso(info.lastUsedAt),
    bytes: info.bytes,
    in_use: info.inUse,
  };
}

const JudgedBody = z.object({ key: z.string(), image: z.string(), bytes: z.int(), reason: z.string() });

const KeyParam = z.object({ key: z.string().regex(/^[0-9a-f]{64}$/, "is not a snapshot key") });

export function snapshotRoutes(endpoints: Endpoints): void {
  const tag = "snapshots";

  async function find(sandboxes: View, key: string): Promise<SnapshotInfo> {
    const info = (await sandboxes.snapshots()).find((each) => each.key === key);
    if (info !== undefined) return info;
    throw new StacyError("not-found", `there is no snapshot ${key}`);
  }

  endpoints.add(
    {
      method: "get",
      path: "/snapshots",
      scope: "read",
      tag,
      summary: "Saved machines",
      responses: { 200: { description: "Newest first", schema: z.array(SnapshotBody) } },
    },
    async ({ sandboxes }) => json((await sandboxes.snapshots()).map(snapshotBody)),
  );
  endpoints.add(
    {
      method: "post",
      path: "/snapshots",
      scope: "use",
      tag,
      summary: "Build the golden snapshot of a shape now",
      description: "Takes the shape from a spawn request: image or template, size, setup.",
      body: SpawnRequest,
      responses: { 201: { description: "It is there", schema: SnapshotBody } },
      errors: [404, 507],
    },
    async ({ sandboxes, body, user, signal }) =>
      json(snapshotBody(await sandboxes.buildSnapshot(spawnInput(body, user), signal)), 201),
  );
  endpoints.add(
    {
      method: "get",
      path: "/snapshots/{key}",
      scope: "read",
      tag,
      summary: "One snapshot",
      params: KeyParam,
      responses: { 200: { description: "The snapshot", schema: SnapshotBody } },
      errors: [404],
    },
    async ({ sandboxes, params }) => json(snapshotBody(await find(sandboxes, params.key))),
  );
  endpoints.add(
    {
      method: "delete",
      path: "/snapshots/{key}",
      scope: "admin",
      tag,
      summary: "Delete a snapshot that no machine uses",
      params: KeyParam,
      responses: { 200: { description: "It is gone", schema: StatusBody } },
      errors: [404, 409],
    },
    async ({ sandboxes, params }) => {
      await sandboxes.removeSnapshot(params.key);
      return json({ status: "deleted" });
    },
  );
  endpoints.add(
    {
      method: "post",
      path: "/snapshots/gc",
      scope: "admin",
      tag,
      summary: "Delete what was used longest ago, until the rest fits",
      description:
        "Without `max_bytes` and `max_unused`, everything that no machine runs from. Checkpoints stay unless `checkpoints` is set.",
      body: z
        .object({
          dry_run: maybe(z.boolean()),
          max_bytes: maybe(z.int().min(0)),
          max_unused: maybe(Duration),
          checkpoints: maybe(z.boolean()),
        })
        .openapi("SnapshotGcRequest"),
      bodyOptional: true,
      responses: {
        200: {
          description: "What was (or would be) deleted",
          schema: z
            .object({
              removed: z.array(JudgedBody),
              kept: z.array(JudgedBody),
              bytes: z.int(),
              dry_run: z.boolean(),
            })
            .openapi("SnapshotGc"),
        },
      },
    },
    async ({ sandboxes, body, signal }) => {
      const dryRun = body.dry_run === true;
      const maxUnusedMs = body.max_unused;
      const maxBytes = body.max_bytes ?? (maxUnusedMs === undefined ? 0 : undefined);
      const { removed, kept } = await sandboxes.collectSnapshots({
        dryRun,
        signal,
        checkpoints: body.checkpoints === true,
        ...(maxBytes === undefined ? {} : { maxBytes }),
        ...(maxUnusedMs === undefined ? {} : { maxUnusedMs }),
      });
      return json({ removed, kept, bytes: removed.reduce((sum, { bytes }) => sum + bytes, 0), dry_run: dryRun });
    },
  );
}
