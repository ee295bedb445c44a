import { z } from "@hono/zod-openapi";
import type { SpareSlots, VolumeInput, VolumeMount } from "../../sandboxes/record.ts";
import { MIB } from "../../volumes/record.ts";
import type { VolumeInfo, VolumeUsage } from "../../volumes/volumes.ts";
import { Flag, GuestText, maybe } from "./common.ts";
import { iso } from "./values.ts";

const sizeMb = z.int().min(1).openapi({ description: "Size of its disk, MiB" });

export const VolumeRequest = z.object({ name: z.string().max(128), size_mb: sizeMb }).openapi("VolumeRequest");

export const VolumeResize = z.object({ size_mb: sizeMb }).openapi("VolumeResize");

export const VolumeClone = z
  .object({
    name: z.string().max(128).openapi({ description: "Of the copy" }),
    read_only: maybe(z.boolean()).openapi({
      type: "boolean",
      description: "A snapshot: the copy never changes, and is there to be read and cloned",
    }),
  })
  .openapi("VolumeClone");

/** With a spawn: a volume, and where it is in the sandbox. */
export const VolumeMountRequest = z
  .object({
    name: z.string().max(128).openapi({ description: "The volume's name" }),
    path: GuestText.max(1_024).openapi({ example: "/data", description: "Where it is; made where it is not there" }),
    read_only: maybe(z.boolean()).openapi({ type: "boolean", description: "Others may read it at the same time" }),
  })
  .openapi("VolumeMountRequest");

const slots = (what: string) =>
  maybe(z.int().min(0).max(4)).openapi({
    type: "integer",
    description: `Free places for volumes that are attached while it runs, to be ${what}; with its volumes at most four`,
  });

/** With a spawn or a template. */
export const VolumeSlotFields = { volume_slots: slots("written"), volume_slots_read_only: slots("only read") };

interface VolumeSlotInput {
  volume_slots?: number | undefined;
  volume_slots_read_only?: number | undefined;
}

/** Absent: nothing is said of it. */
export function spareSlots({ volume_slots, volume_slots_read_only }: VolumeSlotInput): SpareSlots | undefined {
  if (volume_slots === undefined && volume_slots_read_only === undefined) return undefined;
  return { write: volume_slots ?? 0, read: volume_slots_read_only ?? 0 };
}

export function slotFields({ write, read }: SpareSlots): { volume_slots: number; volume_slots_read_only: number } {
  return { volume_slots: write, volume_slots_read_only: read };
}

/** As the state of a sandbox: what is free now. */
export const FreeSlotsBody = z
  .object({
    volume_slots: z.int().openapi({ description: "For volumes that are written" }),
    volume_slots_read_only: z.int().openapi({ description: "For volumes that are only read" }),
  })
  .openapi("FreeVolumeSlots");

export const VolumeDetachQuery = z.object({
  force: Flag.openapi({ description: "Also from programs that hold it" }),
});

export const AttachedVolumeParam = z.object({ id: z.string().max(128), name: z.string().max(128) });

export const VolumeMountBody = z
  .object({ name: z.string(), path: z.string(), read_only: z.boolean() })
  .openapi("VolumeMount");

export const VolumeBody = z
  .object({
    name: z.string(),
    owner: z.string(),
    size_mb: z.int().openapi({ description: "Size of its disk, MiB" }),
    used_bytes: z
      .int()
      .optional()
      .openapi({ description: "What it occupies on the host, bytes; absent: its file is not there" }),
    read_only: z.boolean().openapi({ description: "It is a snapshot, and never changes" }),
    copied_from: z.string().optional().openapi({ description: "Name of the volume that it was copied from" }),
    sandboxes: z
      .array(z.object({ id: z.string(), path: z.string(), read_only: z.boolean() }).openapi("VolumeUse"))
      .openapi({ description: "Sandboxes that have it: one that writes, or any number that read" }),
    created_at: z.string(),
  })
  .openapi("Volume");

export const VolumeUsageBody = z
  .object({
    owner: z.string(),
    volumes: z.int().openapi({ description: "How many there are" }),
    size_mb: z.int().openapi({ description: "Sizes of their disks together, MiB" }),
    used_bytes: z.int().openapi({ description: "What they occupy on the host; what clones share counts with each" }),
    max_volumes: z.int().openapi({ description: "How many there may be; 0: no limit" }),
    max_size_mb: z.int().openapi({ description: "What their sizes may be together, MiB; 0: no limit" }),
  })
  .openapi("VolumeUsage");

export function volumeUsageBody(usage: VolumeUsage): z.output<typeof VolumeUsageBody> {
  const { owner, volumes, bytes, usedBytes, maxVolumes, maxVolumeMiB } = usage;
  return {
    owner,
    volumes,
    size_mb: Math.floor(bytes / MIB),
    used_bytes: usedBytes,
    max_volumes: maxVolumes,
    max_size_mb: maxVolumeMiB,
  };
}

export function volumeMountBody({ name, path, readOnly, onlyRead }: VolumeMount): z.output<typeof VolumeMountBody> {
  return { name, path, read_only: readOnly || onlyRead === true };
}

export function volumeInput(mounts: z.output<typeof VolumeMountRequest>[] | undefined): VolumeInput[] | undefined {
  return mounts?.map(({ name, path, read_only }) => ({ name, path, readOnly: read_only === true }));
}

export function volumeBody(volume: VolumeInfo): z.output<typeof VolumeBody> {
  const { name, owner, bytes, usedBytes, frozen, from, users, createdAt } = volume;
  return {
    name,
    owner,
    size_mb: Math.floor(bytes / MIB),
    ...(usedBytes === undefined ? {} : { used_bytes: usedBytes }),
    read_only: frozen === true,
    ...(from === undefined ? {} : { copied_from: from }),
    sandboxes: users.map(({ sandbox, path, readOnly }) => ({ id: sandbox, path, read_only: readOnly })),
    created_at: iso(createdAt),
  };
}
