/** How large the files of a machine's volumes may be: its monitor is bounded in what it writes, for good unless the server has more rights than it. */
import { readFile, stat } from "node:fs/promises";
import { StacyError } from "../host/error.ts";
import type { HostProcess } from "../host/process.ts";
import { EMPTY_VOLUME_BYTES, MOST_VOLUME_BYTES } from "./vmm.ts";

/** What has to be allowed for a disk that is written to: in the place of an empty one comes a volume that is not known yet. */
export function sizeToAllow(bytes: number): number {
  return bytes === EMPTY_VOLUME_BYTES ? MOST_VOLUME_BYTES : bytes;
}

/** Before a process that runs is given a file to write. @throws StacyError `conflict` for one that is larger than it may write */
export async function allowFile(process: Pick<HostProcess, "record" | "limitFiles">, path: string): Promise<void> {
  const [{ size }, limits] = await Promise.all([
    stat(path),
    readFile(`/proc/${process.record.pid}/limits`, "latin1").catch(() => ""), // one that is gone says so itself
  ]);
  const most = /^Max file size\s+(\d+)/m.exec(limits)?.[1];
  if (most === undefined || Number(most) >= size) return;
  await process.limitFiles(size).catch((cause: unknown) => {
    throw new StacyError("conflict", "the volume is larger than what the machine was started to write", {
      cause,
      remedy: "suspend the sandbox and resume it, or start one with a free place for volumes (`--volume-slots`)",
    });
  });
}
