import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { StacyError } from "../../host/error.ts";
import type { MachineLife } from "../machine-life.ts";
import { suspend, wake } from "./suspend.ts";

const { signal } = new AbortController();

test("what a save stands on is made ready while the guest runs; when the disk has no room for it, the guest has not stood still", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "suspend-"));
  t.after(() => rm(dir, { recursive: true }));
  const full = new StacyError("no-space", "the disk is full");
  const did: string[] = [];
  const machine = {
    state: "running",
    prepareSave: async () => {
      did.push("prepare");
      throw full;
    },
    pause: async () => did.push("pause"),
  };
  const life = {
    dir,
    state: "running",
    alive: () => machine,
    counts() {},
    egress: { stop: () => did.push("egress stopped") },
    agent: { disconnect: async () => did.push("disconnected") },
    goOn: async (paused: unknown) => void did.push(`goes on: ${paused}`),
  } as unknown as MachineLife;
  await assert.rejects(suspend(life, signal), full);
  assert.deepEqual(did, ["prepare", "goes on: undefined"]);
});

test("what another release saved is told before anything is loaded, and is suspended still", async () => {
  const other = new StacyError("not-supported", "it was saved by Firecracker 1.12.1");
  const asked: unknown[] = [];
  const vmm = {
    checkLoadable: async (identity: unknown) => {
      asked.push(identity);
      throw other;
    },
  };
  const life = {
    dir: "/nowhere",
    target: { shape: { vmmIdentity: { version: "1.12.1" } } },
    context: { launcher: { vmm } },
    lastOneDied: async () => {},
  } as unknown as MachineLife;
  await assert.rejects(wake(life, signal), other);
  assert.deepEqual(asked, [{ version: "1.12.1" }]);
});
