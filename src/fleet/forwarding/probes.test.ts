import assert from "node:assert/strict";
import { test } from "node:test";
import type { FleetNode } from "../contract.ts";
import { Probes } from "./probes.ts";

const node = (state: FleetNode["state"]): FleetNode => ({ id: "n", state }) as FleetNode;

test("a node whose heartbeats are fresh is not asked; another one is, once for all who want to know", async () => {
  let asked = 0;
  let answer = Promise.withResolvers<void>();
  const probes = new Probes(() => {
    asked += 1;
    return answer.promise;
  });
  assert.equal(await probes.answers(node("up")), true);
  assert.equal(asked, 0);
  const all = [probes.answers(node("silent")), probes.answers(node("silent"))];
  assert.equal(probes.seems(node("silent")), true, "whoever waits already goes on until it is known");
  answer.reject(new Error("nothing listens"));
  assert.deepEqual([...(await Promise.all(all)), probes.seems(node("silent")), asked], [false, false, false, 1]);
  // Its heartbeats are back, and then they are late again.
  assert.equal(await probes.answers(node("up")), true);
  answer = Promise.withResolvers();
  answer.resolve();
  assert.equal(await probes.answers(node("silent")), true);
  assert.equal(asked, 2);
});
