import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { replaceFs } from "../../../test/replace-fs.ts";
import { JailUsers } from "./jail-users.ts";

const skip =
  process.getuid?.() === 0 ? false : "processes of other users need root: run the tests as root to include it";

test("users that others have already are passed over, however many ask at once; all taken is an error", {
  skip,
}, async () => {
  const base = 1_900_000_000;
  const other = spawn("sleep", ["60"], { uid: base + 1 });
  try {
    await once(other, "spawn");
    const users = new JailUsers(base, 3);
    const taken = await Promise.all([users.take(), users.take()]);
    assert.deepEqual(taken.sort(), [base, base + 2]);
    await assert.rejects(users.take(), { code: "limit" });
    users.give(base);
    assert.equal(await users.take(), base);
  } finally {
    other.kill("SIGKILL");
    await once(other, "exit");
  }
});

test("a look at the processes that the host had no descriptor for fails who waited for it, and nobody after", async (t) => {
  const restore = replaceFs(t, "readdir", async () => {
    throw Object.assign(new Error("EMFILE: too many open files"), { code: "EMFILE" });
  });
  const users = new JailUsers(1_900_000_000, 10);
  for (const { status } of await Promise.allSettled([users.take(), users.take()])) assert.equal(status, "rejected");
  restore();
  assert.equal(new Set([await users.take(), await users.take()]).size, 2);
});
