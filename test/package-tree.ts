/** A small system of the distribution, with these packages in it, as a tree. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { packageTree } from "../src/images/packages.ts";

export async function unpackPackages(tree: string, packages: string[]): Promise<void> {
  await mkdir(tree, { recursive: true });
  // To the end of what it is given: beyond the two blocks that end an archive there may be more of them.
  const unpack = spawn("tar", ["-x", "-p", "-i", "-C", tree], { stdio: ["pipe", "inherit", "inherit"] });
  const ended = once(unpack, "exit");
  await pipeline(packageTree({ variant: "minbase", packages }), unpack.stdin);
  assert.deepEqual(await ended, [0, null]);
}
