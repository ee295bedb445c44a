/** Names of half-made things in the data directory's `tmp`. They say which process makes them, so that the next start can remove what a dead one left. */
import { randomBytes } from "node:crypto";
import { hostBootId, ownRecord, type ProcessRecord } from "./process.ts";

/** @param what tells it from others of this process; letters, digits and `-` */
export async function ownedName(kind: string, what = randomBytes(4).toString("hex")): Promise<string> {
  const { pid, startTime } = await ownRecord();
  return `${kind}-${what}-${pid}-${startTime}`;
}

/** Whose it is, as far as that is a process of this start of the host; `undefined` for a name that does not say. */
export async function ownerIn(name: string): Promise<ProcessRecord | undefined> {
  const [, pid, startTime] = /-(\d+)-(\d+)(?:\.out)?$/.exec(name) ?? [];
  if (pid === undefined || startTime === undefined) return undefined;
  return { pid: Number(pid), startTime, hostBootId: await hostBootId() };
}
