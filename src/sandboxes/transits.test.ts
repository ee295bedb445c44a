/** Sandboxes on their way between servers, by the rules of their life; real moves are in test/fleet-move.test.ts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fakeWorld } from "../../test/fake-provider.ts";
import type { SandboxMachine } from "../providers/provider.ts";

test("the name of a sandbox that is on its way here is taken, and is its own afterwards", async () => {
  const [there, here] = [fakeWorld(), fakeWorld()];
  const { record } = await there.sandboxes.spawn({ owner: "alice", name: "web" });
  const machine = there.provider.machinesById.get(record.id) as unknown as SandboxMachine;
  const [asked, answer] = [Promise.withResolvers<void>(), Promise.withResolvers<boolean>()];
  const arriving = here.sandboxes.transits.arrive(record, { node: "1", name: "one" }, false, {
    place: async () => machine,
    take: () => {
      asked.resolve();
      return answer.promise;
    },
  });
  await asked.promise;
  await assert.rejects(here.sandboxes.spawn({ owner: "alice", name: "web" }), { code: "conflict" });
  answer.resolve(true);
  await arriving;
  assert.equal(here.sandboxes.idNamed("alice", "web"), record.id);
});
