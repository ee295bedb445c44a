/** A private directory for something half-made, gone when its owner is: at once on dispose, or with the next sweep. */
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { ownedName } from "../host/owned-name.ts";
import type { DataPaths } from "../host/paths.ts";
import { hostBootId, isAlive } from "../host/process.ts";

const NAME = /^image-[0-9a-f]{8}-(\d+)-(\d+)$/;

export class WorkDir implements AsyncDisposable {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** Makes one, after removing those of dead owners. */
  static async create(paths: DataPaths): Promise<WorkDir> {
    await sweepWorkDirs(paths);
    const path = join(paths.tmp, await ownedName("image"));
    await mkdir(path, { recursive: true, mode: 0o700 });
    return new WorkDir(path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}

/** Removes the directories whose owners no longer run. @returns their names */
export async function sweepWorkDirs(paths: DataPaths): Promise<string[]> {
  const removed: string[] = [];
  for (const name of await readdir(paths.tmp).catch(() => [])) {
    const [, pid, startTime] = NAME.exec(name) ?? [];
    if (pid === undefined || startTime === undefined) continue;
    const owner = { pid: Number(pid), startTime, hostBootId: await hostBootId() };
    // One that cannot be seen now may live: the next sweep looks again.
    if (await isAlive(owner).catch(() => true)) continue;
    await rm(join(paths.tmp, name), { recursive: true, force: true });
    removed.push(name);
  }
  return removed;
}
