/**
 * What a copy of a machine goes on writing is its own from the moment in which it was made: files that programs have open to write are copied
 * into its layer while the machine stands still. Otherwise the original would go on writing into what the copy's programs believe to know.
 */
import { constants } from "node:fs";
import { StacyError } from "../host/error.ts";
import type { MountedDirectory } from "./directory.ts";
import { FuseClient, Op, ROOT, text, u32, u64 } from "./fuse-client.ts";
import { type HelperOptions, startHelper } from "./helper.ts";

const NO_ROOM = new Set([28, 122]); // ENOSPC, EDQUOT

/**
 * @param directory with the layer
 * @param paths in it; what is no file there any more stays out
 * @throws StacyError `limit` when the layer has no room for them
 */
export async function bringIn(
  options: HelperOptions,
  directory: MountedDirectory,
  paths: readonly Buffer[],
): Promise<void> {
  if (paths.length === 0) return;
  await using helper = await startHelper(options, directory);
  const client = new FuseClient(helper);
  for (const path of paths) {
    let node = ROOT;
    let found = true;
    for (const name of split(path)) {
      const { errno, body } = await client.call(Op.LOOKUP, node, text(name));
      found = errno === 0;
      if (!found) break;
      node = body.readBigUInt64LE(0);
    }
    if (!found) continue;
    const { errno, body } = await client.call(Op.OPEN, node, u32(constants.O_WRONLY, 0));
    if (errno !== 0) continue;
    const handle = body.readBigUInt64LE(0);
    // Nothing is written, and where it would be is in the layer from then on.
    const written = await client.write(handle, "", 0, constants.O_WRONLY);
    await client.call(Op.RELEASE, node, u64(handle), u32(0, 0), u64(0));
    if (written.errno === 0) continue;
    const full = NO_ROOM.has(written.errno);
    throw new StacyError(
      full ? "limit" : "unavailable",
      `${directory.source}: ${path} is open to write and cannot be copied${full ? ": the copy's own layer has no room for it" : ` (errno ${written.errno})`}`,
      { remedy: "fork with `--mounts read-only`, or close the file before" },
    );
  }
}

function split(path: Buffer): Buffer[] {
  const names: Buffer[] = [];
  for (let at = 0; at <= path.length; ) {
    const next = path.indexOf("/", at);
    const end = next < 0 ? path.length : next;
    names.push(path.subarray(at, end));
    at = end + 1;
  }
  return names;
}
