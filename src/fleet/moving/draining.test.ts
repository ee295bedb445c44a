import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { StacyError } from "../../host/error.ts";
import { silentLog } from "../../sandboxes/observer.ts";
import type { SandboxRecord } from "../../sandboxes/record.ts";
import { Draining } from "./draining.ts";

/** @param move what becomes of one that is to move; one that has moved is here no more */
function draining(ids: string[], move: (id: string) => Promise<void>): { draining: Draining; here: Set<string> } {
  const here = new Set(ids);
  const moves = {
    move: async (id: string) => {
      await move(id);
      here.delete(id);
    },
  };
  const sandboxes = { list: () => [...here].map((id) => ({ id }) as SandboxRecord) };
  return { draining: new Draining(moves, sandboxes, silentLog, 5), here };
}

async function over(one: Draining): Promise<void> {
  while (one.status().moving) await delay(5);
}

test("a few move at a time, what cannot now is tried again, and what stays says why", async () => {
  let under = 0;
  let most = 0;
  const tried = new Map<string, number>();
  const { draining: one, here } = draining(["a", "b", "c", "volume", "full", "later"], async (id) => {
    tried.set(id, (tried.get(id) ?? 0) + 1);
    under += 1;
    most = Math.max(most, under);
    await delay(5);
    under -= 1;
    if (id === "volume") throw new StacyError("conflict", "it has a volume");
    if (id === "full" || (id === "later" && tried.get(id) === 1)) throw new StacyError("unavailable", "no room");
  });
  one.start();
  one.start();
  assert.equal(one.status().left.length, 6);
  await over(one);
  assert.deepEqual([...here], ["volume", "full"]);
  assert.deepEqual(one.status(), {
    ...{ moving: false, moved: 4 },
    left: [
      { id: "volume", reason: "it has a volume" },
      { id: "full", reason: "no room" },
    ],
  });
  assert.deepEqual([most, tried.get("volume"), tried.get("full"), tried.get("later")], [2, 1, 3, 2]);
});

test("stopped, it begins with no other, and started again it begins anew", async () => {
  const gate = Promise.withResolvers<void>();
  const { draining: one, here } = draining(["a", "b", "c", "d"], () => gate.promise);
  one.start();
  one.stop();
  gate.resolve();
  while (here.size > 2) await delay(1);
  await delay(20);
  assert.deepEqual([...here], ["c", "d"]);
  assert.deepEqual([one.status().moving, one.status().moved], [false, 2]);
  one.start();
  await over(one);
  assert.deepEqual([here.size, one.status().moved], [0, 2]);
});
