import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import type { TestContext } from "node:test";

/**
 * From the next rename to a path with that end on, which comes about, no file is opened: the shortage in which a change has reached the
 * disk, can neither be made durable nor be taken back.
 * @returns its end
 */
export function noDescriptorsAfter(t: TestContext, end: string): () => void {
  const { rename, open } = fs;
  const over = (): void => {
    Object.assign(fs, { rename, open });
    syncBuiltinESMExports();
  };
  t.after(over);
  fs.rename = async (from, to) => {
    await rename(from, to);
    if (!String(to).endsWith(end)) return;
    fs.open = async () => {
      throw Object.assign(new Error("EMFILE: too many open files"), { code: "EMFILE" });
    };
    syncBuiltinESMExports();
  };
  syncBuiltinESMExports();
  return over;
}
