/**
 * A database outside of its data directory belongs to one all the same, and knows which by a file there. With another one it would not
 * find its machines and take all of them for gone, and the next start where they are would end them.
 */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile } from "../host/durable.ts";
import { errno, StacyError } from "../host/error.ts";
import type { Store } from "./store.ts";

/** In the data directory. */
const ID_FILE = "database-id";
const META = "data.id";

/**
 * Binds the two where neither belongs to another, or nothing could be lost. A database from before there were ids is not bound to a
 * directory that has one: that is another's.
 * @param giveUp what the database knows and is not there is given up
 * @throws StacyError `conflict`
 */
export async function assertAtHome(store: Store, root: string, giveUp: boolean): Promise<void> {
  const path = join(root, ID_FILE);
  const known = store.meta(META);
  const there = await readFile(path, "utf8").catch((error: unknown) => {
    if (errno(error) !== "ENOENT") throw error;
    return undefined;
  });
  if (known !== undefined && known === there) return;
  const live = store.liveSandboxes().length;
  if ((known ?? there) !== undefined && live > 0 && !giveUp) {
    throw new StacyError(
      "conflict",
      `the database belongs to another data directory than ${root}: it knows ${live === 1 ? "a sandbox" : `${live} sandboxes`} that cannot have machines here`,
      {
        phase: "adopt",
        remedy:
          "start with its own data directory (`--data-dir`), or with another database (`database.path`); to give these sandboxes up instead, start with `--remove-unknown`",
      },
    );
  }
  const id = there ?? randomBytes(16).toString("hex");
  if (there === undefined) await replaceFile(path, id);
  await store.putMeta(META, id);
}
