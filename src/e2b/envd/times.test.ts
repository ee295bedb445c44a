/** Times that clients choose, as large as they like. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as wait } from "node:timers/promises";
import { boundTimers } from "./envd.ts";
import { withKeepAlive } from "./keep-alive.ts";

test("signs of life come no oftener than they are asked for, however seldom that is", async () => {
  for (const seconds of ["1", "90", "2147484", "1e300", "-1", "x"]) {
    const source = (async function* () {
      await wait(60);
      yield "event";
    })();
    const headers = new Headers({ "keepalive-ping-interval": seconds });
    assert.deepEqual(await Array.fromAsync(withKeepAlive(source, headers)), ["event"], seconds);
  }
});

test("a time limit of weeks is no limit of a millisecond", () => {
  const limit = (text: string): string | null =>
    boundTimers(new Headers({ "connect-timeout-ms": text })).get("connect-timeout-ms");
  assert.deepEqual(["60000", "2147483647", "2147483648", "9999999999", "x"].map(limit), [
    ...["60000", "2147483647", "2147483647", "2147483647", "x"],
  ]);
  assert.equal(boundTimers(new Headers()).has("connect-timeout-ms"), false);
});
