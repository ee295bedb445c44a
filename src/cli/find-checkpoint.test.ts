import assert from "node:assert/strict";
import { test } from "node:test";
import type { Client } from "../../sdk/src/index.ts";
import { findCheckpoint } from "./find-checkpoint.ts";

test("a checkpoint is found by its id or its name; a name of several names them", async () => {
  const all = [
    { id: "ckpt-1", name: "clean" },
    { id: "ckpt-2", name: "twice" },
    { id: "ckpt-3", name: "twice" },
    { id: "ckpt-4", name: "ckpt-1" },
  ];
  const client = { checkpoints: { list: async () => all } } as unknown as Client;
  assert.equal((await findCheckpoint(client, "clean")).id, "ckpt-1");
  assert.equal((await findCheckpoint(client, "ckpt-1")).id, "ckpt-1");
  await assert.rejects(findCheckpoint(client, "twice"), /2 checkpoints are called twice: ckpt-2, ckpt-3/);
  await assert.rejects(findCheckpoint(client, "gone"), /there is no checkpoint "gone"/);
});
