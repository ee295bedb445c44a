import assert from "node:assert/strict";
import { test } from "node:test";
import type { FleetNode, NodeLoad, PlacementRequest } from "./contract.ts";
import { candidates, shapeKey } from "./placement.ts";

const LOAD: NodeLoad = {
  ...{ sandboxes: 0, maxSandboxes: 10, queued: 0, vcpus: 4, memoryMiB: 1_000, freeMemoryMiB: 1_000, loadAverage: 0 },
  ...{ warm: [], snapshots: [], images: [] },
};

function node(name: string, load: Partial<NodeLoad> = {}, more: Partial<FleetNode> = {}): FleetNode {
  return {
    ...{ id: name, name, url: `http://${name}`, role: "node", state: "up", draining: false, version: "1", labels: {} },
    ...{ architecture: "x64", providers: ["qemu"], hostIdentity: "cpu", seenAt: 0 },
    ...more,
    load: { ...LOAD, ...load },
  };
}

/** Without chance. */
const order = (nodes: FleetNode[], request: PlacementRequest = {}): string[] =>
  candidates(nodes, request, () => 0).map(({ name }) => name);

test("only nodes that are up, take new ones and have room are asked", () => {
  const nodes = [
    node("full", { sandboxes: 10 }),
    node("silent", {}, { state: "silent" }),
    node("lost", {}, { state: "lost" }),
    node("draining", {}, { draining: true }),
    node("entrance", {}, { role: "entrance" }),
    node("good", { sandboxes: 8 }),
    node("unlimited", { sandboxes: 1_000, maxSandboxes: 0 }),
  ];
  assert.deepEqual(order(nodes), ["unlimited", "good"]);
  assert.deepEqual(order(nodes, { count: 3 }), ["unlimited"]);
});

test("what is asked for must be there: provider, architecture, host, labels", () => {
  const nodes = [
    node("plain"),
    node("arm", {}, { architecture: "arm64" }),
    node("fire", {}, { providers: ["firecracker"] }),
    node("other-cpu", {}, { hostIdentity: "other" }),
    node("gpu", {}, { labels: { gpu: "yes", zone: "a" } }),
  ];
  assert.deepEqual(order(nodes, { architecture: "arm64" }), ["arm"]);
  assert.deepEqual(order(nodes, { provider: "firecracker" }), ["fire"]);
  assert.equal(order(nodes, { provider: "auto" }).length, 5);
  assert.deepEqual(order(nodes, { hostIdentity: "other" }), ["other-cpu"]);
  assert.deepEqual(order(nodes, { labels: { gpu: "yes" } }), ["gpu"]);
  assert.deepEqual(order(nodes, { labels: { gpu: "yes", zone: "b" } }), []);
});

test("the fastest start comes first, then the least to do; a node that is nearly full comes last, whatever it has ready", () => {
  const request = { image: "alpine", vcpus: 1, memoryMiB: 128 };
  const shape = shapeKey(request);
  const nodes = [
    node("nearly-full", { sandboxes: 9, warm: [shape] }),
    node("nothing"),
    node("image", { images: ["alpine"] }),
    node("snapshot-busy", { snapshots: [shape], freeMemoryMiB: 300 }),
    node("snapshot", { snapshots: [shape] }),
    node("warm", { warm: [shape], sandboxes: 5 }),
    node("another-shape", { warm: [shapeKey({ ...request, memoryMiB: 256 })], sandboxes: 1 }),
  ];
  assert.deepEqual(order(nodes, request), [
    ...["warm", "snapshot", "snapshot-busy", "image", "nothing", "another-shape", "nearly-full"],
  ]);
});

test("of nodes that are alike none gets all, and one that has clearly more to do comes later whatever chance says", () => {
  const nodes = [node("a"), node("b"), node("busy", { sandboxes: 5 })];
  const first = new Set<string>();
  for (let index = 0; index < 200; index++) {
    const [best, , last] = candidates(nodes, {});
    first.add(best?.name ?? "");
    assert.equal(last?.name, "busy");
  }
  assert.deepEqual([...first].sort(), ["a", "b"]);
});
