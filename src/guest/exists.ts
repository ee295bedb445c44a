/** What is there in a guest. */
import { posix } from "node:path";
import { StacyError } from "../host/error.ts";
import type { Agent, FileStat } from "./agent.ts";

/** @throws StacyError for every other reason than that there is nothing: what cannot be seen is not gone */
export async function isThere(agent: Pick<Agent, "stat">, path: string): Promise<boolean> {
  try {
    await agent.stat(path);
    return true;
  } catch (error) {
    if (error instanceof StacyError && error.code === "not-found") return false;
    throw error;
  }
}

/** What there is, as `stat` tells it; `undefined`: nothing, also below what is no directory. @throws StacyError for every other reason */
export async function statOf(
  agent: Pick<Agent, "stat">,
  path: string,
  options?: { follow?: boolean },
): Promise<FileStat | undefined> {
  try {
    return await agent.stat(path, options);
  } catch (error) {
    if (error instanceof StacyError && (error.code === "not-found" || error.code === "not-directory")) return undefined;
    throw error;
  }
}

/** The directories that a path needs and that are not there yet, from the top. @param directory absolute */
export async function missingDirectories(agent: Pick<Agent, "stat">, directory: string): Promise<string[]> {
  const missing: string[] = [];
  for (let path = directory; path !== "/"; path = posix.dirname(path)) {
    if (await isThere(agent, path)) break;
    missing.unshift(path);
  }
  return missing;
}
