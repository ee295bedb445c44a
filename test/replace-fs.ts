import fs from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import type { TestContext } from "node:test";

/** A function of `node:fs/promises` does something else, for whoever has imported it too. @returns the end of that, which the test's end is as well */
export function replaceFs(t: TestContext, name: keyof typeof fs, by: (...args: never[]) => unknown): () => void {
  const { [name]: before } = fs;
  const restore = (): void => {
    Object.assign(fs, { [name]: before });
    syncBuiltinESMExports();
  };
  t.after(restore);
  Object.assign(fs, { [name]: by });
  syncBuiltinESMExports();
  return restore;
}
