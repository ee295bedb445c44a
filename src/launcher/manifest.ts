/** What a published snapshot says of itself: `manifest.json`, written last before the directory is renamed into place. */
import { z } from "zod";
import { boundExtents, type Extent } from "../host/extents.ts";
import type { ImageConfig } from "../images/image.ts";
import type { MachineConfig } from "../vmm/vmm.ts";
import type { Shape } from "./shape.ts";

export const sparseMap = z.object({
  size: z.number().int().nonnegative(),
  // Looked through by hand: earlier versions wrote hundreds of thousands down, and a schema's object for each takes its time.
  extents: z.custom<Extent[]>(areExtents, "no ascending extents").transform(boundExtents),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
});

function areExtents(value: unknown): boolean {
  let end = 0;
  return (
    Array.isArray(value) &&
    value.every((extent: Partial<Extent> | null) => {
      const { start = -1, length = 0 } = extent ?? {};
      const sound = Number.isSafeInteger(start) && Number.isSafeInteger(length) && start >= end && length > 0;
      end = start + length;
      return sound;
    })
  );
}

const manifest = z.object({
  version: z.literal(1),
  key: z.string().regex(/^[0-9a-f]{64}$/),
  /** `fork`: lives only as long as the machines that came from it, so nobody computes its checksums. */
  kind: z.enum(["golden", "checkpoint", "fork"]),
  /** The checkpoint's or fork's origin, for people; it does not depend on it. */
  origin: z.string().optional(),
  image: z.string(),
  shape: z.custom<Shape>((value) => typeof value === "object" && value !== null && "vmmIdentity" in value),
  /** The machine's configuration, for a start without the image's reference. */
  config: z.custom<MachineConfig>((value) => typeof value === "object" && value !== null).optional(),
  /** ms since 1970 */
  createdAt: z.number(),
  /** Of a saved running machine: its processes are frozen until a handshake thaws them. */
  frozen: z.boolean().optional(),
  /** The image's configuration, for identities given later. */
  imageConfig: z.custom<ImageConfig>((value) => typeof value === "object" && value !== null).optional(),
  /** By name; empty for a fork. */
  files: z.record(z.string(), sparseMap),
});

export type Manifest = z.infer<typeof manifest>;

/** @throws ZodError when it is not one */
export function parseManifest(text: string): Manifest {
  return manifest.parse(JSON.parse(text));
}
