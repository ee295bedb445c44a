/** With a real image, in a real sandbox: test/image-build.test.ts. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import { StacyError } from "../host/error.ts";
import type { ImageLibrary } from "../images/image.ts";
import { Store } from "../sandboxes/store.ts";
import { type Build, Environments, type SpecInput } from "./environments.ts";
import { dockerfileOf, imageOf, packageList, type Spec } from "./spec.ts";

/** Of an administrator. */
const ALL = undefined;
const INPUT: SpecInput = {
  ...{ owner: "acme", user: "alice", name: "My Env!", baseImage: "python:3.12-slim" },
  ...{ pythonPackages: ["requests>=2", " ", "requests>=2", "uvicorn[standard]"], aptPackages: ["curl"] },
};

function environmentsOn(
  store: Store,
  resolve: (options: { signal?: AbortSignal }, name: string) => Promise<never>,
): Environments {
  const images: ImageLibrary = {
    resolve: (name: string, options: { signal?: AbortSignal }) => resolve(options, name),
    builds: {},
    of: () => images,
  } as unknown as ImageLibrary;
  return new Environments({ store, images, report: (error) => assert.fail(String(error)) });
}
const noMachine = () => assert.fail("nothing is started before there is a base image");

async function ended(environments: Environments, id: string): Promise<Build> {
  for (;;) {
    const { build } = environments.build(id, ALL);
    if (!["queued", "building"].includes(build.status)) return build;
    await new Promise(setImmediate);
  }
}

test("packages become one command each, quoted; what could be an option or a command is refused", () => {
  const spec = { ...INPUT, id: "x", createdAt: 0, pythonPackages: packageList(INPUT.pythonPackages) } as Spec;
  assert.equal(
    dockerfileOf(spec),
    "FROM python:3.12-slim\n" +
      "RUN apt-get update && apt-get install -y --no-install-recommends 'curl' && rm -rf /var/lib/apt/lists/*\n" +
      "RUN pip install --no-cache-dir 'requests>=2' 'uvicorn[standard]'\n" +
      "RUN mkdir -p /workspace /output /data\nWORKDIR /workspace\n",
  );
  assert.equal(imageOf(spec, "0123456789"), "local/stacyvm-env:my-env-01234567");
  assert.equal(imageOf({ ...spec, name: "ÄÖ" }, "0123456789"), "local/stacyvm-env:env-01234567");
  for (const wrong of ["--index-url=http://x", "a b", "a;b", "$(id)", "a'b", "a\nRUN id", "`id`", "a&b"]) {
    assert.throws(() => packageList([wrong]), /is no package/, wrong);
  }
});

test("a spec is its owner's, is kept, and goes with its builds", async () => {
  using store = new Store(":memory:");
  const refuse = (): Promise<never> => Promise.reject(new StacyError("not-found", "there is no such image"));
  await using environments = environmentsOn(store, refuse);
  await assert.rejects(environments.create({ ...INPUT, baseImage: "a\nRUN id" }), /is no image reference/);
  const spec = await environments.create(INPUT);
  await assert.rejects(environments.create(INPUT), /there is an environment "My Env!" already/);
  assert.deepEqual(environments.specs("alice", "acme"), [spec]);
  assert.deepEqual(environments.specs("bob", "acme"), []);
  assert.deepEqual(environments.specs("alice", "other"), []);
  assert.throws(() => environments.spec(spec.id, "other"), /there is no environment/);
  const queued = await environments.start(spec, noMachine);
  assert.equal(queued.status, "queued");
  assert.throws(() => environments.build(queued.id, "other"), /there is no build/);
  const failed = await ended(environments, queued.id);
  assert.deepEqual([failed.status, failed.error], ["failed", "there is no such image"]);
  assert.match(failed.log, /^build queued\nbuild started\n.*there is no such image/s);
  await assert.rejects(environments.cancel(queued.id, ALL), /has ended already/);
  await store.committed();
  await using next = environmentsOn(store, refuse);
  assert.deepEqual(next.specs("alice", "acme"), [spec]);
  assert.deepEqual(next.builds(spec.id), [failed]);
  await next.remove(spec.id, "acme");
  assert.deepEqual([next.specs("alice", ALL), next.builds(spec.id)], [[], []]);
  assert.throws(() => next.build(queued.id, ALL), /there is no build/);
});

test("one build after another; a cancelled one ends at once, and what a server leaves undone has failed for the next", async () => {
  using store = new Store(":memory:");
  let asked = 0;
  const hang = async ({ signal }: { signal?: AbortSignal }): Promise<never> => {
    asked += 1;
    assert.ok(signal);
    await once(signal, "abort");
    throw signal.reason;
  };
  await using environments = environmentsOn(store, hang);
  const spec = await environments.create(INPUT);
  const [first, second, third] = [
    await environments.start(spec, noMachine),
    await environments.start(spec, noMachine),
    await environments.start(spec, noMachine),
  ];
  while (asked === 0) await new Promise(setImmediate);
  assert.deepEqual(
    [first, second, third].map(({ id }) => environments.build(id, ALL).build.status),
    ["building", "queued", "queued"],
  );
  await assert.rejects(environments.remove(spec.id, ALL), /it is being built/);
  assert.equal((await environments.cancel(second.id, ALL)).status, "canceled");
  const canceled = await environments.cancel(first.id, ALL);
  assert.deepEqual([canceled.status, canceled.error], ["canceled", "the build was cancelled"]);
  while (asked === 1) await new Promise(setImmediate);
  assert.equal(asked, 2, "the one that was cancelled while it waited is not begun");
  assert.equal(environments.build(first.id, ALL).build.status, "canceled", "its end does not make it something else");
  await store.committed();

  const next = environmentsOn(store, hang);
  const left = next.build(third.id, ALL).build;
  assert.deepEqual([left.status, left.error], ["failed", "the server ended before the build did"]);
  await store.committed();
});

test("of changes at the same time each sees what the one before has done: one spec of a name, no build of what is gone", async () => {
  using store = new Store(":memory:");
  await using environments = environmentsOn(store, () => Promise.reject(new StacyError("not-found", "none")));
  const made = await Promise.allSettled([environments.create(INPUT), environments.create(INPUT)]);
  assert.deepEqual(
    made.map(({ status }) => status),
    ["fulfilled", "rejected"],
  );
  const [spec] = environments.specs("alice", ALL);
  assert.ok(spec);
  const [, started] = await Promise.allSettled([
    environments.remove(spec.id, ALL),
    environments.start(spec, noMachine),
  ]);
  assert.match(String(started.status === "rejected" && started.reason), /there is no environment/);
});

test("another owner's many builds keep nobody's waiting, and forget nobody's", async () => {
  using store = new Store(":memory:");
  const begun: string[] = [];
  const allAsked = Promise.withResolvers<void>();
  await using environments = environmentsOn(store, async (_options, name) => {
    begun.push(name);
    await allAsked.promise;
    throw new StacyError("not-found", "none");
  });
  const many = await environments.create({ ...INPUT, baseImage: "many:1" });
  const one = await environments.create({ ...INPUT, owner: "other", baseImage: "one:1" });
  const [first] = await Promise.all([one, many, many, many, one].map((spec) => environments.start(spec, noMachine)));
  allAsked.resolve();
  for (let i = 0; i < 4; i++) {
    const more = Array.from({ length: 60 }, () => environments.start(many, noMachine));
    for (const { id } of await Promise.all(more)) await ended(environments, id);
  }
  assert.deepEqual(begun.map((name) => name.split(":")[0]).slice(0, 5), ["one", "many", "one", "many", "many"]);
  // The last one is still being put away.
  await environments[Symbol.asyncDispose]();
  assert.equal(environments.builds(many.id).length, 200);
  assert.equal(environments.builds(one.id).length, 2);
  assert.ok(first && environments.build(first.id, "other"));
});
