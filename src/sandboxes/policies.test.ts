import assert from "node:assert/strict";
import { test } from "node:test";
import { Policies, type Policy } from "./policies.ts";
import { Store } from "./store.ts";

const rule = (effect: Policy["effect"], pattern: string, more: Partial<Policy> = {}): Omit<Policy, "id"> => ({
  ...{ owner: "acme", resource: "image", effect, pattern, priority: 10, createdAt: 1 },
  ...more,
});

test("a denied image is denied by all its names, to that owner, over a restart too, until the policy is removed", async () => {
  using store = new Store(":memory:");
  const policies = new Policies(store, { tool: "alpine:3", "own/base": "registry.lan/base:1" });
  const denied = (image: string, owner = "acme", on = policies): boolean => {
    try {
      on.checkImage(owner, image);
      return false;
    } catch (error) {
      assert.match(String(error), /is not permitted by a policy/);
      return true;
    }
  };
  const { id } = await policies.create(rule("deny", "alpine:*"));
  const names = [
    "alpine:3",
    "alpine",
    "library/alpine:3",
    "docker.io/library/alpine:latest",
    "index.docker.io/alpine:3",
    "Registry-1.docker.io/library/alpine:3",
    "registry.hub.docker.com/library/alpine:3",
    "docker.io:443/library/alpine:3",
  ];
  for (const name of [...names, "tool"]) assert.ok(denied(name), name);
  for (const name of ["python:3", "other/alpine:3", "ghcr.io/alpine:3"]) assert.ok(!denied(name), name);
  assert.ok(!denied("alpine:3", "other"));
  // Nobody knows what a digest is called.
  const digest = `sha256:${"0".repeat(64)}`;
  assert.ok(denied(digest) && denied(`python@${digest}`));
  assert.ok(!denied(digest, "other"));
  await policies.create(rule("allow", "**", { priority: 20 }));
  assert.ok(!denied(digest), "let through by itself");
  assert.ok(denied("alpine:3", "acme", new Policies(store, {})));
  await assert.rejects(policies.remove("other", id), /there is no policy/);
  await policies.remove("acme", id);
  assert.ok(!denied("alpine:3"));
  await assert.rejects(policies.create(rule("deny", "alp?ne")), /only \* and \*\*/);
});

test("the lowest priority decides, a denial before a permission; what no rule is about may be used", async () => {
  using store = new Store(":memory:");
  const policies = new Policies(store, {});
  const allowed = (image: string): boolean => {
    try {
      policies.checkImage("acme", image);
      return true;
    } catch {
      return false;
    }
  };
  await policies.create(rule("deny", "**", { priority: 20 }));
  await policies.create(rule("allow", "python:*", { createdAt: 2 }));
  await policies.create(rule("deny", "python:2*", { createdAt: 3 }));
  assert.deepEqual(["python:3", "python:2.7", "alpine"].map(allowed), [true, false, false]);
  assert.deepEqual(
    policies.list("acme").map(({ pattern }) => pattern),
    ["python:2*", "python:*", "**"],
  );
  await policies.create(rule("deny", "docker", { resource: "provider" }));
  policies.checkProvider("acme", ["qemu"]);
  assert.throws(() => policies.checkProvider("acme", ["docker", "qemu"]), /the provider docker is not permitted/);
});

test("the number of an owner's policies has a limit, for those that are made at the same time too", async () => {
  using store = new Store(":memory:");
  const policies = new Policies(store, {});
  const all = await Promise.allSettled(Array.from({ length: 101 }, (_, i) => policies.create(rule("deny", `i${i}`))));
  assert.deepEqual([all.filter(({ status }) => status === "rejected").length, policies.list("acme").length], [1, 100]);
});
