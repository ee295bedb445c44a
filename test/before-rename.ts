import fs from "node:fs/promises";
import type { TestContext } from "node:test";
import { replaceFs } from "./replace-fs.ts";

/** Runs `act` before the next rename to a path with that end, once: the moment in which a disk takes its time. */
export function beforeRename(t: TestContext, end: string, act: () => unknown): void {
  const { rename } = fs;
  const restore = replaceFs(t, "rename", async (from: string, to: string) => {
    if (String(to).endsWith(end)) {
      restore();
      await act();
    }
    return rename(from, to);
  });
}
