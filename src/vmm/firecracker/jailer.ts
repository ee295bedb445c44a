/**
 * Running a machine under Firecracker's jailer: own uid and gid, chroot, a network namespace, a largest size of its files. The jailer could put it
 * into control groups as well, and would wait for that, often for more than 10 ms: ../cgroup.ts does it when nobody waits.
 */
import { randomBytes } from "node:crypto";
import { StacyError } from "../../host/error.ts";
import { isRoot } from "../../host/is-root.ts";
import { emptyNetwork } from "../empty-network.ts";
import type { JailConfig } from "../vmm.ts";
import { type Jail, jailBase, makeRoot } from "./jail.ts";

/** Makes the new root. @throws StacyError `permission` unless root */
export async function makeJail(dir: string, firecracker: string, config: JailConfig): Promise<Jail> {
  if (!isRoot()) {
    throw new StacyError("permission", "the jailer needs root", {
      remedy: "run the server as root, or set `firecracker.jail: false`",
    });
  }
  return makeRoot(dir, firecracker, config, randomBytes(8).toString("hex"));
}

/** The jailer's command line, before what Firecracker is told. */
export async function jailerArguments(
  jail: Jail,
  dir: string,
  firecracker: string,
  { uid, gid, netns, fileMaxBytes }: JailConfig,
): Promise<string[]> {
  return [
    ["--id", jail.id, "--exec-file", firecracker, "--uid", String(uid), "--gid", String(gid)],
    ["--chroot-base-dir", jailBase(dir), "--netns", netns ?? (await emptyNetwork())],
    fileMaxBytes === undefined ? [] : ["--resource-limit", `fsize=${fileMaxBytes}`],
    ["--"],
  ].flat();
}
