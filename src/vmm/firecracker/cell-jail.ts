/**
 * A jail for a server that is not root: the machine's Firecracker runs in a cell (../cell.ts), in which nothing exists but its working
 * directory and the files that it is started for. Those are shown there to read, under the names that the jailer's jail has for them.
 */
import { realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { runTool } from "../../host/run.ts";
import { aloneInCell, type Cell, trialDir } from "../cell.ts";
import { SNAPSHOT_FILES } from "../vmm.ts";
import { type Jail, makeRoot, SHOWN, showVolumes } from "./jail.ts";

/** A file of the host, and its name in the jail. */
export type Shown = readonly [file: string, name: string];

/** @param volumes names of those that are only read */
export async function makeCellJail(
  dir: string,
  firecracker: string,
  files: readonly Shown[],
  volumes: readonly string[],
): Promise<Jail> {
  const user = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const memory = files.find(([, name]) => name === SNAPSHOT_FILES.memory)?.[0];
  const [jail, identity] = await Promise.all([
    makeRoot(dir, firecracker, user),
    memory === undefined ? undefined : identityOf(memory),
  ]);
  await showVolumes(jail, dir, volumes);
  return identity === undefined ? jail : { ...jail, memory: identity };
}

/** By device and inode. */
export async function identityOf(path: string): Promise<string> {
  const { dev, ino } = await stat(path);
  return `${dev}:${ino}`;
}

/** Arguments of the cell. */
export async function cellArguments(
  jail: Jail,
  dir: string,
  firecracker: string,
  files: readonly Shown[],
  volumes: readonly string[],
  args: readonly string[],
): Promise<string[]> {
  const [machine, program] = await Promise.all([realpath(dir), realpath(firecracker)]);
  const root = join(machine, jail.root);
  const shown: Shown[] = volumes.length === 0 ? [] : [[join(machine, SHOWN), SHOWN]];
  const read = [...files, ...shown].map(([file, name]) => [file, join(root, name)] as const);
  return aloneInCell({ dir: root, read, write: [root] }, program, args);
}

/** Starts it once where nothing exists but itself. @throws StacyError saying what it lacks there, such as its libraries */
export async function tryInCell(cell: Cell, firecracker: string): Promise<void> {
  const args = aloneInCell({ dir: trialDir(cell), read: [], write: [] }, await realpath(firecracker), ["--version"]);
  await runTool(cell.program, args, { timeoutMs: 10_000 });
}
