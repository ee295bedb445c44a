/** One directory per machine: the VMM's working directory, with its private disk and the link to the shared base. */
import { mkdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import type { ProcessRecord } from "../host/process.ts";
import type { ImageConfig } from "../images/image.ts";
import { FILES, type MachineConfig } from "../vmm/vmm.ts";
import type { Shape } from "./shape.ts";
import type { DiskTemplate } from "./snapshot-store.ts";

/** `sandbox.json`: enough for another daemon to take the machine over, or to remove it. */
export interface MachineRecord {
  version: 1;
  /** The sandbox's id, or the pool's own name for one that waits. */
  id: string;
  role: "sandbox" | "pool";
  vmm: "firecracker" | "qemu";
  guest: "linux" | "bare";
  key: string;
  image: string;
  imageDigest: string;
  config: MachineConfig;
  process: ProcessRecord | null;
  state: "running" | "paused" | "suspended";
  /** What the handshake gave it, apart from the entropy; a suspended one is given the same names again. */
  identity: {
    hostname: string;
    machineId: string;
    bootId: string;
    env: Record<string, string>;
    cwd?: string;
    user?: string;
  };
  /** Hosts that it may connect to; absent: none. */
  allowedHosts?: string[];
  /** Directory of the snapshot that it was loaded from with its dirty pages tracked, so that a save writes the difference. */
  parent?: string;
  /** What a saved machine needs to be started elsewhere. */
  shape: Shape;
  imageConfig: ImageConfig;
  boot: unknown;
  createdAt: number;
}

/** Makes the directory with its link to the base. The disk comes separately: it may be copied beside the VMM's start. */
export async function makeMachineDir(dir: string, base: string): Promise<void> {
  await mkdir(dir, { recursive: false, mode: 0o700 });
  await symlink(relative(dir, base), join(dir, FILES.base));
}

export function copyDisk(dir: string, disk: DiskTemplate): Promise<void> {
  return disk.copyTo(join(dir, FILES.rootfs));
}

/** Whole or not at all: a reader never sees half a record. */
export async function writeRecord(dir: string, record: MachineRecord): Promise<void> {
  const temporary = join(dir, "sandbox.json.new");
  await writeFile(temporary, JSON.stringify(record), { mode: 0o600 });
  await rename(temporary, join(dir, "sandbox.json"));
}

/** `undefined` when there is none that can be read. */
export async function readRecord(dir: string): Promise<MachineRecord | undefined> {
  try {
    const record = JSON.parse(await readFile(join(dir, "sandbox.json"), "utf8")) as MachineRecord;
    return record.version === 1 ? record : undefined;
  } catch {
    return undefined;
  }
}

export async function removeMachineDir(dir: string): Promise<void> {
  await rm(dir, { recursive: true, force: true });
}
