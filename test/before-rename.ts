import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import type { TestContext } from "node:test";

/** Runs `act` before the next rename to a path with that end, once: the moment in which a disk takes its time. */
export function beforeRename(t: TestContext, end: string, act: () => unknown): void {
  const { rename } = fs;
  const restore = (): void => {
    fs.rename = rename;
    syncBuiltinESMExports();
  };
  t.after(restore);
  fs.rename = async (from, to) => {
    if (String(to).endsWith(end)) {
      restore();
      await act();
    }
    return rename(from, to);
  };
  syncBuiltinESMExports();
}
