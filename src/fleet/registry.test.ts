import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { StacyError } from "../host/error.ts";
import { silentLog } from "../sandboxes/observer.ts";
import type { SandboxRecord } from "../sandboxes/record.ts";
import type { Ownership } from "./contract.ts";
import type { Claim, Published } from "./database/ownerships.ts";
import { FleetRegistry } from "./registry.ts";

const NODE = "node";
const PARTS = { nodeId: NODE, assertOpen() {}, nodes: () => [], log: silentLog };

/** A table whose answers can be lost after they were done, which no real database does when it is asked to. */
class Table {
  readonly rows = new Map<string, Ownership>();
  answers = true;

  async claim(claim: Claim): Promise<Ownership> {
    const row = { ...claim, nodeId: NODE, epoch: this.rows.size + 1 };
    this.rows.set(claim.sandboxId, row);
    if (!this.answers) throw new StacyError("unavailable", "the answer is lost");
    return row;
  }
  reclaim(claim: Claim): Promise<Ownership> {
    return this.claim(claim);
  }
  async taken() {
    return { all: { sandboxes: this.rows.size, memoryMiB: 0, vcpus: 0, diskMiB: 0 } };
  }
  /** Of what was published, by sandbox. */
  readonly states: string[] = [];
  /** What a write waits for. */
  gate: Promise<unknown> = Promise.resolve();
  async publish(all: readonly Published[]): Promise<Set<string>> {
    await this.gate;
    if (!this.answers) throw new StacyError("unavailable", "away");
    if (all.some(({ state }) => state === "error")) throw new Error("this one is not taken");
    this.states.push(...all.map(({ sandboxId, state }) => `${sandboxId} ${state}`));
    return new Set(all.map(({ sandboxId }) => sandboxId).filter((id) => this.rows.has(id)));
  }
  async release(all: readonly { sandboxId: string; epoch: number }[]): Promise<void> {
    for (const { sandboxId, epoch } of all) if (this.rows.get(sandboxId)?.epoch === epoch) this.rows.delete(sandboxId);
  }
  async renew(): Promise<undefined> {}
  async take(): Promise<undefined> {}
  async of(ids: readonly string[]): Promise<Ownership[]> {
    return ids.flatMap((id) => this.rows.get(id) ?? []);
  }
  async all(): Promise<Ownership[]> {
    return [...this.rows.values()];
  }
}

function record(id: string): SandboxRecord {
  return {
    ...{
      id,
      state: "creating",
      owner: "default",
      provider: "qemu",
      image: "image",
      memoryMiB: 1,
      vcpus: 1,
      diskMiB: 1,
    },
    ...{ createdAt: 1, expiresAt: 2, idleTimeoutMs: 0, idleAction: "destroy", metadata: {} },
  };
}

test("a claim whose answer was lost is taken back with its sandbox", async () => {
  const table = new Table();
  await using registry = new FleetRegistry({ ...PARTS, ownerships: table });
  table.answers = false;
  await assert.rejects(registry.claim(record("a")), { code: "unavailable" });
  assert.equal(table.rows.size, 1);
  registry.release("a");
  await registry.flush();
  assert.equal(table.rows.size, 0);
});

test("the end of one that is still being claimed is told when the claim is there", async () => {
  const table = new Table();
  await using registry = new FleetRegistry({ ...PARTS, ownerships: table });
  const claiming = registry.claim(record("a"));
  registry.release("a");
  await claiming;
  await registry.flush();
  assert.equal(table.rows.size, 0);
});

/** A registry with a sandbox that is claimed. */
async function claimed(table: Table) {
  const registry = new FleetRegistry({ ...PARTS, ownerships: table });
  const sandbox = record("a");
  await registry.claim(sandbox);
  const become = (state: SandboxRecord["state"], each = sandbox): void => {
    each.state = state;
    registry.publish(each);
  };
  return { registry, become };
}

test("one that becomes what it was while something else is being written is that in the end", async () => {
  const table = new Table();
  const { registry, become } = await claimed(table);
  become("running");
  await registry.flush();
  const gate = Promise.withResolvers<void>();
  table.gate = gate.promise;
  become("paused");
  const writing = registry.flush();
  await delay(0);
  become("running");
  gate.resolve();
  await writing;
  await registry[Symbol.asyncDispose]();
  assert.deepEqual(table.states, ["a running", "a paused", "a running"]);
});

test("what the database did not take is tried again without anybody's asking", async () => {
  const table = new Table();
  const { registry, become } = await claimed(table);
  table.answers = false;
  become("running");
  await assert.rejects(registry.flush(), { code: "unavailable" });
  await delay(0);
  await assert.rejects(registry.flush(), { code: "unavailable" });
  table.answers = true;
  while (table.states.length === 0) await delay(10);
  await registry[Symbol.asyncDispose]();
});

test("what the database refuses of one sandbox holds up no other", async () => {
  const table = new Table();
  const { registry, become } = await claimed(table);
  const other = record("b");
  await registry.claim(other);
  become("error");
  become("running", other);
  await registry.flush();
  await registry[Symbol.asyncDispose]();
  assert.deepEqual(table.states, ["b running"]);
});
