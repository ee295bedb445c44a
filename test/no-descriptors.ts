import fs from "node:fs/promises";
import type { TestContext } from "node:test";
import { replaceFs } from "./replace-fs.ts";

/**
 * From the next rename to a path with that end on, which comes about, no file is opened: the shortage in which a change has reached the
 * disk, can neither be made durable nor be taken back.
 * @returns its end
 */
export function noDescriptorsAfter(t: TestContext, end: string): () => void {
  const { rename } = fs;
  let opens: (() => void) | undefined;
  const renames = replaceFs(t, "rename", async (from: string, to: string) => {
    await rename(from, to);
    if (!String(to).endsWith(end)) return;
    opens ??= replaceFs(t, "open", async () => {
      throw Object.assign(new Error("EMFILE: too many open files"), { code: "EMFILE" });
    });
  });
  return () => {
    renames();
    opens?.();
  };
}
