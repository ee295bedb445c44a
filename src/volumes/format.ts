/** A new volume's filesystem: ext4 with a journal, in a sparse file that occupies as little as possible. */
import { open, rm } from "node:fs/promises";
import { runTool } from "../host/run.ts";

/** Named in full, since the host's mke2fs.conf and version must not change the format. All of it can grow while it is mounted. */
const FEATURES = [
  ...[
    "none",
    "dir_index",
    "dir_nlink",
    "extent",
    "extra_isize",
    "filetype",
    "flex_bg",
    "ext_attr",
    "64bit",
    "has_journal",
  ],
  ...["huge_file", "large_file", "metadata_csum", "resize_inode", "sparse_super"],
].join(",");

/**
 * Makes an ext4 of the whole file, which exists and is empty. A failure leaves no file.
 * @param rootOwner id of the user and group that its first directory belongs to
 */
export async function formatVolume(path: string, rootOwner = 0): Promise<void> {
  const args = [
    ...["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-I", "256", "-O", FEATURES],
    // In a file that is new, discarding says that inode tables and journal are zero: neither is written, here or by the guest's kernel.
    ...["-E", `discard,lazy_itable_init=1,lazy_journal_init=1,root_owner=${rootOwner}:${rootOwner}`],
    path,
  ];
  try {
    const env = { PATH: `${process.env.PATH ?? ""}:/usr/sbin:/sbin`, MKE2FS_CONFIG: "/dev/null", LC_ALL: "C" };
    await runTool("mke2fs", args, { package: "e2fsprogs", timeoutMs: 60_000, env });
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
}

/** Where the superblock lies, and in it which features a kernel must know (Linux, Documentation/filesystems/ext4/super.rst). */
const INCOMPATIBLE_AT = 1024 + 0x60;
const NEEDS_RECOVERY = 4;

/** Whether its journal has nothing to be replayed, since it was unmounted, or closed for a suspend. */
export async function wasClosed(path: string): Promise<boolean> {
  await using file = await open(path);
  const features = Buffer.alloc(4);
  await file.read(features, 0, 4, INCOMPATIBLE_AT);
  return (features.readUInt32LE() & NEEDS_RECOVERY) === 0;
}
