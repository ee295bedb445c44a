import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Starvation } from "./starvation.ts";

const STOPPED = { event: "BLOCK_IO_ERROR", data: { operation: "write", action: "stop", nospace: true } };

function world(t: TestContext) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const does = { go: async (): Promise<void> => {} };
  let asked = 0;
  const starvation = new Starvation(
    () => "/data/sandboxes/sb-1",
    () => {
      asked += 1;
      return does.go();
    },
  );
  const second = async (): Promise<number> => {
    t.mock.timers.tick(1_000);
    await Promise.resolve();
    await Promise.resolve();
    return asked;
  };
  return { starvation, does, second };
}

test("a machine that stands still for want of room is let go on as often as it is stopped, and what waits for it is told why", async (t) => {
  const { starvation, second } = world(t);
  assert.equal(await second(), 0);
  starvation.heard(STOPPED);
  starvation.heard(STOPPED);
  const { code, message } = await starvation.noticed;
  assert.equal(code, "no-space");
  assert.match(message, /\/data\/sandboxes\/sb-1 has no room/);
  assert.equal(await second(), 1);
  starvation.heard(STOPPED); // there still is none
  assert.equal(await second(), 2);
  assert.equal(await second(), 2, "it goes on");
});

test("what could not be asked is asked again, until nobody looks after the machine", async (t) => {
  const { starvation, does, second } = world(t);
  does.go = () => Promise.reject(new Error("the monitor does not answer"));
  starvation.heard(STOPPED);
  assert.equal(await second(), 1);
  assert.equal(await second(), 2);
  starvation.end();
  assert.equal(await second(), 2);
  starvation.heard(STOPPED);
  assert.equal(await second(), 2);
});

test("an error that the guest is told of stops nothing", async (t) => {
  const { starvation, second } = world(t);
  starvation.heard({ event: "BLOCK_IO_ERROR", data: { operation: "read", action: "report", nospace: false } });
  starvation.heard({ event: "STOP", data: {} });
  assert.equal(await second(), 0);
});
