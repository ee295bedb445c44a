import assert from "node:assert/strict";
import { test } from "node:test";
import { fakeWorld } from "../../test/fake-provider.ts";
import { StacyError } from "../host/error.ts";

test("what is wrong with a checkpoint is said with its name and a remedy, each time", async () => {
  const { sandboxes, provider } = fakeWorld();
  const { id } = await sandboxes.spawn({ image: "i", owner: "anna" });
  const named = await sandboxes.checkpoint(id, { name: "good2" });
  const unnamed = await sandboxes.checkpoint(id);
  const machine = provider.machinesById.get(id);
  assert.ok(machine !== undefined);
  for (const [checkpoint, name] of [
    [named.id, "good2"],
    [unnamed.id, unnamed.id],
  ] as const) {
    for (const [phase, said] of [
      ["resolve", "is damaged"],
      ["load", "does not load"],
    ] as const) {
      const failure = new StacyError("corrupt", "memory.bin is other", { phase, remedy: "the next spawn builds it" });
      const expected = { code: "corrupt", message: `the checkpoint ${name} ${said}: memory.bin is other` };
      const remedy = `put its files back from a backup, or remove it: \`stacyvm checkpoint rm ${checkpoint}\``;
      provider.spawnFailure = failure;
      for (const _ of [1, 2])
        await assert.rejects(sandboxes.spawn({ checkpoint, owner: "anna" }), { ...expected, remedy });
      provider.spawnFailure = undefined;
      machine.failure = failure;
      await assert.rejects(sandboxes.restore(id, checkpoint), { ...expected, remedy });
      machine.failure = undefined;
      assert.equal(sandboxes.checkpoints.get(checkpoint).id, checkpoint);
    }
  }
});

test("of a checkpoint that was removed while a machine was started from it is said that there is none", async () => {
  const { sandboxes, provider } = fakeWorld();
  const { id } = await sandboxes.spawn({ image: "i", owner: "anna" });
  const { id: checkpoint } = await sandboxes.checkpoint(id);
  provider.gate.close();
  const spawning = sandboxes.spawn({ checkpoint, owner: "anna" });
  spawning.catch(() => {});
  await sandboxes.checkpoints.remove(checkpoint);
  provider.spawnFailure = new StacyError("corrupt", "its files are gone", { phase: "resolve" });
  provider.gate.open();
  await assert.rejects(spawning, { code: "not-found", message: `there is no checkpoint "${checkpoint}"` });
});
