/**
 * Running a machine under Firecracker's jailer: own uid and gid, chroot, cgroup limits, optionally a network namespace.
 *
 * The jailer insists on `<base>/<program>/<id>/root` as the new root. It lies inside the machine's directory, so that it
 * goes when that goes:
 *
 *     <dir>/rootfs.ext4                         hard links of these two ...
 *     <dir>/vmm.log
 *     <dir>/jail/firecracker/<id>/root/         = `/` of the machine
 *         rootfs.ext4  vmm.log                  ... are here, owned by the machine's uid
 *         base.img  vmstate.bin  memory.bin     hard links of the shared read-only files
 *         api.sock  v.sock  firecracker  dev/ run/   made by the jailer and by Firecracker
 */
import { randomBytes } from "node:crypto";
import {
  access,
  chmod,
  chown,
  constants,
  link,
  mkdir,
  readdir,
  readFile,
  realpath,
  rm,
  rmdir,
  stat,
} from "node:fs/promises";
import { basename, join } from "node:path";
import { errno, StacyError } from "../../host/error.ts";
import type { JailConfig } from "../vmm.ts";

const JAIL = "jail";
const V1_PERIOD_US = 100_000;

export interface Jail {
  /** Names the chroot and the cgroups. */
  id: string;
  /** The new root, relative to the machine's directory. */
  root: string;
  /** The program's file name: the jailer derives paths from it. */
  program: string;
  uid: number;
  gid: number;
}

/** Makes the new root. @throws StacyError `permission` unless root */
export async function makeJail(dir: string, firecracker: string, config: JailConfig): Promise<Jail> {
  if (process.getuid?.() !== 0) {
    throw new StacyError("permission", "the jailer needs root", {
      remedy: "run the server as root, or set `firecracker.jail: false`",
    });
  }
  // Of the same machine before it was suspended: the jailer refuses a root that was used.
  await rm(join(dir, JAIL), { recursive: true, force: true });
  const program = basename(firecracker);
  const id = randomBytes(8).toString("hex");
  const jail: Jail = { id, program, root: join(JAIL, program, id, "root"), uid: config.uid, gid: config.gid };
  await mkdir(join(dir, jail.root), { recursive: true });
  return jail;
}

/** The jail that an earlier daemon made in this directory, if any. */
export async function findJail(dir: string): Promise<Jail | undefined> {
  const [program] = await readdir(join(dir, JAIL)).catch(() => []);
  if (program === undefined) return undefined;
  const [id] = await readdir(join(dir, JAIL, program));
  if (id === undefined) return undefined;
  const root = join(JAIL, program, id, "root");
  // The jailer gave it to the machine's user, who must be given what the machine writes.
  const { uid, gid } = await stat(join(dir, root));
  return { id, program, root, uid, gid };
}

/** Command-line arguments of the jailer, before those of Firecracker. */
export async function jailerArguments(
  jail: Jail,
  dir: string,
  firecracker: string,
  config: JailConfig,
): Promise<string[]> {
  const version = await cgroupVersion();
  const limits = await cgroupLimits(version, config);
  return [
    ["--id", jail.id, "--exec-file", firecracker, "--uid", String(config.uid), "--gid", String(config.gid)],
    ["--chroot-base-dir", join(dir, JAIL), "--cgroup-version", String(version)],
    limits.flatMap((limit) => ["--cgroup", limit]),
    config.netns === undefined ? [] : ["--netns", config.netns],
    ["--"],
  ].flat();
}

/** Makes a file of the host appear in the jail, by hard link. @param own gives it to the machine's uid */
export async function bring(jail: Jail, dir: string, path: string, name: string, own: boolean): Promise<void> {
  const target = join(dir, jail.root, name);
  try {
    await link(await realpath(path), target);
  } catch (error) {
    if (errno(error) === "EEXIST") return;
    if (errno(error) !== "EXDEV") throw error;
    throw new StacyError("unavailable", `${path} is on another filesystem than the machine's directory ${dir}`, {
      cause: error,
      remedy: "keep images, snapshots and sandboxes on one filesystem when the jail is on",
    });
  }
  if (own) await chown(target, jail.uid, jail.gid);
  // Shared by all machines and read only: its user is not the one that made it.
  else await chmod(target, 0o444);
}

/** 2 where the unified hierarchy offers the controllers, else 1. */
export async function cgroupVersion(): Promise<1 | 2> {
  const controllers = await readFile("/sys/fs/cgroup/cgroup.controllers", "utf8").catch(() => "");
  return controllers.includes("memory") ? 2 : 1;
}

/** `file=value` for each limit; @throws StacyError `unavailable` naming a controller that is missing. */
async function cgroupLimits(version: 1 | 2, config: JailConfig): Promise<string[]> {
  const { memoryMaxBytes, cpuMaxPercent, pidsMax } = config;
  const limits: { controller: string; lines: string[] }[] = [];
  if (memoryMaxBytes !== undefined) {
    const file = version === 2 ? "memory.max" : "memory.limit_in_bytes";
    limits.push({ controller: "memory", lines: [`${file}=${memoryMaxBytes}`] });
  }
  if (cpuMaxPercent !== undefined) {
    const quota = Math.round((cpuMaxPercent / 100) * V1_PERIOD_US);
    const lines =
      version === 2
        ? [`cpu.max=${quota} ${V1_PERIOD_US}`]
        : [`cpu.cfs_period_us=${V1_PERIOD_US}`, `cpu.cfs_quota_us=${quota}`];
    limits.push({ controller: "cpu", lines });
  }
  if (pidsMax !== undefined) limits.push({ controller: "pids", lines: [`pids.max=${pidsMax}`] });
  for (const { controller } of limits) await requireController(version, controller);
  return limits.flatMap(({ lines }) => lines);
}

async function requireController(version: 1 | 2, controller: string): Promise<void> {
  const there =
    version === 2
      ? (await readFile("/sys/fs/cgroup/cgroup.controllers", "utf8")).split(/\s/).includes(controller)
      : await access(`/sys/fs/cgroup/${controller}/cgroup.procs`, constants.W_OK).then(
          () => true,
          () => false,
        );
  if (there) return;
  throw new StacyError("unavailable", `the cgroup controller ${controller} (version ${version}) is not available`, {
    remedy: `enable the controller ${controller} on the host, or drop that limit`,
  });
}

/** Removes the cgroups that the jailer made and leaves behind. */
export async function removeCgroups(jail: Jail): Promise<void> {
  const root = "/sys/fs/cgroup";
  const places =
    (await cgroupVersion()) === 2 ? [root] : (await readdir(root)).map((controller) => join(root, controller));
  for (const place of places) {
    const path = join(place, jail.program, jail.id);
    // The kernel needs a moment to take the dead process out.
    for (let attempt = 0; ; attempt++) {
      try {
        await rmdir(path);
        break;
      } catch (error) {
        if (errno(error) !== "EBUSY" || attempt === 50) break;
        await new Promise((wake) => setTimeout(wake, 2));
      }
    }
  }
}
