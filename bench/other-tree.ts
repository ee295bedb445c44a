/** A checkout of another commit, to measure beside this one: a work tree of git's, with this one's packages. */
import { symlink } from "node:fs/promises";
import { join } from "node:path";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";

/** @param ref any name of git's for a commit @returns undoes it */
export async function checkOut(ref: string, dir: string): Promise<() => Promise<void>> {
  const git = (...args: string[]): Promise<Buffer> => runTool("git", ["-C", packageRoot, ...args]);
  await git("worktree", "add", "--detach", dir, ref);
  await symlink(join(packageRoot, "node_modules"), join(dir, "node_modules"));
  return async () => {
    await git("worktree", "remove", "--force", dir);
  };
}
