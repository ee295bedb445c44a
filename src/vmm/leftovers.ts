/** What monitors of an earlier daemon leave that no record names: processes, and what these held outside their directories. */
import { join } from "node:path";
import { subdirectories } from "../host/directory.ts";
import { endOwnProcessesIn } from "../host/process.ts";
import { removeGroup } from "./cgroup.ts";
import { findJail } from "./firecracker/jail.ts";
import { removeCgroups } from "./firecracker/jailer.ts";

/** Ends those in `dir` or below it that are proven to be ours, and removes their control groups. @throws as `endOwnProcessesIn` */
export async function endLeftovers(dir: string): Promise<void> {
  // A jail's groups are named in the directory alone. A golden snapshot's machine is in one, a sandbox's is one.
  const places = [dir, ...(await subdirectories(dir)).map((name) => join(dir, name))];
  const jails = await Promise.all(places.map((place) => findJail(place).catch(() => undefined))); // half removed
  for (const pid of await endOwnProcessesIn(dir)) removeGroup(pid);
  await Promise.all(jails.map((jail) => jail?.by === "jailer" && removeCgroups(jail)));
}
