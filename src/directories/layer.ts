/**
 * Layers that copies of machines have of their own over directories of the host (directory/src/layer.rs), each in the machine's directory, with
 * which it ends.
 */
import { chown, mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { exists } from "../host/exists.ts";
import { isRoot } from "../host/is-root.ts";
import { runTool } from "../host/run.ts";

/** Its name in a machine's directory. */
const LAYERS = "layers";

/** The place of one, made if it is not there, for the user that its helper runs as. */
export async function layerPlace(machineDir: string, name: string, source: string): Promise<string> {
  const place = join(machineDir, LAYERS, name);
  await mkdir(place, { recursive: true, mode: 0o700 });
  if (isRoot()) {
    const { uid, gid } = await stat(source);
    await chown(place, uid, gid);
  }
  return place;
}

/** All that a machine has. Whoever writes them meanwhile must have been told of nothing that is not in the copy. */
export async function copyLayers(machineDir: string, to: string): Promise<void> {
  const from = join(machineDir, LAYERS);
  // Its attributes, holes and links are what makes it one.
  if (await exists(from)) await runTool("cp", ["-a", "--reflink=auto", "--", from, join(to, LAYERS)]);
}
