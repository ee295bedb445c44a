import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
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
