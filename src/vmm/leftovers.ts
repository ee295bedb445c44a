/** What monitors of an earlier daemon leave that no record names: processes, and what these held outside their directories. */
import { endOwnProcessesIn } from "../host/process.ts";
import { removeGroup } from "./cgroup.ts";

/** Ends those in `dir` or below it that are proven to be ours, and removes their control groups. @throws as `endOwnProcessesIn` */
export async function endLeftovers(dir: string): Promise<void> {
  for (const pid of await endOwnProcessesIn(dir)) removeGroup(pid);
}
