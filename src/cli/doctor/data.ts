/** The data directory: space, filesystem, names, and what earlier processes left in it. */
import { access, chmod, constants, mkdir, readdir, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { asStacyError } from "../../host/error.ts";
import { exists } from "../../host/exists.ts";
import { ownerIn } from "../../host/owned-name.ts";
import type { DataPaths } from "../../host/paths.ts";
import { isAlive } from "../../host/process.ts";
import { canReflink } from "../../host/sparse.ts";
import { assertTrusted, lockDataDir } from "../data-dir.ts";
import { startEmbedded } from "../embedded.ts";
import { findLocal } from "../local-socket.ts";
import type { Finding } from "./finding.ts";

const LOW_SPACE_BYTES = 2 * 2 ** 30;
/** What an address of a UNIX socket holds. */
const ADDRESS_BYTES = 107;
/** Below the data directory: `/sandboxes/sb-xxxxxxxx/agent.sock` and its like. */
const BELOW_BYTES = 40;
const FILESYSTEMS: Record<number, string> = {
  61267: "ext4",
  1481003842: "xfs",
  2435016766: "btrfs",
  16914836: "tmpfs",
  2035054128: "overlay",
  801189825: "zfs",
};

export async function checkData(paths: DataPaths): Promise<Finding[]> {
  const space = await checkSpace(paths.root);
  if (space.state === "missing") return [space];
  return [space, await checkAccess(paths.root), checkNames(paths.root), await checkLeftovers(paths)];
}

/** `undefined`: all that lies there is of users who may have it run. */
export async function checkTrust(paths: DataPaths): Promise<Finding | undefined> {
  try {
    await assertTrusted(paths);
    return undefined;
  } catch (thrown) {
    const { message, remedy } = asStacyError(thrown);
    const meaning = "programs, kernels and images that lie there are run by the user of the server";
    return { name: "data directory", state: "missing", detail: message, meaning, remedy };
  }
}

async function checkSpace(root: string): Promise<Finding> {
  const name = "data directory";
  const meaning = "images, snapshots and sandboxes live here";
  try {
    await mkdir(root, { recursive: true, mode: 0o700 });
    await access(root, constants.W_OK);
    const { bavail, bsize, type } = await statfs(root);
    const free = bavail * bsize;
    const reflink = (await canReflink(root)) ? "reflinks" : "no reflinks: disks are copied by extents";
    const filesystem = FILESYSTEMS[type] ?? `filesystem 0x${type.toString(16)}`;
    const detail = `${root}, ${(free / 2 ** 30).toFixed(1)} GiB free, ${filesystem}, ${reflink}`;
    if (free >= LOW_SPACE_BYTES) return { name, state: "ok", detail, meaning };
    const remedy =
      "free some space: a snapshot takes what its guest touched; `stacyvm snapshot gc`, `stacyvm image gc`";
    return { name, state: "note", detail, meaning, remedy };
  } catch (thrown) {
    const remedy = "set STACYVM_DATA_DIR to a directory you may write to";
    return { name, state: "missing", detail: `${root}: ${asStacyError(thrown).message}`, meaning, remedy };
  }
}

async function checkAccess(root: string): Promise<Finding> {
  const { mode, uid } = await stat(root);
  const open = (mode & 0o077) !== 0;
  const own = uid === process.getuid?.();
  return {
    name: "access",
    state: open || !own ? "note" : "ok",
    detail: `mode ${(mode & 0o777).toString(8)}, owner ${uid}`,
    meaning: "snapshots hold the memory of guests: nobody else should read them",
    remedy: open ? `chmod 700 ${root}` : own ? undefined : `chown it to your user: ${root}`,
    fix:
      open && own
        ? async () => {
            await chmod(root, 0o700);
            return `${root} is for its owner only now`;
          }
        : undefined,
  };
}

function checkNames(root: string): Finding {
  const length = Buffer.byteLength(root) + BELOW_BYTES;
  const long = length > ADDRESS_BYTES;
  return {
    name: "path lengths",
    state: "ok",
    detail: `sockets have ${length} bytes; an address holds ${ADDRESS_BYTES}${long ? ", so they are reached through their directory" : ""}`,
    meaning: "addresses of UNIX sockets are short",
  };
}

/** Machines without a row in the database, and work of processes that are dead. */
async function checkLeftovers(paths: DataPaths): Promise<Finding> {
  const name = "leftovers";
  const meaning = "directories and processes of runs that were killed";
  using server = await findLocal(paths.root);
  if (server !== undefined) {
    return { name, state: "ok", detail: `the server with pid ${server.pid} looks after them`, meaning };
  }
  const names = [...(await forgottenMachines(paths)), ...(await deadWork(paths.tmp))];
  if (names.length === 0) return { name, state: "ok", detail: "none", meaning };
  return {
    name,
    state: "note",
    detail: names.join(", "),
    meaning,
    remedy: "the next start of a server removes them, and so does `stacyvm doctor --fix`",
    async fix() {
      const lock = await lockDataDir(paths);
      if (lock === undefined) return "another process has just taken the data directory, and looks after them";
      const server = await startEmbedded(paths, lock);
      await server.close({ signal: AbortSignal.abort(), snapshots: false, waiting() {} });
      return `removed ${names.join(", ")}`;
    },
  };
}

async function forgottenMachines({ sandboxes, database }: DataPaths): Promise<string[]> {
  const names = await readdir(sandboxes).catch(() => []);
  if (names.length === 0) return [];
  const known = new Set<unknown>();
  if (await exists(database)) {
    using db = new DatabaseSync(database, { readOnly: true });
    for (const row of db.prepare("SELECT id FROM sandboxes WHERE state <> 'destroyed'").iterate()) known.add(row.id);
  }
  return names.filter((name) => !known.has(name));
}

async function deadWork(tmp: string): Promise<string[]> {
  const found: string[] = [];
  for (const name of await readdir(tmp).catch(() => [])) {
    const owner = await ownerIn(name);
    if (owner !== undefined && !(await isAlive(owner))) found.push(join("tmp", name));
  }
  return found;
}
