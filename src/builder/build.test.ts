/** What a build takes from earlier ones, with real images and a sandbox that only says what it was changed to. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { type TestContext, test } from "node:test";
import { tar } from "../../test/images-support.ts";
import type { Agent } from "../guest/agent.ts";
import { GUEST_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import { dataPaths } from "../host/paths.ts";
import type { ImageLibrary } from "../images/image.ts";
import { createImages } from "../images/store.ts";
import { readTar } from "../images/tar.ts";
import { buildImage } from "./build.ts";
import type { Step } from "./plan.ts";
import { readPlan } from "./read-plan.ts";

/** Images of their own, with one that builds may begin from. */
async function based(t: TestContext): Promise<ImageLibrary> {
  const dir = await mkdtemp(join(tmpdir(), "build-"));
  t.after(() => rm(dir, { recursive: true }));
  await mkdir(join(dir, "tree"));
  await writeFile(join(dir, "tree", "file"), "base");
  const images = createImages(dataPaths(join(dir, "data")), { offline: true });
  await images.import(join(dir, "tree"), "base:1");
  return images;
}

/** What the commands do here: the one file with this text. */
function guest(content: string): Agent {
  return {
    start: async () => ({ async *output() {}, exited: Promise.resolve({ exitCode: 0, reason: "exited" }) }),
    ...{ freeze: async () => {}, thaw: async () => {}, tarIn: async () => {} },
    stat: () => Promise.reject(new StacyError("not-found", "there is no such file")),
    changes: async () => Readable.from([tar([{ path: "tool", content }])]),
  } as unknown as Agent;
}

test("an owner's build takes what that owner's own have made, and never another's", async (t) => {
  const operator = await based(t);

  for (const [form, text] of Object.entries({
    "one stage": "FROM base:1\nRUN make tool\n",
    "a stage above another": "FROM base:1 AS one\nRUN make two\nFROM one\nRUN finish\n",
    "a copy out of another":
      "FROM base:1 AS one\nRUN make three\nFROM base:1\nCOPY --from=one /tool /tool\nRUN finish\n",
  })) {
    let started = 0;
    const build = async (images: ImageLibrary, name: string, content: string) => {
      started = 0;
      const { image, cached, steps } = await buildImage(readPlan(text), `${name}:1`, {
        images,
        diskMiB: 64,
        start: async () => {
          started++;
          return { agent: guest(content), [Symbol.asyncDispose]: async () => {} };
        },
      });
      return { file: (await readFile(image.base)).includes(content), cached, steps };
    };
    const none = { file: true, cached: 0 };
    for (const [name, images] of [
      ["alice", operator.of({ name: "alice" })],
      ["bob", operator.of({ name: "bob" })],
      ["operator", operator],
    ] as const) {
      const { steps, ...first } = await build(images, name, `by ${name}: ${form}`);
      assert.deepEqual(first, none, `${form}, ${name}`);
      assert.ok(started > 0, form);
      const again = await build(images, `${name}-again`, `by ${name}: ${form}`);
      assert.deepEqual([again, started], [{ file: true, cached: steps, steps }, 0], `${form}, ${name} again`);
    }
    const shared = operator.of({ name: "alice", shares: true });
    await build(shared, "everybodys", `by alice: ${form}`);
    assert.equal(started, 0, "what is for all is an owner's build too");
  }
});

test("what a sandbox says has been changed is no more than its disk could hold", async (t) => {
  const images = await based(t);
  let sent = 0;
  async function* endless(): AsyncGenerator<Buffer> {
    for (; sent < 200; sent++) yield randomBytes(2 ** 20);
  }
  const agent = { ...guest(""), changes: async () => Readable.from(endless()) } as Agent;
  const build = buildImage(readPlan("FROM base:1\nRUN fill\n"), "full:1", {
    images,
    diskMiB: 16,
    start: async () => ({ agent, [Symbol.asyncDispose]: async () => {} }),
  });
  await assert.rejects(build, { code: "limit", message: /than its disk can hold/ });
  assert.ok(sent < 100, `${sent} MiB were taken`);
});

test("a sandbox that does not say what has been changed, or a byte at a time, is given up", async (t) => {
  const images = await based(t);
  const asked = Promise.withResolvers<Readable>();
  const changes = new Readable({
    read() {
      asked.resolve(this);
    },
  });
  t.mock.timers.enable({ apis: ["setInterval"] });
  const build = buildImage(readPlan("FROM base:1\nRUN wait\n"), "slow:1", {
    images,
    diskMiB: 16,
    start: async () => ({
      agent: { ...guest(""), changes: async () => changes } as Agent,
      [Symbol.asyncDispose]: async () => {},
    }),
  });
  const refused = assert.rejects(build, { code: "timeout", message: /does not say/ });
  (await asked.promise).push(Buffer.alloc(1_000));
  t.mock.timers.tick(GUEST_BOUNDS.treeMs);
  await refused;
});

test("a working directory's new directories belong to whom the step says, else to the user, those above it that are there stay as they are", async (t) => {
  const images = await based(t);
  const came: unknown[] = [];
  const agent = {
    ...guest("x"),
    stat: async (path: string) => {
      if (path !== "/srv") throw new StacyError("not-found", "there is no such file");
      return { kind: "directory" };
    },
    readFile: async () => Buffer.from("root:x:0:0::/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\n"),
    tarIn: (path: string, sent: AsyncIterable<Uint8Array>) =>
      readTar(sent, async ({ path: name, type, mode, uid, gid }) => {
        came.push([path, name, type, mode, uid, gid]);
      }),
  } as unknown as Agent;
  const workdir = { kind: "workdir", text: "", line: 1 } as const;
  const steps: Step[] = [
    { ...workdir, path: "/srv/app/sub/", owner: "user" },
    { ...workdir, path: "/of-root" },
    { ...workdir, path: "/srv", owner: "nobody that is there" },
    { kind: "user", user: "user", text: "", line: 1 },
    { ...workdir, path: "/of-user" },
    { ...workdir, path: "/of-another", owner: "7:8" },
    { kind: "user", user: "1234", text: "", line: 1 },
    { ...workdir, path: "/of-a-number" },
    { kind: "user", user: "user:5", text: "", line: 1 },
    { ...workdir, path: "/of-a-group" },
    { kind: "user", user: "nobody that is there", text: "", line: 1 },
    { ...workdir, path: "/of-nobody" },
  ];
  const from = { kind: "image", reference: "base:1" } as const;
  await buildImage({ stages: [{ name: "", from, steps: () => steps }], target: 0 }, "places:1", {
    ...{ images, diskMiB: 64 },
    start: async () => ({ agent, [Symbol.asyncDispose]: async () => {} }),
  });
  assert.deepEqual(came, [
    ["/srv", "app", "directory", 0o755, 1000, 1001],
    ["/srv", "app/sub", "directory", 0o755, 1000, 1001],
    ["/", "of-root", "directory", 0o755, 0, 0],
    ["/", "of-user", "directory", 0o755, 1000, 1001],
    ["/", "of-another", "directory", 0o755, 7, 8],
    ["/", "of-a-number", "directory", 0o755, 1234, 1234],
    ["/", "of-a-group", "directory", 0o755, 1000, 5],
    ["/", "of-nobody", "directory", 0o755, 0, 0],
  ]);
});

test("a copy from what is no stage and no image says both, with its line", async (t) => {
  const images = await based(t);
  const text = "FROM base:1 AS build\nRUN make\nFROM base:1\nCOPY --from=biuld /tool /tool\n";
  const start = async () => ({ agent: guest("x"), [Symbol.asyncDispose]: async () => {} });
  await assert.rejects(
    buildImage(readPlan(text), "copied:1", { images, diskMiB: 64, start }),
    /^StacyError: line 4: no stage above is called biuld, and as an image: ./,
  );
});

test("a command that reached no host is answered with what a build may reach; another failure is not", async (t) => {
  const images = await based(t);
  const failure = async (words: string): Promise<StacyError> => {
    const start = async () => ({
      async *output() {
        yield { type: "stdout", data: Buffer.from(words) };
      },
      exited: Promise.resolve({ exitCode: 100, reason: "exited" }),
    });
    const agent = { ...guest(""), start } as unknown as Agent;
    const build = buildImage(readPlan(`FROM base:1\nRUN fetch\n`), "cut-off:1", {
      ...{ images, diskMiB: 16 },
      start: async () => ({ agent, [Symbol.asyncDispose]: async () => {} }),
    });
    return await build.then(
      () => assert.fail("it did not fail"),
      (error: StacyError) => error,
    );
  };
  for (const words of [
    "E: Failed to fetch http://deb.debian.org/x  Temporary failure resolving 'deb.debian.org'",
    "curl: (6) Could not resolve host: example.com",
    "npm error code EAI_AGAIN",
    "wget: bad address 'example.com'",
  ]) {
    assert.match((await failure(words)).remedy ?? "", /defaults\.allowed_hosts/, words);
  }
  for (const words of ["no-such-program: command not found", "npm error ERESOLVE could not resolve"])
    assert.equal((await failure(words)).remedy, undefined, words);
});

test("a step that cannot even be begun is named, whatever the guest says of it", async (t) => {
  const images = await based(t);
  const start = async () => Promise.reject(new StacyError("not-found", "there is no user ghost"));
  const agent = { ...guest(""), start } as unknown as Agent;
  const build = buildImage(readPlan("FROM base:1\nUSER ghost\nRUN a \\\n  b\n"), "ghost:1", {
    ...{ images, diskMiB: 16 },
    start: async () => ({ agent, [Symbol.asyncDispose]: async () => {} }),
  });
  await assert.rejects(build, {
    code: "not-found",
    message: /^line 3: `RUN a .*`: there is no user ghost$/,
    data: { line: 3 },
  });
});
