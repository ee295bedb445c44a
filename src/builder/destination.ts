/** Where the files of a copy come to lie in the image. */
import { posix } from "node:path";
import type { Agent } from "../guest/agent.ts";
import { statOf } from "../guest/exists.ts";
import { StacyError } from "../host/error.ts";
import { withoutEnd } from "../host/trim.ts";

/** As many as Linux itself follows. */
const MOST_LINKS = 40;

/**
 * The place that a destination means: one that is a link itself means what it leads to, there or not (BuildKit's copy), so that the
 * link stays. Links on the way there are the guest kernel's to follow.
 * @param to absolute; ends with a slash where a directory is meant
 */
export async function destinationOf(agent: Pick<Agent, "stat">, to: string): Promise<string> {
  const end = to.endsWith("/") ? "/" : "";
  let path = withoutEnd(to, "/");
  for (let links = 0; path !== ""; links++) {
    const target = await linkAt(agent, path);
    if (target === undefined) return `${path}${end}`;
    if (links === MOST_LINKS)
      throw new StacyError("invalid", `${to} is a link in the image that leads around in circles`, {
        remedy: "copy to another name, or remove the link first",
      });
    // Not resolved as text: what is above a link's `..` depends on where the directory itself leads.
    path = withoutEnd(target.startsWith("/") ? target : `${withoutEnd(posix.dirname(path), "/")}/${target}`, "/");
  }
  return "/";
}

async function linkAt(agent: Pick<Agent, "stat">, path: string): Promise<string | undefined> {
  const found = await statOf(agent, path, { follow: false });
  return found?.kind === "symlink" ? found.target : undefined;
}
