import assert from "node:assert/strict";
import { test } from "node:test";
import { E2B_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import type { View } from "../../sandboxes/view.ts";
import type { E2bParts } from "../parts.ts";
import { TemplateBuilds } from "./builds.ts";
import type { TemplateFiles } from "./files.ts";
import type { BuildStart } from "./instructions.ts";

const from = (fromImage: string): BuildStart => ({ fromImage }) as BuildStart;

test("a template is made of what its owner's sandboxes may be made of, and its image is that owner's", async () => {
  let owner: unknown;
  const parts = {
    policies: {
      checkImage: (of: string, image: string) => {
        if (of === "acme" && image === "denied") throw new StacyError("permission", "a policy says no");
      },
    },
    images: {
      of: (given: unknown) => {
        owner = given;
        throw new StacyError("unavailable", "no images here");
      },
    },
    log: { info: () => {} },
  } as unknown as E2bParts;
  const builds = new TemplateBuilds(parts, {} as TemplateFiles);
  const view = { owner: "acme" } as View;
  const request = { name: "mine", tags: [], vcpus: 1, memoryMiB: 512 };
  const refused = builds.request("acme", "t", request);
  await assert.rejects(builds.start(refused, from("denied"), view), /a policy says no/);
  assert.equal(refused.status, "waiting");
  await builds.start(builds.request("acme", "t", request), from("other"), view);
  assert.deepEqual(owner, { name: "acme", templates: true });
});

test("the logs of an owner's builds have one bound: those of builds that have ended go first", async () => {
  const printed = "x".repeat(1_000_000);
  const parts = {
    policies: { checkImage: () => {} },
    images: {
      of: () => {
        throw new StacyError("invalid", printed);
      },
    },
    log: { info: () => {} },
  } as unknown as E2bParts;
  const builds = new TemplateBuilds(parts, {} as TemplateFiles);
  const view = { owner: "acme" } as View;
  const request = { name: "mine", tags: [], vcpus: 1, memoryMiB: 512 };
  const all = Array.from({ length: 20 }, () => builds.request("acme", "t", request));
  for (const build of all) {
    await builds.start(build, from("other"), view);
    while (build.endedAt === undefined) await new Promise(setImmediate);
  }
  const lengths = all.map(({ logs }) => logs.reduce((sum, { message }) => sum + message.length, 0));
  const kept = lengths.reduce((sum, each) => sum + each, 0);
  assert.ok(kept * 2 <= E2B_BOUNDS.logBytes && kept > 6_000_000, String(kept));
  assert.deepEqual([lengths.at(0), lengths.at(-1)], [0, 1_000_000], "the last one is there");
});

/** Whose builds fail at once, with this in their log. */
function failing(text: () => string) {
  const parts = {
    policies: { checkImage: () => {} },
    images: {
      of: () => {
        throw new StacyError("invalid", text());
      },
    },
    log: { info: () => {} },
  } as unknown as E2bParts;
  const builds = new TemplateBuilds(parts, {} as TemplateFiles);
  const request = { name: "mine", tags: [], vcpus: 1, memoryMiB: 512 };
  const add = (owner: string) => builds.request(owner, "t", request);
  const run = async (build: ReturnType<typeof add>): Promise<void> => {
    await builds.start(build, from("other"), { owner: build.owner } as View);
    while (build.endedAt === undefined) await new Promise(setImmediate);
  };
  return { add, run };
}

test("a piece of a log is work for its lines only: not for each build that is remembered, another owner's least of all", async () => {
  const { add, run } = failing(() => "a\n".repeat(10_000));
  let looks = 0;
  const counted = <T extends ReturnType<typeof add>>(build: T, key: "owner" | "logBytes"): T => {
    const value = build[key];
    const get = () => {
      looks += 1;
      return value;
    };
    return Object.defineProperty(build, key, { get });
  };
  for (let i = 0; i < 40; i++) {
    counted(counted(add("other"), "owner"), "logBytes");
    counted(counted(add("acme"), "owner"), "logBytes");
  }
  const build = add("acme");
  looks = 0;
  await run(build);
  assert.equal(build.logs.length, 10_001);
  assert.ok(looks <= 80, `${looks} looks at other builds for one piece`);
});

test("a build that is forgotten no longer counts in the bound of its owner's logs", async () => {
  const { add, run } = failing(() => "x".repeat(100_000));
  const all: ReturnType<typeof add>[] = [];
  for (let i = 0; i < 150; i++) {
    const build = add("acme");
    await run(build);
    all.push(build);
  }
  const kept = all.slice(-50).filter(({ logs }) => logs.length > 0);
  assert.equal(kept.length, 50);
});

test("what a client is told of a failed build says what to do about it, too", async () => {
  const parts = {
    policies: { checkImage: () => {} },
    images: {
      of: () => {
        throw new StacyError("invalid", "it ended with 100", { remedy: "allow its host" });
      },
    },
    log: { info: () => {} },
  } as unknown as E2bParts;
  const builds = new TemplateBuilds(parts, {} as TemplateFiles);
  const build = builds.request("acme", "t", { name: "mine", tags: [], vcpus: 1, memoryMiB: 512 });
  await builds.start(build, from("other"), { owner: "acme" } as View);
  while (build.endedAt === undefined) await new Promise(setImmediate);
  assert.equal(build.reason?.message, "it ended with 100\nallow its host");
  assert.deepEqual(
    build.logs.map(({ message }) => message),
    ["it ended with 100", "allow its host"],
  );
});
