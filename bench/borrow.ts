/** Data directories for tests and benchmarks: machines and snapshots of their own, while kernel, agent and images are the checkout's. */
import { mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { dataPaths } from "../src/host/paths.ts";

/** Makes `root`, with links to the checkout's images and assets in it. */
export async function borrow(root: string): Promise<void> {
  const { images, assets } = dataPaths();
  await Promise.all([mkdir(images, { recursive: true }), mkdir(root, { recursive: true })]);
  await symlink(images, join(root, "images"));
  await symlink(assets, join(root, "assets"));
}
