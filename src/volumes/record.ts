/** What is stored of a volume: the data types of this layer. Sizes in bytes, times in ms since 1970. */
import { randomBytes } from "node:crypto";
import { z } from "zod";
import { StacyError } from "../host/error.ts";

export const volumeRecord = z.object({
  id: z.string().regex(/^vol-[0-9a-f]{8}$/),
  owner: z.string(),
  /** What its owner calls it; no two of an owner have the same. */
  name: z.string(),
  /** Of its disk. What it occupies grows with what is written. */
  bytes: z.number().int().positive(),
  /** A snapshot: it can be read and cloned, and never changes. */
  frozen: z.literal(true).exactOptional(),
  /** The sandbox that it is being made for: it goes with a start that does not find that one. */
  madeFor: z.string().exactOptional(),
  /** Name of the volume that it was made from. */
  from: z.string().exactOptional(),
  createdAt: z.number(),
});

export type VolumeRecord = z.infer<typeof volumeRecord>;

export const MIB = 2 ** 20;
/** Below it a filesystem with a journal has hardly any room; above it ext4 with blocks of 4 KiB ends. */
export const VOLUME_MIN_MIB = 16;
export const VOLUME_MAX_MIB = 8 * 1024 * 1024;

const NAME_CHARACTERS = 63;
const NAME = /^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$/;

export function newVolumeId(): string {
  return `vol-${randomBytes(4).toString("hex")}`;
}

/** A name for what a sandbox gets of a volume. */
export function volumeNameWith(name: string, sandbox: string): string {
  return `${name.slice(0, NAME_CHARACTERS - sandbox.length - 1)}-${sandbox}`;
}

/** @throws StacyError `invalid` */
export function checkVolumeName(name: string): string {
  if (NAME.test(name)) return name;
  throw new StacyError("invalid", `name: ${JSON.stringify(name.slice(0, 80))} is not a volume's name`, {
    remedy: "use at most 63 lower-case letters, digits, and . _ - between them, for example data",
  });
}

/** @returns bytes. @throws StacyError `invalid` */
export function checkVolumeSize(sizeMiB: number): number {
  if (Number.isInteger(sizeMiB) && sizeMiB >= VOLUME_MIN_MIB && sizeMiB <= VOLUME_MAX_MIB) return sizeMiB * MIB;
  throw new StacyError("invalid", `a volume of ${sizeMiB} MiB is not possible`, {
    remedy: `choose ${VOLUME_MIN_MIB} to ${VOLUME_MAX_MIB} MiB`,
  });
}
