import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { countTurns } from "../../test/count-turns.ts";
import { tar } from "../../test/images-support.ts";
import { StacyError } from "../host/error.ts";
import { BuildContext } from "./context.ts";
import { type CopyStep, copyDigest } from "./copy.ts";
import { below, follow, matching } from "./files.ts";

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), "build-context-"));
});
after(() => rm(dir, { recursive: true, force: true }));

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

let stores = 0;
const ofTar = (bytes: Buffer): Promise<BuildContext> => BuildContext.ofTar(once(bytes), join(dir, `store-${stores++}`));
const leads = (context: BuildContext, path: string): string | undefined => {
  const steps = follow(context, path);
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
};
const copy = (...sources: string[]): CopyStep => ({ kind: "copy", sources, to: "/x/", text: "", line: 1 });

test("a directory without what .dockerignore names; patterns; contents", async () => {
  const tree = join(dir, "tree");
  await mkdir(join(tree, "src/deep"), { recursive: true });
  await mkdir(join(tree, "node_modules/a"), { recursive: true });
  await writeFile(join(tree, "src/ä.txt"), "umlaut");
  await writeFile(join(tree, "src/deep/b.txt"), "b");
  await writeFile(join(tree, "src/deep/keep.log"), "kept");
  await writeFile(join(tree, "src/x.log"), "log");
  await writeFile(join(tree, "node_modules/a/index.js"), "js");
  await symlink("deep/b.txt", join(tree, "src/link"));
  await writeFile(join(tree, ".dockerignore"), "# comment\nnode_modules\n**/*.log\n!src/deep/keep.log\n");
  await using context = await BuildContext.ofDirectory(tree, join(dir, "store-tree"));
  assert.deepEqual(
    (await Array.fromAsync(below(context, ""))).map(({ path }) => path),
    [".dockerignore", "src", "src/deep", "src/deep/b.txt", "src/deep/keep.log", "src/link", "src/ä.txt"],
  );
  assert.deepEqual(await matching(context, "src/*.txt"), ["src/ä.txt"]);
  assert.deepEqual(await matching(context, "./src/deep/"), ["src/deep"]);
  assert.deepEqual(await matching(context, "nothing"), []);
  const entry = context.get("src/ä.txt");
  assert.ok(entry);
  assert.equal((await context.content(entry, 1_000)).toString(), "umlaut");
  assert.equal(context.get("src/link")?.target, "deep/b.txt");
});

test("a directory that is ignored, and something in it is not, keeps its mode and its time", async () => {
  const tree = join(dir, "around");
  await mkdir(join(tree, "d/sub"), { recursive: true });
  await mkdir(join(tree, "d/other"));
  await writeFile(join(tree, "d/sub/keep"), "kept");
  await writeFile(join(tree, "d/z"), "ignored");
  await writeFile(join(tree, ".dockerignore"), "d\n!d/sub/keep\n");
  await chmod(join(tree, "d"), 0o700);
  await chmod(join(tree, "d/sub"), 0o711);
  for (const name of ["d/sub", "d"]) await utimes(join(tree, name), 981_158_400, 981_158_400);
  await using context = await BuildContext.ofDirectory(tree, join(dir, "store-around"));
  await using archived = await ofTar(
    tar([
      { path: "d", type: "5", mode: 0o700 },
      { path: "d/other", type: "5", mode: 0o700 },
      { path: "d/sub", type: "5", mode: 0o711 },
      { path: "d/sub/keep", content: "kept" },
      { path: ".dockerignore", content: "d\n!d/sub/keep\n" },
    ]),
  );
  for (const one of [context, archived]) {
    assert.deepEqual(
      (await Array.fromAsync(below(one, ""))).map(({ path, mode }) => `${path} ${mode.toString(8)}`),
      [".dockerignore 644", "d 700", "d/sub 711", "d/sub/keep 644"],
    );
    assert.equal(one.get("d/other"), undefined);
  }
  assert.equal(context.get("d")?.mtime, 981_158_400);
});

test("an archive's own .dockerignore holds wherever in it it lies, hard links are files, names cannot leave", async () => {
  await using context = await ofTar(
    tar([
      { path: "./secret", content: "s" },
      { path: "./a", content: "same" },
      { path: "b", type: "1", link: "./a" },
      { path: "pipe", type: "6", mode: 0o666 },
      { path: "null", type: "3", major: 1, minor: 3 },
      { path: "zero", type: "1", link: "null" },
      { path: ".dockerignore", content: "secret\n" },
    ]),
  );
  assert.deepEqual(
    (await Array.fromAsync(below(context, ""))).map(({ path }) => path),
    [".dockerignore", "a", "b", "null", "pipe", "zero"],
  );
  const kinds = ["null", "zero", "pipe", "a"].map((name) => context.get(name));
  assert.deepEqual(
    kinds.map((file) => [file?.type, file?.major, file?.minor]),
    [
      ["character", 1, 3],
      ["character", 1, 3],
      ["fifo", 0, 0],
      ["file", 0, 0],
    ],
  );
  const b = context.get("b");
  assert.ok(b);
  assert.equal((await context.content(b, 1_000)).toString(), "same");
  await assert.rejects(ofTar(tar([{ path: "../out", content: "x" }])), /outside/);
  await assert.rejects(ofTar(tar([{ path: "lost", type: "1", link: "gone" }])), { code: "corrupt", message: /lost/ });
  await assert.rejects(matching(context, "../a"), /outside/);
});

test("names keep their bytes, of a directory as of an archive; patterns and rules mean them", async () => {
  const tree = join(dir, "bytes");
  const at = (name: string): Buffer => Buffer.concat([Buffer.from(`${tree}/`), Buffer.from(name, "latin1")]);
  await mkdir(at("d\xff"), { recursive: true });
  for (const name of ["c\xe8", "c\xe9", "d\xff/x", "no\xe9"]) await writeFile(at(name), name);
  await symlink(Buffer.from("c\xe9", "latin1"), at("link"));
  await writeFile(at(".dockerignore"), Buffer.from("no\xe9\n.dockerignore\n", "latin1"));
  const names = ["c\udce8", "c\udce9", "d\udcff", "d\udcff/x", "link"];
  const member = (path: string): { path: string; pax: Record<string, Buffer>; content: string } => ({
    ...{ path: "odd", content: path },
    pax: { path: Buffer.from(path, "latin1") },
  });
  const packed = tar([
    ...["c\xe8", "c\xe9", "d\xff/x", "no\xe9"].map(member),
    { path: "link", type: "2", pax: { linkpath: Buffer.from("c\xe9", "latin1") } },
    { path: ".dockerignore", content: Buffer.from("no\xe9\n.dockerignore\n", "latin1") },
  ]);
  await using here = await BuildContext.ofDirectory(tree, join(dir, "store-bytes"));
  await using sent = await ofTar(packed);
  for (const context of [here, sent]) {
    assert.deepEqual(
      (await Array.fromAsync(below(context, ""))).map(({ path }) => path),
      names,
    );
    assert.deepEqual(await matching(context, "c?"), names.slice(0, 2));
    assert.deepEqual(await matching(context, "[c\udce9]\udce9"), ["c\udce9"]);
    assert.equal(leads(context, "link"), "c\udce9");
    const file = context.get("c\udce9");
    assert.ok(file !== undefined);
    assert.equal((await context.content(file, 10)).toString(), "c\xe9");
  }
  assert.notEqual(await copyDigest(copy("c\udce8"), here), await copyDigest(copy("c\udce9"), here));
});

test("a copy's digest is of names, modes and contents, not of times", async () => {
  const digest = async (...members: Parameters<typeof tar>[0]): Promise<string> => {
    await using context = await ofTar(tar(members));
    return copyDigest(copy("d"), context);
  };
  const file = { path: "d/f", content: "x", mode: 0o644, mtime: 1 };
  const one = await digest(file);
  assert.equal(await digest({ ...file, mtime: 2 }, { path: "other", content: "y" }), one);
  for (const changed of [{ content: "y" }, { mode: 0o600 }, { path: "d/g" }, { type: "2", link: "x", content: "" }]) {
    assert.notEqual(await digest({ ...file, ...changed }), one, JSON.stringify(changed));
  }
  await using context = await ofTar(tar([file]));
  await assert.rejects(
    copyDigest(copy("d", "missing"), context),
    (error: unknown) => error instanceof StacyError && error.code === "not-found",
  );
});

test("directories that no entry names count, and so does how deep they are", async () => {
  const limit = { code: "limit", remedy: /dockerignore/ };
  await assert.rejects(ofTar(tar([{ path: `${"d/".repeat(300)}x`, content: "" }])), limit);
  const deep = Array.from({ length: 40 }, (_, i) => ({ path: `${i}/${"d/".repeat(200)}x`, content: "" }));
  await using context = await ofTar(tar(deep));
  assert.equal((await Array.fromAsync(below(context, ""))).length, 40 * 202);
});

test("an archive of very many entries leaves turns to everybody else", async () => {
  const members = tar(Array.from({ length: 50 }, (_, i) => ({ path: `f${i}`, content: "" }))).subarray(0, -1024);
  async function* many(): AsyncGenerator<Buffer> {
    for (let i = 0; i < 200; i++) yield members;
  }
  const ended = countTurns();
  const begun = performance.now();
  await using context = await BuildContext.ofTar(many(), join(dir, `store-${stores++}`));
  const ms = performance.now() - begun;
  const turns = ended();
  assert.equal((await context.names("")).length, 50);
  assert.ok(turns > ms / 50, `${turns} turns in ${ms} ms`);
});

test("a file of rules or steps that is longer than any is refused before it is read", async () => {
  await assert.rejects(ofTar(tar([{ path: ".dockerignore", content: "a\n".repeat(600_000) }])), { code: "limit" });
  await using context = await ofTar(tar([{ path: "long", content: "0123456789" }]));
  const long = context.get("long");
  assert.ok(long !== undefined);
  await assert.rejects(context.content(long, 9), { code: "limit" });
});

test("a name that leads through links costs what a path does, however long their targets are", async () => {
  const deep = Array.from({ length: 250 }, () => "d").join("/");
  const round = "d/../".repeat(780);
  const links = Array.from({ length: 40 }, (_, i) => ({
    ...{ path: `${deep}/l${i}`, type: "2" },
    link: `${round}${i === 39 ? "d" : `l${i + 1}`}`,
  }));
  const names = Array.from({ length: 20 }, (_, i) => ({ path: `s${i}`, type: "2", link: `${deep}/l1` }));
  const sound = [
    { path: "a/b/c/", type: "5" },
    { path: "x", type: "2", link: "/a/../a/b/./c" },
    { path: "a/y", type: "2", link: "../x/../../.." },
    { path: "a/z", type: "2", link: "../x/d" },
    { path: "loop", type: "2", link: "loop" },
  ];
  await using context = await ofTar(tar([{ path: `${deep}/d/`, type: "5" }, ...links, ...names, ...sound]));
  const { user } = process.threadCpuUsage();
  for (const { path } of names) assert.equal(leads(context, path), undefined);
  const ms = (process.threadCpuUsage().user - user) / 1_000;
  // Every component of every target, each with all that lies above it, is 150 ms a name.
  assert.ok(ms < 1_000, `${ms} ms`);
  assert.deepEqual(
    ["x", "a/y", "a/z", "loop", "x/", "a/b/../../x", ""].map((path) => leads(context, path)),
    ["a/b/c", "", undefined, undefined, "a/b/c", "a/b/c", ""],
  );
});

test("links that lead to the same files again and again: a copy means so many and no more", async () => {
  const files = Array.from({ length: 60 }, (_, i) => ({ path: `d/${i}`, content: "" }));
  const links = Array.from({ length: 90 }, (_, i) => ({ path: `l/${i}`, type: "2", link: "../d" }));
  await using context = await ofTar(tar([...files, ...links]));
  await assert.rejects(copyDigest(copy("l/*"), context, 5_000), { code: "limit", message: /one copy means/ });
  await assert.rejects(matching(context, "l/*/*", 5_000), { code: "limit" });
});
