/**
 * Which processes have been this node, by the incarnations that they registered under. A database that is back from a backup knows an
 * earlier one of these: that one is gone, and does not take this process's place.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile } from "../host/durable.ts";
import { errno } from "../host/error.ts";
import type { Log } from "../sandboxes/observer.ts";

const FILE = "node-starts";
/** What is older is in no backup that anybody goes back to. */
const MOST = 1_000;

/**
 * Writes down that this process is the node from now on. Without room for it the server starts all the same.
 * @returns the incarnations before, oldest first
 */
export async function startAs(incarnation: string, dataDir: string, log: Log): Promise<string[]> {
  const path = join(dataDir, FILE);
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    if (errno(error) !== "ENOENT") throw error;
    return "";
  });
  const earlier = text.split("\n").filter((line) => line !== "");
  await replaceFile(path, `${[...earlier, incarnation].slice(-MOST).join("\n")}\n`).catch((error: unknown) => {
    log.warn({ phase: "fleet", err: error }, "this start could not be written down for the fleet");
  });
  return earlier;
}
