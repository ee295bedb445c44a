/** Volumes of sandboxes: from what a spawn asks for to what its machine gets, and who has which. */
import { StacyError } from "../host/error.ts";
import type { SpecVolume } from "../providers/provider.ts";
import type { Volumes, VolumeUser } from "../volumes/volumes.ts";
import type { SandboxRecord, Template, VolumeInput, VolumeMount } from "./record.ts";
import type { Sandbox } from "./sandbox.ts";

/** Each is a device of the machine. */
const MOST = 4;
/** What the guest's system keeps in its own places. */
const TAKEN = /^\/(?:proc|sys|dev|run|etc)?(?:\/|$)/;

/**
 * The owner's volumes by name, those that are written first: the order is that of the machine's slots, and fewer orders are fewer golden machines.
 * @throws StacyError `invalid`, `not-found`
 */
export function resolveVolumes(volumes: Volumes, owner: string, asked: readonly VolumeInput[] = []): VolumeMount[] {
  const mounts = checkVolumes(asked).map((mount) => ({ id: volumes.find(owner, mount.name).id, ...mount }));
  return [...mounts.filter(({ readOnly }) => !readOnly), ...mounts.filter(({ readOnly }) => readOnly)];
}

/** What can be asked for, whether or not there are such volumes. @throws StacyError `invalid` */
export function checkVolumes(asked: readonly VolumeInput[]): Required<VolumeInput>[] {
  if (asked.length > MOST) {
    throw new StacyError("invalid", `volumes: at most ${MOST}, and these are ${asked.length}`);
  }
  const mounts = asked.map(({ name, path, readOnly = false }) => ({ name, path: checkPath(path), readOnly }));
  for (const [at, { name, path }] of mounts.entries()) {
    const before = mounts.slice(0, at);
    if (before.some((other) => other.name === name)) throw new StacyError("invalid", `volumes: ${name} is there twice`);
    if (before.some((other) => other.path === path)) throw new StacyError("invalid", `volumes: ${path} is there twice`);
  }
  return mounts;
}

/** A template's, without those whose name or place a spawn from it gives another one. */
export function withTemplate(template: Template | undefined, asked: readonly VolumeInput[] = []): VolumeInput[] {
  const own = checkVolumes(asked);
  const replaced = ({ name, path }: VolumeInput): boolean =>
    own.some((other) => other.name === name || other.path === path);
  return [...(template?.volumes ?? []).filter((each) => !replaced(each)), ...own];
}

function checkPath(given: string): string {
  const path = given.length > 1 ? given.replace(/\/+$/, "") : given;
  const parts = path.split("/").slice(1);
  const plain = path.startsWith("/") && parts.every((part) => part !== "" && part !== "." && part !== "..");
  if (plain && !path.includes("\0") && path.length <= 1_024 && !TAKEN.test(path)) return path;
  throw new StacyError("invalid", `volumes: ${JSON.stringify(given.slice(0, 80))} is no place for a volume`, {
    remedy: "name an absolute path such as /data that is not below /proc, /sys, /dev, /run or /etc",
  });
}

/** Who has it, of all sandboxes that there are: those that have, are getting or may still have a machine. */
export function usersOf(id: string, sandboxes: Iterable<Sandbox>): VolumeUser[] {
  const users: VolumeUser[] = [];
  for (const { record, machine, unreachable, state } of sandboxes) {
    const mount = record.volumes?.find((each) => each.id === id);
    if (mount === undefined) continue;
    // The machine has failed, and nothing runs any more that could use it.
    const over =
      state === "error" && unreachable === undefined && (machine === undefined || machine.state === "exited");
    if (!over) users.push({ sandbox: record.id, path: mount.path, readOnly: mount.readOnly });
  }
  return users;
}

/** For the machine, in the order of its slots. */
export function leaseFiles(volumes: Volumes, sandbox: string, mounts: readonly VolumeMount[]): Promise<SpecVolume[]> {
  return Promise.all(
    mounts.map(async (mount) => {
      const { file, bytes } = await volumes.lease(mount, sandbox, mount.readOnly);
      return { name: mount.name, path: mount.path, readOnly: mount.readOnly, file, bytes };
    }),
  );
}

export function leaseAll(volumes: Volumes, { id, volumes: mounts = [] }: SandboxRecord): Promise<SpecVolume[]> {
  return leaseFiles(volumes, id, mounts);
}

/** Of a machine that is to be saved: it has a place for the volume, whichever that will be. */
export function asSlot({ name, path, readOnly }: VolumeMount): SpecVolume {
  return { name, path, readOnly, file: "", bytes: 0 };
}

/** @param what cannot be done. @throws StacyError `conflict` */
export function assertNoVolumes({ id, volumes }: SandboxRecord, what: string): void {
  if (volumes === undefined) return;
  throw new StacyError("conflict", `sandbox ${id} has volumes, and cannot be ${what}`, {
    remedy: "spawn another one, with a clone of each volume: `stacyvm volume clone NAME NEW`",
  });
}
