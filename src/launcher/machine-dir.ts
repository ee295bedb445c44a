/** One directory per machine: the VMM's working directory, with its private disk, the link to the shared base, and its record. */
import { mkdir, open, readFile, rename, rm, rmdir, symlink, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import { replaceFile } from "../host/durable.ts";
import { errno, StacyError } from "../host/error.ts";
import { removeTree } from "../host/remove-tree.ts";
import { endLeftovers } from "../vmm/leftovers.ts";
import { EMPTY_VOLUME_BYTES, FILES, type MachineConfig, volumeFile } from "../vmm/vmm.ts";
import type { Shape } from "./shape.ts";
import type { DiskTemplate } from "./snapshot-store.ts";

/** Its name in a machine's directory. */
export const RECORD_FILE = "sandbox.json";

const REMOVE_ATTEMPTS = 3;
const REMOVE_PAUSE_MS = 50;

const strings = z.array(z.string());

/** `sandbox.json`: enough for another daemon to take the machine over, or to remove it. */
export const machineRecord = z.object({
  version: z.literal(1),
  /** The sandbox's id. */
  id: z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/),
  role: z.enum(["sandbox", "pool"]),
  vmm: z.enum(["firecracker", "qemu"]),
  guest: z.enum(["linux", "bare"]),
  key: z.string().regex(/^[0-9a-f]{64}$/),
  image: z.string(),
  imageDigest: z.string(),
  config: z.object({
    vcpus: z.number().int().positive(),
    memoryMiB: z.number().int().positive(),
    kernel: z.string(),
    initramfs: z.string().exactOptional(),
    cmdline: z.string().exactOptional(),
    volumes: z.array(z.enum(["write", "read"])).exactOptional(),
  }),
  process: z
    .object({ pid: z.number().int().positive(), startTime: z.string().regex(/^\d+$/), hostBootId: z.string() })
    .nullable(),
  /** What the next daemon makes it again (docs/crash-protocol.md). */
  state: z.enum(["running", "paused", "suspended"]),
  /** What the handshake gave it, apart from the entropy; a suspended one is given the same names again. */
  identity: z.object({
    hostname: z.string(),
    machineId: z.string(),
    bootId: z.string(),
    env: z.record(z.string(), z.string()),
    cwd: z.string().exactOptional(),
    user: z.string().exactOptional(),
  }),
  /** Hosts that it may connect to; absent: none. */
  allowedHosts: strings.exactOptional(),
  /** Directories of the host that are mounted in its guest (directories/). */
  directories: z
    .array(
      z.object({
        ...{ source: z.string(), path: z.string(), readOnly: z.boolean(), uid: z.number(), gid: z.number() },
        layer: z.object({ name: z.string().regex(/^\d+$/), bytes: z.number() }).exactOptional(),
      }),
    )
    .exactOptional(),
  /** Its guest trusts this one (egress/secrets/authority.ts); absent: it was given no secret. */
  authority: z.object({ certificate: z.string(), key: z.string() }).exactOptional(),
  /** What a saved machine needs to be started elsewhere. */
  shape: z.custom<Shape>(
    (value) => z.looseObject({ imageDigest: z.string(), cmdline: z.string() }).safeParse(value).success,
  ),
  imageConfig: z.object({
    env: strings,
    cwd: z.string().exactOptional(),
    user: z.string().exactOptional(),
    entrypoint: strings,
    cmd: strings,
    labels: z.record(z.string(), z.string()),
    stopSignal: z.string().exactOptional(),
    exposedPorts: strings,
  }),
  boot: z.unknown(),
  createdAt: z.number(),
});

export type MachineRecord = z.infer<typeof machineRecord>;

/** Makes the directory with its link to the base. The disk comes separately: it may be copied beside the VMM's start. */
export async function makeMachineDir(dir: string, base: string): Promise<void> {
  await mkdir(dir, { recursive: false, mode: 0o700 });
  try {
    await linkBase(dir, base);
  } catch (error) {
    await rmdir(dir).catch(() => {}); // whoever asked for it has no directory to remove
    throw error;
  }
}

export function linkBase(dir: string, base: string): Promise<void> {
  return symlink(relative(dir, base), join(dir, FILES.base));
}

/**
 * Puts the volumes into their slots, by relative links as the base is.
 * @param files absolute paths, one per slot; where there is none the slot has an empty disk, as in a machine that is to be saved
 */
export async function fillSlots(
  dir: string,
  { volumes = [] }: Pick<MachineConfig, "volumes">,
  files: readonly (string | undefined)[] | undefined,
): Promise<void> {
  for (const slot of volumes.keys()) {
    const place = join(dir, volumeFile(slot));
    const file = files?.[slot];
    if (file !== undefined) await symlink(relative(dir, file), place);
    else await makeEmptyDisk(place);
  }
}

/** Another file in one slot's place, whole or not at all. @param file absolute; absent: an empty disk */
export async function fillSlot(dir: string, slot: number, file: string | undefined): Promise<void> {
  const place = join(dir, volumeFile(slot));
  const next = `${place}.new`;
  await rm(next, { force: true });
  if (file === undefined) await makeEmptyDisk(next);
  else await symlink(relative(dir, file), next);
  await rename(next, place);
}

async function makeEmptyDisk(path: string): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    await file.truncate(EMPTY_VOLUME_BYTES);
  } finally {
    await file.close();
  }
}

export function copyDisk(dir: string, disk: DiskTemplate): Promise<void> {
  return disk.copyTo(join(dir, FILES.rootfs));
}

/** Whole or not at all, whatever happens to us: for a new machine, which does not outlive the host anyway. */
export async function writeFirstRecord(dir: string, record: MachineRecord): Promise<void> {
  const temporary = join(dir, `${RECORD_FILE}.new`);
  await writeFile(temporary, JSON.stringify(record), { mode: 0o600 });
  await rename(temporary, join(dir, RECORD_FILE));
}

/** The same whatever happens to the host: it is on disk before this resolves. */
export function writeRecord(dir: string, record: MachineRecord): Promise<void> {
  return replaceFile(join(dir, RECORD_FILE), JSON.stringify(record));
}

/** `undefined` when there is none. @throws StacyError `corrupt` when there is one that cannot be understood */
export async function readRecord(dir: string): Promise<MachineRecord | undefined> {
  const path = join(dir, RECORD_FILE);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (errno(error) === "ENOENT" || errno(error) === "ENOTDIR") return undefined;
    throw error;
  }
  try {
    return machineRecord.parse(JSON.parse(text));
  } catch (cause) {
    const why =
      cause instanceof z.ZodError ? z.prettifyError(cause).split("\n").slice(0, 2).join(" ") : "it is no JSON";
    throw new StacyError("corrupt", `the record ${path} cannot be read: ${why}`, { cause });
  }
}

/** With whatever of ours still works in it, which nobody would find once its directory is gone. @throws as `endLeftovers` */
export async function removeWithProcesses(dir: string): Promise<void> {
  await endLeftovers(dir);
  await removeMachineDir(dir);
}

/** Also when that fails for a moment: nobody else comes back for it before the next start. */
export async function removeMachineDir(dir: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await removeTree(dir);
    } catch (error) {
      if (attempt === REMOVE_ATTEMPTS) throw error;
      await delay(REMOVE_PAUSE_MS * attempt);
    }
  }
}
