/** Running a machine under Firecracker's jailer: own uid and gid, chroot, network namespace, limits of its cgroup and of its files. */
import { randomBytes } from "node:crypto";
import { access, constants, readdir, readFile, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { errno, StacyError } from "../../host/error.ts";
import { isRoot } from "../../host/is-root.ts";
import type { JailConfig } from "../vmm.ts";
import { type Jail, jailBase, makeRoot } from "./jail.ts";

const V1_PERIOD_US = 100_000;

/** Makes the new root. @throws StacyError `permission` unless root */
export async function makeJail(dir: string, firecracker: string, config: JailConfig): Promise<Jail> {
  if (!isRoot()) {
    throw new StacyError("permission", "the jailer needs root", {
      remedy: "run the server as root, or set `firecracker.jail: false`",
    });
  }
  return makeRoot(dir, firecracker, config, randomBytes(8).toString("hex"));
}

/**
 * The jailer's command line, before what Firecracker is told. An empty network namespace is made by whom the jailer is started by, who becomes
 * it: so it is the process's alone, and nobody has to remove it.
 */
export async function jailerCommand(
  jailer: string,
  jail: Jail,
  dir: string,
  firecracker: string,
  config: JailConfig,
): Promise<{ command: string; args: string[] }> {
  const args = await jailerArguments(jail, dir, firecracker, config);
  return config.netns === undefined
    ? { command: "unshare", args: ["--net", "--", jailer, ...args] }
    : { command: jailer, args };
}

async function jailerArguments(jail: Jail, dir: string, firecracker: string, config: JailConfig): Promise<string[]> {
  const version = await cgroupVersion();
  const limits = await cgroupLimits(version, config);
  return [
    ["--id", jail.id, "--exec-file", firecracker, "--uid", String(config.uid), "--gid", String(config.gid)],
    ["--chroot-base-dir", jailBase(dir), "--cgroup-version", String(version)],
    limits.flatMap((limit) => ["--cgroup", limit]),
    config.netns === undefined ? [] : ["--netns", config.netns],
    config.fileMaxBytes === undefined ? [] : ["--resource-limit", `fsize=${config.fileMaxBytes}`],
    ["--"],
  ].flat();
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
