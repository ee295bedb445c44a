/** The directory in which everything is: made, owned by one process at a time, and closed to other users of the host. */
import { chmod, mkdir, stat } from "node:fs/promises";
import { asStacyError, StacyError } from "../host/error.ts";
import { type Lock, tryLock } from "../host/lock.ts";
import type { DataPaths } from "../host/paths.ts";
import { assertTrustedContents, assertTrustedPath } from "../host/trusted-path.ts";
import { keepToOwner } from "../host/umask.ts";

/** @throws StacyError `unavailable` when there cannot be such a directory, `permission` when it is, or may be made, another user's */
export async function makeDataDir({ root }: DataPaths): Promise<void> {
  keepToOwner();
  await assertTrustedPath(root); // before anything is made there
  await mkdir(root, { recursive: true, mode: 0o700 }).catch((cause: unknown) => {
    throw new StacyError("unavailable", `there is no data directory: ${asStacyError(cause).message}`, {
      cause,
      remedy: "set STACYVM_DATA_DIR to a directory you may write to",
    });
  });
  await assertTrustedContents(root);
}

/** @throws StacyError `permission`: it is, or may be made, another user's, or another user has put something into it */
export async function assertTrusted({ root }: DataPaths): Promise<void> {
  await assertTrustedPath(root);
  await assertTrustedContents(root);
}

/**
 * Ownership of a data directory, or `undefined` when another process has it. Two names of one directory are one.
 * @throws as `makeDataDir`
 */
export async function lockDataDir(paths: DataPaths): Promise<Lock | undefined> {
  await makeDataDir(paths);
  await closeToOthers(paths);
  return tryLock(paths.database, "daemon");
}

/** Snapshots hold the memory of guests, the database what ran. Both may be from a time when somebody else had set their modes. */
async function closeToOthers({ root, database }: DataPaths): Promise<void> {
  for (const [path, mode] of [
    [root, 0o700],
    [database, 0o600],
    [`${database}-wal`, 0o600],
    [`${database}-shm`, 0o600],
  ] as const) {
    const found = await stat(path).catch(() => undefined);
    if (found === undefined || (found.mode & 0o077) === 0) continue;
    await chmod(path, mode).catch((cause: Error) => {
      throw new StacyError("permission", `${path} is open to other users of this host, and cannot be closed to them`, {
        cause,
        remedy: `give it to the user of the server, mode ${mode.toString(8)}`,
      });
    });
  }
}
