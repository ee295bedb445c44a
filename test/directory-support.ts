/** A directory of the host in a guest of a test, served as the server serves it. */
import { readdir, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { HostDirectory } from "../src/directories/directory.ts";
import { ServedDirectories, type ServingOptions } from "../src/directories/serving.ts";
import type { Agent } from "../src/guest/agent.ts";
import { directoryHelperPath } from "../src/host/directory-helper.ts";
import { dataPaths } from "../src/host/paths.ts";

export interface Shared extends AsyncDisposable {
  served: ServedDirectories;
}

export async function share(
  agent: Agent,
  { source, path, layer }: Pick<HostDirectory, "source" | "path" | "layer">,
  options: Partial<ServingOptions> = {},
): Promise<Shared> {
  const program = directoryHelperPath(dataPaths().assets);
  const served = new ServedDirectories(agent, [], { program, hidden: join(tmpdir(), "no-such-data"), ...options });
  await served.mount([{ source, path, readOnly: false, ...(layer === undefined ? {} : { layer }) }]);
  served.start();
  return { served, [Symbol.asyncDispose]: async () => served.stop() };
}

/** Pids of the helpers that serve a directory, whosever they are. */
export async function servers(dir: string): Promise<number[]> {
  const found: number[] = [];
  for (const name of await readdir("/proc")) {
    const words = await readFile(`/proc/${name}/cmdline`, "latin1").catch(() => "");
    if (/stacyvm-directory\0/.test(words) && words.split("\0")[1] === dir) found.push(Number(name));
  }
  return found;
}
