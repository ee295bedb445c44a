/** Parts of E2B's protocol that need no machine. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough, Readable } from "node:stream";
import { test } from "node:test";
import { createGzip } from "node:zlib";
import { pack } from "tar-stream";
import { tar } from "../../test/images-support.ts";
import { BuildContext } from "../builder/context.ts";
import { below } from "../builder/files.ts";
import type { Step } from "../builder/plan.ts";
import { StacyError } from "../host/error.ts";
import { plainConfig } from "../images/content.ts";
import { wantedOf } from "./control/logs.ts";
import { isNow } from "./control/metrics.ts";
import { pageOf } from "./control/paging.ts";
import { FanOut } from "./envd/fan-out.ts";
import { pathOf } from "./envd/users.ts";
import { SandboxTokens, signedLink } from "./sandbox-tokens.ts";
import { TemplateBuilds } from "./templates/builds.ts";
import { TemplateFiles } from "./templates/files.ts";
import { BuildStart, Instruction, planOf } from "./templates/instructions.ts";
import { nameOf, parseName } from "./templates/names.ts";

test("of a log comes what was asked for", () => {
  const lines = ["one", "two", "three"];
  assert.deepEqual(wantedOf(lines, {}), lines);
  assert.deepEqual(wantedOf(lines, { search: "t", direction: "backward", limit: "1" }), ["three"]);
  assert.deepEqual([wantedOf(lines, { level: "info" }).length, wantedOf(lines, { level: "warn" })], [3, []]);
  for (const wrong of [{ limit: "x" }, { limit: "1001" }, { level: "loud" }, { direction: "up" }]) {
    assert.throws(() => wantedOf(lines, wrong), { code: "invalid" });
  }
});

test("tokens stay over restarts, differ by sandbox, and sign links that end", async () => {
  const dir = await mkdtemp(join(tmpdir(), "e2b-"));
  try {
    const [one, other] = await Promise.all([SandboxTokens.open(dir), SandboxTokens.open(dir)]);
    assert.equal((await stat(join(dir, "e2b.key"))).mode & 0o777, 0o600);
    const key = { id: "key-1", bound: "hash" };
    const token = one.of("sb-1", key);
    assert.ok(other.matches("sb-1", key, token));
    const rotated = { ...key, bound: "another hash" };
    for (const wrong of [one.of("sb-2", key), one.traffic("sb-1", key), one.of("sb-1", rotated), ""]) {
      assert.ok(!one.matches("sb-1", key, wrong));
    }
    assert.equal(SandboxTokens.credentialIn(token), key.id);
    const traffic = other.traffic("sb-1", key);
    assert.ok(one.matchesTraffic("sb-1", key, traffic) && !one.matchesTraffic("sb-1", key, token));
    // As E2B's clients make it.
    const sign = (text: string) => `v1_${createHash("sha256").update(text).digest("base64").replace(/=+$/, "")}`;
    const link = (method: string, query: Record<string, string>) => signedLink(method, new URLSearchParams(query));
    const query = {
      path: "/a b",
      username: "user",
      signature: sign(`/a b:read:user:${token}:100`),
      signature_expiration: "100",
    };
    const look = (id: string, method: string, changed: object, now = 99_000) =>
      one.looksAt(id, key, link(method, { ...query, ...changed }), now);
    assert.equal(look("sb-1", "GET", {}), "right");
    assert.equal(look("sb-1", "GET", {}, 101_000), "expired");
    assert.equal(look("sb-1", "POST", {}), "wrong", "for reading only");
    assert.equal(look("sb-2", "GET", {}), "wrong");
    assert.equal(look("sb-1", "GET", { path: "/a" }), "wrong");
    for (const end of ["x", "200", ""]) assert.equal(look("sb-1", "GET", { signature_expiration: end }), "wrong");
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("pages follow each other to the end", () => {
  const all = Array.from({ length: 5 }, (_, i) => ({ id: `sb-${i}` }));
  const seen: string[] = [];
  let token: string | undefined;
  do {
    const { page, next } = pageOf(all, "2", token);
    seen.push(...page.map(({ id }) => id));
    token = next;
  } while (token !== undefined);
  assert.deepEqual(
    seen,
    all.map(({ id }) => id),
  );
  const made = all.map(({ id }, i) => ({ id, at: i * 10 }));
  for (const order of [made, made.toReversed()]) {
    const { page, next } = pageOf(order, "2", undefined, ({ at }) => at);
    // What was listed is ended by whoever lists it.
    const rest = order.filter((each) => !page.includes(each));
    assert.deepEqual(
      pageOf(rest, "9", next, ({ at }) => at),
      { page: order.slice(2), next: undefined },
    );
    assert.deepEqual(pageOf(rest, "9", next), { page: [], next: undefined });
  }
  for (const none of ["zzzz", "%%%", "e30"]) assert.throws(() => pageOf(all, "2", none), { code: "invalid" });
  for (const odd of ["0", "-1", "x", "1.5"]) assert.throws(() => pageOf(all, odd, undefined), { code: "invalid" });
});

test("readers see what comes after them; a slow one holds the source, and one that goes does not", async () => {
  const source = new FanOut<number>();
  await source.publish(0); // nobody reads
  const abort = new AbortController();
  const first = source.read(new AbortController().signal);
  source.read(abort.signal); // reads nothing
  let published = 0;
  const publishing = (async () => {
    for (let i = 1; i <= 200; i++) {
      await source.publish(i);
      published = i;
    }
    source.end();
  })();
  assert.equal((await first.next()).value, 1);
  for (let i = 0; i < 5; i++) await new Promise((wake) => setImmediate(wake));
  assert.ok(published < 100, "it waits for the slow reader");
  abort.abort();
  let last = 1;
  for await (const value of first) last = value;
  await publishing;
  assert.equal(last, 200);
  const late: number[] = [];
  for await (const value of source.read(new AbortController().signal)) late.push(value);
  assert.deepEqual(late, []);
});

test("paths are relative to the home directory, which the tilde means", () => {
  const user = { name: "user", uid: 1000, gid: 1000, home: "/home/user" };
  for (const [path, wanted] of [
    ["", "/home/user"],
    ["~", "/home/user"],
    ["~/a", "/home/user/a"],
    ["a/../b", "/home/user/b"],
    ["/etc//passwd", "/etc/passwd"],
  ] as const) {
    assert.equal(pathOf(path, user), wanted);
  }
  assert.throws(() => pathOf("~other/x", user), { code: "invalid" });
  assert.throws(() => pathOf("a\0b", user), { code: "invalid" });
});

test("names of templates: a tag after a colon, and nothing else", () => {
  assert.deepEqual(parseName("my-site"), { name: "my-site", tag: "default" });
  assert.deepEqual(parseName("my-site:v1.2"), { name: "my-site", tag: "v1.2" });
  for (const odd of ["", ":", "a:", "a:b:c", "a/b", "ä", "a b", "../a"])
    assert.throws(() => parseName(odd), { code: "invalid" });
  assert.deepEqual([nameOf("a", "default"), nameOf("a", "b")], ["a", "a:b"]);
});

test("steps of a template: user, shell, copies below their hash; what lies outside is refused", () => {
  const plan = (...steps: Instruction[]): Step[] =>
    planOf(BuildStart.parse({ fromImage: "e2bdev/base", steps }), () => "")
      .stages[0]?.steps(plainConfig())
      .slice(4) ?? [];
  const step = (type: string, args: string[], filesHash?: string): Instruction =>
    Instruction.parse({ type, args, ...(filesHash === undefined ? {} : { filesHash }) });
  assert.deepEqual(planOf(BuildStart.parse({ fromImage: "e2bdev/base" }), () => "").stages[0]?.from, {
    kind: "image",
    reference: "stacyvm/base",
  });
  const [copy] = plan(step("COPY", ["./src/", "/app/", "", "0755"], "ab12"));
  assert.ok(copy?.kind === "copy");
  assert.deepEqual([copy.sources, copy.to, copy.owner, copy.mode], [["ab12/src/"], "/app/", "user", 0o755]);
  assert.equal(copy.links, true);
  assert.deepEqual(
    plan(step("RUN", ["true", "root"]), step("RUN", ["true"])).map((each) =>
      each.kind === "user" ? each.user : each.kind,
    ),
    ["root", "run", "user", "run"],
  );
  const workdirs = plan(step("WORKDIR", ["/a"]), step("USER", ["root"]), step("WORKDIR", ["b"]));
  assert.deepEqual(
    workdirs.flatMap((each) => (each.kind === "workdir" ? [[each.path, each.owner]] : [])),
    [
      ["/a", "user"],
      ["b", "root"],
    ],
  );
  for (const odd of [
    step("COPY", ["/etc/passwd", "x"], "ab"),
    step("COPY", ["a/../../b", "x"], "ab"),
    step("COPY", ["a", "b"]),
  ]) {
    assert.throws(() => plan(odd), { code: "invalid" });
  }
  assert.throws(() => plan(step("HEALTHCHECK", ["x"])), { status: 501 });
  const named = planOf(BuildStart.parse({ fromImage: "constructor" }), () => "");
  assert.deepEqual(named.stages[0]?.from, { kind: "image", reference: "constructor" });
  assert.throws(() => planOf(BuildStart.parse({ fromImage: "a", fromImageRegistry: { type: "aws" } }), () => ""), {
    status: 501,
  });
});

test("files of templates: each owner's own, in folders of their hashes, links among them too", async () => {
  const dir = await mkdtemp(join(tmpdir(), "e2b-"));
  try {
    const files = new TemplateFiles(dir);
    const archive = pack();
    archive.entry({ name: "app/file" }, "content");
    archive.entry({ name: "app/same", type: "link", linkname: "app/file" });
    archive.finalize();
    await files.put("a", "ab", archive.pipe(createGzip()));
    assert.deepEqual(
      [await files.has("a", "ab"), await files.has("b", "ab"), await files.has("a", "cd")],
      [true, false, false],
    );
    let stores = 0;
    const read = (owner: string, ...hashes: string[]) =>
      BuildContext.ofFolders(files.archives(owner, hashes, new AbortController().signal), join(dir, `${stores++}`));
    const outside = pack();
    outside.entry({ name: "a/../../ab/app/file" }, "evil");
    outside.finalize();
    await files.put("a", "cc", outside.pipe(createGzip()));
    await assert.rejects(read("a", "ab", "cc"), { code: "invalid", message: /outside/ });
    const more = pack();
    for (const name of ["app/other", ".dockerignore"]) more.entry({ name }, "*");
    more.finalize();
    await files.put("a", "cd", more.pipe(createGzip()));
    {
      await using context = await read("a", "ab", "ab", "cd");
      assert.deepEqual(
        (await Array.fromAsync(below(context, ""))).map(({ path }) => path),
        [...["ab", "ab/app", "ab/app/file", "ab/app/same"], ...["cd", "cd/.dockerignore", "cd/app", "cd/app/other"]],
      );
      const same = context.get("ab/app/same");
      assert.ok(same !== undefined);
      assert.equal((await context.content(same, 100)).toString(), "content");
    }
    await assert.rejects(read("b", "ab"), { code: "invalid" });
    await files.put("a", "ef", Readable.from([Buffer.from("no archive, and longer than nothing".repeat(40))]));
    await assert.rejects(read("a", "ef"), { code: "corrupt" });
    // Keys that hold for all members, which each of these would be given anew.
    const keys = Array.from({ length: 30_000 }, (_, i) => `15 K${String(i).padStart(8, "0")}=1\n`).join("");
    const many = tar([{ path: "g", type: "g", content: keys }, ...Array(100).fill({ path: "f", pax: { a: "1" } })]);
    await files.put("a", "fa", Readable.from([many]));
    await assert.rejects(read("a", "fa"), { code: "corrupt", message: /too many extended records/ });
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("files of templates: one bound for all of an owner's, also of those that are on their way at once", async () => {
  const dir = await mkdtemp(join(tmpdir(), "e2b-"));
  try {
    const piece = Buffer.alloc(1024);
    const files = new TemplateFiles(dir, { maxBytes: 10 * piece.length, maxFiles: 4 });
    const some = (pieces: number): Readable => Readable.from(Array.from({ length: pieces }, () => piece));
    await files.put("c", "01", some(6));
    await assert.rejects(files.put("c", "02", some(6)), { code: "limit" });
    await files.put("d", "02", some(6));
    assert.deepEqual([await files.has("c", "01"), await files.has("c", "02")], [true, false]);
    // One in place of another: it has room when the one before is gone, and is counted once.
    await files.put("d", "02", some(4));
    await files.put("d", "03", some(6));
    // Eight senders, of which each waits for the others before it sends on: together they have what one would.
    let [waiting, went] = [8, Promise.withResolvers<void>()];
    async function* together(): AsyncGenerator<Buffer> {
      for (let i = 0; i < 9; i++) {
        yield piece;
        if (i > 0) continue;
        waiting -= 1;
        if (waiting === 0) went.resolve();
        await went.promise;
      }
    }
    const many = new TemplateFiles(join(dir, "many"), { maxBytes: 10 * piece.length, maxFiles: 100 });
    const sent = await Promise.allSettled(Array.from({ length: 8 }, (_, i) => many.put("e", `1${i}`, together())));
    const held = sent.filter(({ status }) => status === "fulfilled").length;
    assert.ok(held <= 1, JSON.stringify(sent));
    for (const { reason } of sent as PromiseRejectedResult[])
      if (reason !== undefined) assert.equal(reason.code, "limit");
    const left = (await readdir(join(dir, "many", "e2b-files"), { recursive: true })).filter((name) => /\./.test(name));
    assert.equal(left.length, held, "nothing half-sent stays");
    // What did not come takes no room.
    await many.put("e", "20", some(10 - 9 * held));
    // As many files, whatever their size.
    for (const hash of ["a1", "a2", "a3", "a4"]) await files.put("f", hash, Readable.from([Buffer.from("x")]));
    await assert.rejects(files.put("f", "a5", some(1)), { code: "limit", message: /too many/ });
    await files.put("f", "a4", some(1));
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("files of templates: of a server that was killed stays what was whole, and what nobody uses goes after a day, whoever calls", async () => {
  const dir = await mkdtemp(join(tmpdir(), "e2b-"));
  try {
    let now = Date.now();
    const there = async () =>
      (await readdir(join(dir, "e2b-files"), { recursive: true })).filter((name) => name.includes(".")).length;
    const before = new TemplateFiles(dir, { now: () => now });
    await before.put("a", "01", Readable.from([Buffer.alloc(600)]));
    const stuck = new PassThrough();
    stuck.write(Buffer.alloc(10));
    const putting = before.put("a", "02", stuck);
    while ((await there()) < 2) await new Promise(setImmediate);
    // Not told of the end, as a process that is killed.
    const after = new TemplateFiles(dir, { now: () => now, maxBytes: 1_000 });
    assert.deepEqual([await after.has("a", "01"), await after.has("a", "02"), await there()], [true, false, 1]);
    await assert.rejects(after.put("a", "03", Readable.from([Buffer.alloc(600)])), { code: "limit" }, "it is counted");
    now += 23 * 3_600_000;
    assert.ok(await after.has("a", "01"));
    now += 23 * 3_600_000;
    await after.sweep();
    assert.ok(await after.has("a", "01"), "its last use counts");
    now += 25 * 3_600_000;
    await after.sweep();
    assert.deepEqual([await after.has("a", "01"), await there()], [false, 0]);
    stuck.destroy();
    await assert.rejects(putting);
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("builds: by their owner's images and policies, forgotten for nobody else's", async () => {
  const seen: unknown[] = [];
  const own = {
    scratch: async () => {
      throw new Error("no room for it");
    },
  };
  const builds = new TemplateBuilds(
    {
      images: {
        of: (owner: unknown) => {
          seen.push(owner);
          return own;
        },
      },
      policies: {
        checkImage: (owner: string, image: string) => {
          if (image === "no/such:1") throw new StacyError("permission", `not for ${owner}`);
        },
      },
      stopping: new AbortController().signal,
      log: { info: () => {} },
    } as never,
    new TemplateFiles("/nonexistent"),
  );
  const request = { name: "n", tags: ["default"], vcpus: 1, memoryMiB: 256 };
  const build = builds.request("a", "t", request);
  await assert.rejects(builds.start(build, BuildStart.parse({ fromImage: "no/such:1" }), {} as never), {
    code: "permission",
  });
  await builds.start(build, BuildStart.parse({ fromImage: "base" }), {} as never);
  while (build.endedAt === undefined) await new Promise(setImmediate);
  assert.deepEqual(
    [seen, build.status, build.reason?.message],
    [[{ name: "a", templates: true }], "error", "no room for it"],
  );
  for (let i = 0; i < 60; i++) builds.request("b", "t", request);
  assert.equal(builds.find("a", "t", build.id), build);
  assert.equal(builds.of("b", "t").length, 50);
});

test("metrics of an interval: the present lies in it, or not", () => {
  const now = 1_000_000_000;
  for (const [start, end, wanted] of [
    [undefined, undefined, true],
    ["999990", undefined, true],
    ["999990", "999998", true],
    ["999990", "999994", false],
    ["1000004", undefined, true],
    ["1000006", undefined, false],
  ] as const)
    assert.equal(isNow(start, end, now), wanted, `${start} ${end}`);
  assert.throws(() => isNow("x", undefined, now), { code: "invalid" });
});
