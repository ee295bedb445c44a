import type { MachineRecord } from "../launcher/machine-dir.ts";

/** Whether its guest writes to volumes, and has to be asked to let them rest before its machine ends. */
export function writesVolumes({ guest, config }: Pick<MachineRecord, "guest" | "config">): boolean {
  return guest === "linux" && config.volumes?.includes("write") === true;
}
