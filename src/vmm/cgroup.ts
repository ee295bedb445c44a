/**
 * A control group for each monitor, so that a guest gets its share of the host and no more: memory, processes, and CPU and disk by weight. Version 2
 * where the server's own group was delegated to it (docs/operations.md), version 1 where the server is root. Elsewhere there is none, and
 * `stacyvm doctor` says so.
 */
import { writeFileSync } from "node:fs";
import { access, constants, mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { once } from "../host/once.ts";
import { SerialQueue } from "../host/serial-queue.ts";
import { unlessShort } from "../host/shortage.ts";

const ROOT = "/sys/fs/cgroup";
const PREFIX = "stacyvm-vm-";
/** Where the server itself goes: in version 2 a group has either processes or groups with limits. */
const SERVER = "stacyvm-server";
const MIB = 1024 * 1024;
/** The monitor's own memory beside its guest's. Under emulation the translated code is in it, up to a gibibyte. */
const OVERHEAD_BYTES = { kvm: 256 * MIB, tcg: 1280 * MIB };
/** Threads: vCPUs, and helpers for the disk (QEMU: up to 64 for each drive). */
const THREADS = 256;
const PERIOD_US = 100_000;
const CONTROLLERS = ["memory", "pids", "cpu", "io"] as const;
type Controller = (typeof CONTROLLERS)[number];

export interface Share {
  vcpus: number;
  memoryMiB: number;
  accelerator: "kvm" | "tcg";
}

interface Host {
  version: 1 | 2;
  /** Where groups are made, by controller; in version 2 all the same. */
  parents: ReadonlyMap<Controller, string>;
}

export interface Confinement {
  /** What the host can give. */
  controllers: string[];
  version: 1 | 2 | undefined;
  /** Why not all of it. */
  lacks: string | undefined;
}

/** A shortage of the moment is no answer: the next machine asks again. */
const look = once(() => find().catch(unlessShort(undefined)));

/** What this server can limit. It looks once. */
export async function confinement(): Promise<Confinement> {
  let host: Host | undefined;
  try {
    host = await look();
  } catch (error) {
    return { controllers: [], version: undefined, lacks: `not known yet: ${(error as Error).message}` };
  }
  if (host === undefined) {
    return { controllers: [], version: undefined, lacks: "no control group that this user may divide" };
  }
  const controllers = [...host.parents.keys()];
  const missing = CONTROLLERS.filter((each) => !host.parents.has(each));
  const lacks = missing.length === 0 ? undefined : `without ${missing.join(", ")}`;
  return { controllers, version: host.version, lacks };
}

/**
 * One call after the other, and one monitor after the other: the kernel takes milliseconds for some, and each holds a thread of the few that
 * all file calls of this process share, those of the start itself too. A move right behind another one costs next to nothing.
 */
const calls = new SerialQueue();

async function enterGroup(pid: number): Promise<void> {
  const host = await look();
  if (host === undefined) return;
  const groups = groupsOf(host, pid);
  for (const group of groups) await mkdir(group).catch(() => {});
  for (const group of groups) await writeFile(join(group, "cgroup.procs"), String(pid)).catch(() => {});
}

/** Limits are numbers that the kernel keeps, 0.02 ms each. In turns of three with threads they are eight times the work for the processor. */
async function limitGroup(pid: number, share: Share): Promise<void> {
  const host = await look();
  if (host === undefined) return;
  for (const [controller, file, value] of host.version === 2 ? limitsSecond(share) : limitsFirst(share)) {
    const parent = host.parents.get(controller);
    if (parent === undefined) continue;
    try {
      writeFileSync(join(parent, `${PREFIX}${pid}`, file), String(value));
    } catch {} // a limit that this kernel does not know is none; the others hold all the same
  }
}

function groupsOf(host: Host, pid: number): Set<string> {
  return new Set([...host.parents.values()].map((parent) => join(parent, `${PREFIX}${pid}`)));
}

type Limit = [Controller, file: string, value: number | string];

function limitsSecond(share: Share): Limit[] {
  const { memory, pids, quota } = amounts(share);
  return [
    ["memory", "memory.max", memory],
    ["memory", "memory.oom.group", 1],
    ["pids", "pids.max", pids],
    ["cpu", "cpu.weight", Math.min(10_000, 100 * share.vcpus)],
    ["cpu", "cpu.max", `${quota} ${PERIOD_US}`],
    ["io", "io.weight", 100],
  ];
}

function limitsFirst(share: Share): Limit[] {
  const { memory, pids, quota } = amounts(share);
  return [
    ["memory", "memory.limit_in_bytes", memory],
    ["pids", "pids.max", pids],
    ["cpu", "cpu.shares", Math.min(262_144, 1024 * share.vcpus)],
    ["cpu", "cpu.cfs_period_us", PERIOD_US],
    ["cpu", "cpu.cfs_quota_us", quota],
    ["io", "blkio.weight", 500],
  ];
}

function amounts({ vcpus, memoryMiB, accelerator }: Share): { memory: number; pids: number; quota: number } {
  return {
    memory: memoryMiB * MIB + OVERHEAD_BYTES[accelerator],
    pids: vcpus + THREADS,
    // Half a CPU for what the monitor does itself.
    quota: Math.round((vcpus + 0.5) * PERIOD_US),
  };
}

/**
 * The group of one monitor. While the kernel moves a process, for some 10 ms now and then, no process and no thread begins anywhere on the
 * host. So one that waits for a machine is moved meanwhile and has only its limits written when it gets one; any other is moved when it has
 * loaded or booted its machine, and nobody waits for it.
 */
export class MonitorGroup {
  readonly #pid: number;
  #entered: Promise<void> | undefined;
  #made: Promise<void> = Promise.resolve();
  #removed = false;

  constructor(pid: number) {
    this.#pid = pid;
  }

  /** Without limits yet. Never rejects */
  enter(): Promise<void> {
    if (this.#removed) return Promise.resolve();
    this.#entered ??= calls.run(() => enterGroup(this.#pid)).catch(() => {});
    return this.#entered;
  }

  /** Never rejects */
  limit(share: Share): Promise<void> {
    this.#made = this.enter()
      .then(() => limitGroup(this.#pid, share))
      .catch(() => {});
    return this.#made;
  }

  /** Once the monitor is gone. Nobody waits for this either. */
  remove(): void {
    this.#removed = true;
    void Promise.all([this.#entered, this.#made]).then(() => removeGroup(this.#pid));
  }
}

/**
 * Removes that of a process that is gone, whoever started it. Beside whatever comes next, since for some moments a process still counts after
 * its end; ours does not end before it is done.
 */
export function removeGroup(pid: number): void {
  void look().then(
    async (host) => {
      for (const group of host === undefined ? [] : groupsOf(host, pid)) {
        for (let tries = 0; tries < 50; tries++) {
          const code = await rmdir(group).then(
            () => "",
            (error: NodeJS.ErrnoException) => error.code,
          );
          if (code !== "EBUSY") break;
          await sleep(10);
        }
      }
    },
    () => {},
  ); // nothing was made without a look
}

async function find(): Promise<Host | undefined> {
  const own = (await readFile("/proc/self/cgroup", "utf8")).split("\n");
  const unified = await readFile(join(ROOT, "cgroup.controllers"), "utf8").catch(unlessShort(undefined));
  const host = unified === undefined ? await findFirst(own) : await findSecond(own, unified);
  if (host === undefined || host.parents.size === 0) return undefined;
  await removeEmpty(new Set(host.parents.values()));
  return host;
}

/** Lines `N:controller,...:/path`. */
async function findFirst(own: string[]): Promise<Host> {
  const parents = new Map<Controller, string>();
  for (const controller of CONTROLLERS) {
    const name = controller === "io" ? "blkio" : controller;
    const path = own.find((line) => line.split(":")[1]?.split(",").includes(name))?.split(":")[2];
    if (path === undefined) continue;
    const parent = join(ROOT, name, path);
    // In a container the path is often the host's, and what is mounted begins at ours.
    for (const candidate of [parent, join(ROOT, name)]) {
      if (!(await writable(candidate))) continue;
      parents.set(controller, candidate);
      break;
    }
  }
  return { version: 1, parents };
}

/** The line `0::/path`. */
async function findSecond(own: string[], controllers: string): Promise<Host | undefined> {
  const path = own.find((line) => line.startsWith("0::"))?.slice(3);
  // The whole machine is not ours to divide: systemd does that.
  if (path === undefined || path === "/" || path === "") return undefined;
  const inside = path.endsWith(`/${SERVER}`);
  const parent = inside ? join(ROOT, path, "..") : join(ROOT, path);
  if (!(await writable(parent)) || !(await writable(join(parent, "cgroup.subtree_control")))) return undefined;
  const wanted = CONTROLLERS.filter((each) => controllers.split(/\s+/).includes(each));
  if (!inside) {
    // Delegated to us alone, by the unit; a session's group has others in it.
    const members = (await readFile(join(parent, "cgroup.procs"), "utf8")).trim().split("\n");
    if (members.some((pid) => pid !== String(process.pid))) return undefined;
    await mkdir(join(parent, SERVER)).catch(unlessShort(undefined));
    await writeFile(join(parent, SERVER, "cgroup.procs"), String(process.pid));
  }
  const parents = new Map<Controller, string>();
  for (const controller of wanted) {
    await writeFile(join(parent, "cgroup.subtree_control"), `+${controller}`).then(
      () => parents.set(controller, parent),
      unlessShort(undefined),
    );
  }
  return { version: 2, parents };
}

function writable(path: string): Promise<boolean> {
  return access(path, constants.W_OK).then(() => true, unlessShort(false));
}

/** Groups of machines that ended while no server ran; one with a process in it cannot be removed. */
async function removeEmpty(parents: Iterable<string>): Promise<void> {
  for (const parent of parents) {
    for (const name of await readdir(parent).catch(() => [])) {
      if (name.startsWith(PREFIX)) await rmdir(join(parent, name)).catch(() => {});
    }
  }
}
