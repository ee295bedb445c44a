import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { test } from "node:test";
import { Undoing } from "./undoing.ts";

/** Lets what can go on do so. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((next) => setImmediate(next));
}

test("it is tried until it is confirmed, one attempt at a time, and whoever comes next waits for that", async () => {
  const undoing = new Undoing();
  let [tries, together] = [0, 0];
  const goOn = async (): Promise<void> => {
    together += 1;
    assert.equal(together, 1);
    await turns();
    together -= 1;
    tries += 1;
    if (tries < 3) throw new Error("no answer");
  };
  await undoing.settled(); // nothing to wait for
  undoing.begin(goOn);
  undoing.begin(goOn);
  await undoing.settled();
  assert.equal(tries, 3);
  await turns();
  assert.equal(tries, 3);
  undoing.begin(goOn); // the next one
  await undoing.settled();
  assert.equal(tries, 4);
});

test("who waits is told after a while that it is still not confirmed; the attempts go on until the machine's end", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const undoing = new Undoing();
  const tries = new EventEmitter();
  undoing.begin(async () => {
    tries.emit("one");
    throw new Error("no answer");
  });
  const waiting = assert.rejects(undoing.settled(), { code: "timeout" });
  t.mock.timers.tick(60_000);
  await waiting;
  await once(tries, "one");
  undoing.end();
  await undoing.settled();
});
