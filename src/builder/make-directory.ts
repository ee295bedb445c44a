/** A directory that a step needs in the image. */
import { posix } from "node:path";
import { pack } from "tar-stream";
import type { Agent } from "../guest/agent.ts";
import { missingDirectories } from "../guest/exists.ts";

/** With all that is missing above it, each `owner`'s, as builders do it; what is there already stays as it is. */
export async function makeDirectory(
  agent: Agent,
  path: string,
  owner: () => Promise<{ uid: number; gid: number }>,
): Promise<void> {
  const missing = await missingDirectories(agent, posix.resolve("/", path));
  const [first] = missing;
  if (first === undefined) return;
  const whose = await owner();
  const above = posix.dirname(first);
  const archive = pack();
  for (const each of missing) {
    archive.entry({ name: posix.relative(above, each), type: "directory", mode: 0o755, ...whose });
  }
  archive.finalize();
  await agent.tarIn(above, archive as AsyncIterable<Uint8Array>);
}
