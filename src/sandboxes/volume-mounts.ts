/** Volumes of sandboxes: from what a spawn asks for to what its machine gets, and who has which. */
import { StacyError } from "../host/error.ts";
import type { SpecVolume } from "../providers/provider.ts";
import type { VolumeAccess } from "../vmm/vmm.ts";
import type { Volumes, VolumeUser } from "../volumes/volumes.ts";
import type { SandboxRecord, SpareSlots, Template, VolumeInput, VolumeMount, VolumeSlot } from "./record.ts";
import type { Sandbox } from "./sandbox.ts";

/** Each is a device of the machine. */
const MOST = 4;
/** What the guest's system keeps in its own places. */
const TAKEN = /^\/(?:proc|sys|dev|run|etc)?(?:\/|$)/;

/** A mount whose slot is known. */
export type SlottedMount = VolumeMount & { slot: number };

/** @throws StacyError `invalid`, `not-found` */
export function resolveVolumes(volumes: Volumes, owner: string, asked: readonly VolumeInput[] = []): VolumeMount[] {
  return checkVolumes(asked).map((mount) => ({ id: volumes.find(owner, mount.name).id, ...mount }));
}

/**
 * Slots of a machine: those for writing first, since fewer orders are fewer golden machines.
 * @returns absent: it needs none
 * @throws StacyError `invalid`
 */
export function layOut<M extends Pick<VolumeMount, "readOnly">>(
  mounts: readonly M[],
  spare: SpareSlots = NO_SLOTS,
): { mounts: (M & { slot: number })[]; slots: VolumeAccess[] } | undefined {
  const writes = mounts.filter(({ readOnly }) => !readOnly);
  const reads = mounts.filter(({ readOnly }) => readOnly);
  const forWriting = writes.length + spare.write;
  const slots = [
    ...Array.from({ length: forWriting }, () => "write" as const),
    ...Array.from({ length: reads.length + spare.read }, () => "read" as const),
  ];
  if (slots.length > MOST) {
    throw new StacyError("invalid", `volumes: at most ${MOST} with the free places, and these are ${slots.length}`, {
      remedy: "ask for fewer free places (volume_slots)",
    });
  }
  if (slots.length === 0) return undefined;
  const placed = [
    ...writes.map((mount, at) => ({ ...mount, slot: at })),
    ...reads.map((mount, at) => ({ ...mount, slot: forWriting + at })),
  ];
  return { mounts: placed, slots };
}

const NO_SLOTS: SpareSlots = { write: 0, read: 0 };

/** Of a sandbox or a checkpoint, also of one that an earlier version made. */
export function slotted<M extends VolumeMount>(mounts: readonly M[] = []): (M & { slot: number })[] {
  return mounts.map((mount, at) => ({ ...mount, slot: mount.slot ?? at }));
}

export function slotsOf({ volumes, slots }: Pick<SandboxRecord, "volumes" | "slots">): VolumeSlot[] {
  return slots ?? (volumes ?? []).map(({ readOnly }) => (readOnly ? "read" : "write"));
}

/** How a machine uses each, whatever is or was in it. */
export function accessOf(slots: readonly VolumeSlot[]): VolumeAccess[] {
  return slots.map((slot) => (slot === "read" ? "read" : "write"));
}

/** How many more volumes there is a place for, to write and to read. */
export function freeSlots(record: Pick<SandboxRecord, "volumes" | "slots">): SpareSlots {
  const used = new Set(slotted(record.volumes).map(({ slot }) => slot));
  const free = slotsOf(record).filter((_, slot) => !used.has(slot));
  const count = (wanted: VolumeSlot): number => free.filter((slot) => slot === wanted).length;
  return { write: count("write"), read: count("read") };
}

/** @throws StacyError `conflict` */
export function freeSlot(record: SandboxRecord, readOnly: boolean): number {
  const used = new Set(slotted(record.volumes).map(({ slot }) => slot));
  const wanted = readOnly ? "read" : "write";
  const slot = slotsOf(record).findIndex((each, at) => each === wanted && !used.has(at));
  if (slot >= 0) return slot;
  const option = readOnly ? "--volume-slots-ro 1" : "--volume-slots 1";
  throw new StacyError(
    "conflict",
    `sandbox ${record.id} has no free place for a volume that is ${readOnly ? "only read" : "written"}`,
    { remedy: `places are part of the machine: start one that has them, \`stacyvm spawn ${option}\`` },
  );
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

/** For the machine. */
export function leaseFiles(volumes: Volumes, sandbox: string, mounts: readonly VolumeMount[]): Promise<SpecVolume[]> {
  return Promise.all(
    slotted(mounts).map(async (mount) => {
      const { file, bytes } = await volumes.lease(mount, sandbox, mount.readOnly);
      return { slot: mount.slot, name: mount.name, path: mount.path, readOnly: mount.readOnly, file, bytes };
    }),
  );
}

export function leaseAll(volumes: Volumes, { id, volumes: mounts = [] }: SandboxRecord): Promise<SpecVolume[]> {
  return leaseFiles(volumes, id, mounts);
}

/** What is saved of it, and its copies, would be neither with it nor without. @throws StacyError `conflict` */
export function assertSettled({ id, volumes = [] }: SandboxRecord): void {
  const half = volumes.find(({ changing }) => changing !== undefined);
  if (half === undefined) return;
  throw new StacyError("conflict", `volume ${half.name} of sandbox ${id} is neither attached nor detached`, {
    remedy: `detach it: \`stacyvm volume detach ${half.name} ${id} --force\``,
  });
}

/** @param what cannot be done. @throws StacyError `conflict` */
export function assertNoVolumes({ id, volumes }: SandboxRecord, what: string): void {
  if (volumes === undefined) return;
  throw new StacyError("conflict", `sandbox ${id} has volumes, and cannot be ${what}`, {
    remedy: "spawn another one, with a clone of each volume: `stacyvm volume clone NAME NEW`",
  });
}
