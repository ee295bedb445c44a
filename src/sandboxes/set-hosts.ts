import type { SandboxRecord } from "./record.ts";

/** None is told by absence. */
export function setHosts(record: SandboxRecord, hosts: readonly string[]): void {
  if (hosts.length > 0) record.allowedHosts = [...hosts];
  else delete record.allowedHosts;
}
