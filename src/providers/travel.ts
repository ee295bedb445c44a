/** A suspended machine on its way to another host: what there is of it here, and how it is put together there. */
import { chmod, mkdir, rename, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { syncPath } from "../host/durable.ts";
import { asStacyError, errno, StacyError } from "../host/error.ts";
import { ownedName } from "../host/owned-name.ts";
import {
  fillSlots,
  type MachineRecord,
  makeMachineDir,
  readRecord,
  removeMachineDir,
  removeWithProcesses,
  writeRecord,
} from "../launcher/machine-dir.ts";
import { PARTS } from "../launcher/parts.ts";
import type { SnapshotStore } from "../launcher/snapshot-store.ts";
import { SuspendedState } from "../launcher/suspended.ts";
import { type Target, targetOf } from "../launcher/target.ts";
import { FILES } from "../vmm/vmm.ts";
import { attempt } from "./adoption.ts";
import type { MachineContext } from "./machine-context.ts";
import { type PackedMachine, packedMachine } from "./packed.ts";
import type { ArrivingMachine } from "./provider.ts";

const ADOPT_MS = 30_000;

/** Of one that runs, as it would be when it is suspended now. */
export async function outline(dir: string): Promise<PackedMachine> {
  const record = await readRecord(dir);
  if (record === undefined) throw new StacyError("not-found", `there is no machine of sandbox ${basename(dir)}`);
  if (record.state === "suspended") return { ...(await pack(dir)), files: {} };
  return { record, keeps: "machine", files: {} };
}

/** @throws StacyError `conflict` when it is not suspended */
export async function pack(dir: string): Promise<PackedMachine> {
  const record = await readRecord(dir);
  const saved = new SuspendedState(dir);
  if (record?.state !== "suspended" || !(await saved.exists())) {
    throw new StacyError("conflict", `the machine of sandbox ${basename(dir)} is not suspended`);
  }
  const keeps = await saved.verify();
  const files: Record<string, number> = {};
  for (const name of [...(await saved.files()).map((part) => `suspended/${part}`), FILES.console]) {
    const found = await stat(join(dir, name)).catch(absent);
    if (found !== undefined) files[name] = found.mode & 0o777;
  }
  return { record, keeps, files };
}

/** Where a file of it is. @throws StacyError `invalid` */
export function packedFile(dir: string, name: string): string {
  if (packedMachine.shape.files.safeParse({ [name]: 0 }).success) return join(dir, name);
  throw new StacyError("invalid", `${JSON.stringify(name)} is no file of a machine`);
}

/** What of this host is not as it is where the machine was saved, for people; nothing: it can wake here. */
export async function differences(context: MachineContext, packed: PackedMachine): Promise<string[]> {
  const { record, keeps } = packed;
  let here: Target;
  try {
    here = await targetHere(context, record);
  } catch (error) {
    return [asStacyError(error).message];
  }
  // What starts anew takes this host's kernel and monitor.
  if (keeps === "disk") return [];
  const differs: string[] = [];
  const say = (what: string, there = "none", now = "none"): void => {
    if (there !== now) differs.push(`${what}: ${short(there)} there, ${short(now)} here`);
  };
  const names = new Set([...Object.keys(record.shape.vmmIdentity), ...Object.keys(here.shape.vmmIdentity)]);
  for (const name of names)
    say(`${record.vmm}'s ${name}`, record.shape.vmmIdentity[name], here.shape.vmmIdentity[name]);
  say("the guest's kernel", record.shape.kernel, here.shape.kernel);
  say("the guest's agent", record.shape.initramfs, here.shape.initramfs);
  say("the kernel's command line", record.shape.cmdline, here.shape.cmdline);
  return differs;
}

/** The same machine with this host's files. */
async function targetHere({ launcher }: MachineContext, record: MachineRecord): Promise<Target> {
  const { key, image, imageConfig, config, shape, createdAt } = record;
  const about = { version: 1 as const, kind: "golden" as const, files: {} };
  return launcher.targets.anew(
    targetOf({ ...about, key, image, imageConfig, config, shape, createdAt }, launcher.paths),
  );
}

/** Begins to put one together; until it is placed nothing of it counts, and what is left of one the next start removes. */
export async function unpack(context: MachineContext, place: string, packed: PackedMachine): Promise<ArrivingMachine> {
  const { record } = packed;
  const { paths } = context.launcher;
  const id = basename(place);
  const { image, config } = await targetHere(context, record);
  await mkdir(paths.tmp, { recursive: true });
  const dir = join(paths.tmp, await ownedName("arrival"));
  await makeMachineDir(dir, image.base);
  let placed = false;
  try {
    await makeMachineDir(new SuspendedState(dir).dir, image.base);
    await fillSlots(dir, config, undefined);
  } catch (error) {
    await removeMachineDir(dir);
    throw error;
  }
  return {
    path: (name) => packedFile(dir, name),
    async place() {
      for (const [name, mode] of Object.entries(packed.files)) await chmod(join(dir, name), mode);
      await new SuspendedState(dir).sealAgain();
      await writeRecord(dir, { ...record, config, process: null, state: "suspended" });
      await mkdir(paths.sandboxes, { recursive: true, mode: 0o700 });
      await rename(dir, place);
      placed = true;
      await syncPath(dirname(place));
      const found = await attempt(context, place, ADOPT_MS);
      if (found.result !== "adopted") {
        await removeWithProcesses(place);
        throw new StacyError("internal", `the machine of sandbox ${id} has arrived, and is ${found.result}`);
      }
      context.keep(found.machine);
      return found.machine;
    },
    async [Symbol.asyncDispose]() {
      if (!placed) await removeMachineDir(dir);
    },
  };
}

/** Of one that is whole. */
export async function goldenFiles(store: SnapshotStore, key: string): Promise<Record<string, string> | undefined> {
  const found = await store.get(key).catch(() => undefined); // a damaged one is none
  if (found?.manifest.kind !== "golden") return undefined;
  return Object.fromEntries(PARTS.map((name) => [name, join(found.dir, name)]));
}

function absent(error: unknown): undefined {
  if (errno(error) !== "ENOENT") throw error;
}

function short(text: string): string {
  return /^[0-9a-f]{64}$/.test(text) ? text.slice(0, 12) : text;
}
