/**
 * The empty writable layer of a machine: a sparse ext4 that occupies as little as possible, since every spawn copies
 * what it occupies.
 */
import { open, rm } from "node:fs/promises";
import { asStacyError, StacyError } from "../host/error.ts";
import { runTool } from "../host/run.ts";

/** Raised when what `createWritableLayer` makes changes: layers that were kept are then made again. */
export const WRITABLE_FORMAT = 3;
/** Limits of `sizeMiB`. Below 8 MiB mke2fs leaves hardly any room for inodes. */
export const WRITABLE_MIN_MIB = 8;
export const WRITABLE_MAX_MIB = 8 * 1024 * 1024;

/**
 * Makes `path`, which must not exist, an empty ext4 of `sizeMiB` MiB.
 *
 * A small journal: without one ext4 does not take the number of a file again for seconds after it was removed, and looks through
 * all of those for each new one (Linux, fs/ext4/ialloc.c, recently_deleted); and what a guest's program has synced is whole and
 * reachable when its machine is killed. No resize inode, inode tables and journal left as holes, no spare superblocks: about 110 KiB
 * on disk for 1 GiB. The same size gives the same bytes.
 */
export async function createWritableLayer(path: string, sizeMiB: number, signal?: AbortSignal): Promise<void> {
  if (!Number.isInteger(sizeMiB) || sizeMiB < WRITABLE_MIN_MIB || sizeMiB > WRITABLE_MAX_MIB) {
    throw new StacyError("invalid", `a disk of ${sizeMiB} MiB is not possible`, {
      remedy: `choose ${WRITABLE_MIN_MIB} to ${WRITABLE_MAX_MIB} MiB`,
    });
  }
  try {
    const file = await open(path, "wx", 0o600);
    try {
      await file.truncate(sizeMiB * 2 ** 20);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw asStacyError(error, "internal", { phase: "disk" });
  }
  try {
    await runTool(
      "mke2fs",
      [
        ...["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-L", "writable"],
        // One inode per block: files run out of blocks first, however small they are. Their tables are holes until used, and a
        // sixteenth of the size.
        ...["-i", "4096", "-I", "256"],
        ...(journalMiB(sizeMiB) === 0
          ? ["-O", FEATURES]
          : ["-O", `${FEATURES},has_journal`, "-J", `size=${journalMiB(sizeMiB)}`]),
        // Discarding the new sparse file is free, and lets mke2fs mark the inode tables as zeroed: else the guest's
        // kernel would start to write zeros over them (ext4lazyinit), in every clone.
        ...["-E", `discard,lazy_itable_init=1,lazy_journal_init=1,num_backup_sb=0,hash_seed=${SEED},root_owner=0:0`],
        ...["-U", SEED],
        path,
      ],
      {
        package: "e2fsprogs",
        timeoutMs: 60_000,
        ...(signal === undefined ? {} : { signal }),
        // A fixed clock for mke2fs: e2fsprogs reads this variable in all its tools.
        env: { PATH: toolPath(), E2FSPROGS_FAKE_TIME: "1700000000", MKE2FS_CONFIG: "/dev/null", LC_ALL: "C" },
      },
    );
  } catch (error) {
    await rm(path, { force: true });
    throw error instanceof StacyError ? error.inPhase("disk") : error;
  }
}

/** Large enough for the files of a package, small enough to be copied with a fork: it is written round and round. */
function journalMiB(sizeMiB: number): number {
  if (sizeMiB < 32) return 0;
  return sizeMiB < 256 ? 4 : sizeMiB < 4096 ? 8 : 32;
}

/** Named in full, since the host's mke2fs.conf and version must not change the format. */
const FEATURES = [
  ...["none", "dir_index", "dir_nlink", "extent", "extra_isize", "filetype", "flex_bg", "ext_attr", "64bit"],
  ...["huge_file", "large_file", "metadata_csum", "sparse_super2"],
].join(",");

const SEED = "7374616c-7973-4d76-8d77-726974616231";

/** Debian keeps disk tools in sbin, which is not on every user's PATH. */
function toolPath(): string {
  return `${process.env.PATH ?? ""}:/usr/sbin:/sbin`;
}
