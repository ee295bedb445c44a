/** A directory that a step needs in the image. */
import { posix } from "node:path";
import type { Agent } from "../guest/agent.ts";
import { missingDirectories } from "../guest/exists.ts";
import { nameBytes } from "../host/byte-name.ts";
import { StacyError } from "../host/error.ts";
import { type TarMember, writeTar } from "../images/tar-writer.ts";

/** With all that is missing above it, each `owner`'s, as builders do it; what is there already stays as it is. */
export async function makeDirectory(
  agent: Agent,
  path: string,
  owner: () => Promise<{ uid: number; gid: number }>,
): Promise<void> {
  const missing = await missingDirectories(agent, posix.resolve("/", path));
  const [first] = missing;
  if (first === undefined) {
    const found = await agent.stat(path);
    if (found.kind === "directory") return;
    throw new StacyError("invalid", `${path} is in the image already, and is no directory`, {
      remedy: "choose another path, or remove it first",
    });
  }
  const whose = await owner();
  const above = posix.dirname(first);
  const common = { type: "directory", mode: 0o755, mtime: Math.floor(Date.now() / 1000), ...whose } as const;
  const members = missing.map(
    (each): TarMember => ({
      path: nameBytes(posix.relative(above, each)).toString("latin1"),
      ...{ ...common, size: 0, link: "", major: 0, minor: 0, xattrs: new Map() },
    }),
  );
  await agent.tarIn(above, writeTar(members));
}
