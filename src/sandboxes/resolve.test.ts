import assert from "node:assert/strict";
import { test } from "node:test";
import { validateConfig } from "../config/load.ts";
import { limitsOf } from "../config/options.ts";
import { START_INIT } from "./init.ts";
import type { CheckpointRecord, SecretRecord, Template } from "./record.ts";
import { resolveSpawn, type SpawnInput, templateSpec } from "./resolve.ts";

const LIMITS = {
  ...limitsOf(validateConfig({}, "")),
  ...{ defaultImage: "default", defaultMemoryMiB: 100, defaultVcpus: 1, defaultDiskMiB: 50, defaultTtlMs: 1_000 },
  ...{ maxMemoryMiB: 1_000, maxVcpus: 4, maxDiskMiB: 500, defaultHosts: ["d.example"] },
};
const TEMPLATE: Template = {
  ...{ name: "t", version: 1, image: "template", description: "", setup: ["a"], allowedHosts: [], memoryMiB: 200 },
  ...{
    vcpus: 2,
    ttlMs: 2_000,
    env: { A: "t", B: "t" },
    secrets: [],
    poolSize: 0,
    provider: "qemu",
    metadata: { m: "t" },
  },
  ...{ owner: "default", createdAt: 0, updatedAt: 0 },
};
const CHECKPOINT: CheckpointRecord = {
  ...{ id: "cp-1", sandboxId: "sb-1", provider: "firecracker", image: "saved", memoryMiB: 300, vcpus: 3, diskMiB: 70 },
  ...{ owner: "default", bytes: 1, createdAt: 0 },
};

const resolve = (input: SpawnInput, template?: Template, checkpoint?: CheckpointRecord) =>
  resolveSpawn(input, LIMITS, template, checkpoint);

test("what is asked for goes before the template, and that before the server's defaults; 0 and empty are not asked for", () => {
  const plain = resolve({ memoryMiB: 0, image: "" });
  assert.deepEqual(
    [plain.spec.image, plain.spec.memoryMiB, plain.spec.vcpus, plain.spec.diskMiB, plain.ttlMs],
    ["default", 100, 1, 50, 1_000],
  );
  const from = resolve({ env: { A: "own" }, metadata: { m: "own" }, setup: ["b"] }, TEMPLATE);
  assert.deepEqual([from.spec.image, from.spec.memoryMiB, from.ttlMs, from.provider], ["template", 200, 2_000, "qemu"]);
  assert.deepEqual([from.spec.env, from.spec.setup], [{ A: "own", B: "t" }, ["a", "b"]]);
  assert.deepEqual(resolve({ init: true, setup: ["b"] }, TEMPLATE).spec.setup, [START_INIT, "a", "b"]);
  assert.deepEqual(
    [resolve({ init: true }), resolve({ init: true, idleCounts: "processes" }), resolve({})].map(
      (each) => each.idleCounts,
    ),
    ["calls", undefined, undefined],
  );
  assert.deepEqual(from.metadata, { m: "own", template: "t" });
  const own = resolve({ image: "own", memoryMiB: 400, vcpus: 4, ttlMs: 5, provider: "firecracker" }, TEMPLATE);
  assert.deepEqual([own.spec.image, own.spec.memoryMiB, own.ttlMs, own.provider], ["own", 400, 5, "firecracker"]);
});

test("of a shared template the image is its owner's, and what is built for it is the matter of who asks", () => {
  const shared = { ...TEMPLATE, owner: "alice" };
  const whose = ({ imageOwner, owner }: { imageOwner?: string; owner?: string }) => [imageOwner, owner];
  assert.deepEqual(whose(resolve({ owner: "bob" }, shared).spec), ["alice", "bob"]);
  assert.deepEqual(whose(resolve({ owner: "bob", image: "own" }, shared).spec), ["bob", "bob"]);
  assert.deepEqual(whose(resolve({}).spec), [undefined, "default"]);
  assert.deepEqual(whose(templateSpec(shared, LIMITS)), ["alice", "alice"], "what it keeps ready");
});

test("the image that published SDKs fill in by themselves does not replace a template's", () => {
  assert.equal(resolve({ image: "alpine:latest" }, TEMPLATE).spec.image, "template");
  assert.equal(resolve({ image: "alpine:latest" }).spec.image, "alpine:latest");
});

test("a checkpoint is what it was when it was saved, whatever is asked for", () => {
  const { spec, provider } = resolve({ image: "x", memoryMiB: 999, vcpus: 1 }, undefined, CHECKPOINT);
  assert.deepEqual(
    [spec.image, spec.memoryMiB, spec.vcpus, spec.diskMiB, spec.checkpoint, provider],
    ["saved", 300, 3, 70, "cp-1", "firecracker"],
  );
});

test("hosts: own, template's, server's; none is none", () => {
  assert.deepEqual(resolve({}).spec.allowedHosts, ["d.example"]);
  assert.deepEqual(resolve({}, { ...TEMPLATE, allowedHosts: ["t.example"] }).spec.allowedHosts, ["t.example"]);
  assert.deepEqual(resolve({ allowedHosts: ["own.example"] }, TEMPLATE).spec.allowedHosts, ["own.example"]);
  assert.equal(resolve({ allowedHosts: [] }).spec.allowedHosts, undefined);
  assert.throws(() => resolve({ allowedHosts: ["no host"] }), { code: "invalid" });
});

test("sizes over the server's limits and times that are none are refused", () => {
  for (const input of [{ memoryMiB: 1_001 }, { vcpus: 5 }, { diskMiB: 501 }]) {
    assert.throws(() => resolve(input), { code: "limit" }, JSON.stringify(input));
  }
  assert.throws(() => resolve({}, { ...TEMPLATE, memoryMiB: 2_000 }), { code: "limit" }, "a template's too");
  for (const ttlMs of [0, -1]) assert.throws(() => resolve({ ttlMs }), { code: "invalid" });
});

test("metadata has a bound for all of it, what the template brings included", () => {
  const half = { a: "x".repeat(40_000) };
  assert.equal(resolve({ metadata: half }).metadata.a?.length, 40_000);
  assert.throws(() => resolve({ metadata: half }, { ...TEMPLATE, metadata: { b: half.a } }), { code: "invalid" });
});

test("a template's secret is in its own variable, and never in one that a sandbox needs itself", () => {
  const secret: SecretRecord = {
    ...{ owner: "default", name: "TOKEN", hosts: ["api.example"], placeholder: "placeholder-1" },
    ...{ createdAt: 0, updatedAt: 0 },
    placement: { kind: "bearer" },
    source: { kind: "value" },
  };
  const spawned = (injectAt: string) =>
    resolveSpawn({}, LIMITS, { ...TEMPLATE, secrets: [{ name: "TOKEN", injectAt }] }, undefined, [secret]);
  assert.deepEqual(spawned("MINE").spec.secrets, { MINE: "placeholder-1" });
  assert.throws(() => spawned("PATH"), { code: "invalid", message: /the secret TOKEN cannot be in PATH/ });
  for (const none of ["A=B", "A\nB"])
    assert.throws(() => spawned(none), { code: "invalid", message: /is no variable/ });
  const other = { ...secret, name: "OTHER" };
  const template = { ...TEMPLATE, secrets: [{ name: "TOKEN", injectAt: "OTHER" }] };
  assert.throws(() => resolveSpawn({}, LIMITS, template, undefined, [secret, other]), {
    ...{ code: "invalid", message: /TOKEN and OTHER cannot both be in OTHER/ },
  });
});
