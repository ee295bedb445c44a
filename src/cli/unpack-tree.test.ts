/** Archives of a hostile guest into a directory of this host: nothing outside of the target changes, not even a mode or a time. */
import assert from "node:assert/strict";
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import fc from "fast-check";
import { type Member, tar } from "../../test/images-support.ts";
import { StacyError } from "../host/error.ts";
import { archiveOf } from "../images/directory.ts";
import { noteLeftOut } from "./commands/cp.ts";
import { type LeftOut, unpackTree } from "./unpack-tree.ts";

let dir: string;
let outside: string;
let target: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "unpack-"));
  outside = join(dir, "outside");
  target = join(dir, "work", "target");
  await mkdir(join(outside, "a"), { recursive: true });
  await mkdir(join(dir, "work"));
  await chmod(join(outside, "a"), 0o700);
  await writeFile(join(outside, "victim"), "untouched", { mode: 0o640 });
});
afterEach(() => rm(dir, { recursive: true, force: true }));

/** Names, kinds, modes, times and contents of all that is below. */
async function picture(path: string): Promise<string[]> {
  const stat = await lstat(path);
  const self = `${path} ${stat.mode.toString(8)} ${stat.mtimeMs} ${stat.nlink}`;
  if (stat.isSymbolicLink()) return [`${self} -> ${await readlink(path)}`];
  if (!stat.isDirectory()) return [`${self} ${await readFile(path, "latin1")}`];
  const below = await Promise.all((await readdir(path)).sort().map((name) => picture(join(path, name))));
  return [self, ...below.flat()];
}

function unpack(members: Member[]): Promise<LeftOut> {
  return unpackTree(target, new Blob([tar(members) as Uint8Array<ArrayBuffer>]).stream());
}

async function unharmed(members: Member[]): Promise<StacyError | undefined> {
  const before = await picture(outside);
  let failure: unknown;
  await unpack(members).catch((error: unknown) => {
    failure = error;
  });
  assert.deepEqual(await picture(outside), before);
  assert.deepEqual(
    (await readdir(join(dir, "work"))).filter((name) => name !== "target"),
    [],
    "half a tree is left",
  );
  assert.ok(failure === undefined || failure instanceof StacyError, String(failure));
  return failure;
}

const dirEntry = (path: string, mode = 0o755): Member => ({ path, type: "5", mode });
const link = (path: string, to: string): Member => ({ path, type: "2", link: to });

test("a tree arrives with contents, modes, times and links", async () => {
  await unpack([
    dirEntry("./"),
    dirEntry("d/", 0o555),
    { path: "d/x", content: "one", mode: 0o755, mtime: 1_000_000 },
    link("d/l", "x"),
    { path: "d/h", type: "1", link: "d/x" },
    { path: "deep/er/y", content: "two", mode: 0o4666 },
  ]);
  assert.equal(await readFile(join(target, "d/l"), "utf8"), "one");
  const x = await lstat(join(target, "d/x"));
  assert.deepEqual([x.mode & 0o777, x.mtimeMs, x.nlink], [0o755 & ~process.umask(), 1_000_000_000, 2]);
  assert.equal((await lstat(join(target, "d"))).mode & 0o777, 0o555 & ~process.umask());
  assert.equal((await lstat(join(target, "deep/er/y"))).mode & 0o7777, 0o666 & ~process.umask());
});

test("names of any bytes and times before 1970 arrive as they were", async () => {
  const from = join(dir, "from");
  await mkdir(from);
  const [odd, old] = [Buffer.from("/caf\xe9\xff", "latin1"), new Date(-100_000_000_000)];
  await writeFile(Buffer.concat([Buffer.from(from), odd]), "odd");
  await utimes(Buffer.concat([Buffer.from(from), odd]), old, old);
  await unpackTree(target, ReadableStream.from(archiveOf(from, { asRoot: false })) as ReadableStream<Uint8Array>);
  const path = Buffer.concat([Buffer.from(target), odd]);
  assert.equal(await readFile(path, "utf8"), "odd");
  assert.equal((await lstat(path)).mtimeMs, old.getTime());
});

test("a target and a source whose own names are no UTF-8, below others that are none either", async () => {
  const from = Buffer.from(`${dir}/from\xfe`, "latin1");
  await mkdir(from);
  await writeFile(Buffer.concat([from, Buffer.from("/x")]), "odd");
  for (const _ of ["new", "there"]) {
    const archive = archiveOf(`${dir}/from\udcfe`, { asRoot: false });
    await unpackTree(`${dir}/above\udcff/caf\udce9`, ReadableStream.from(archive) as ReadableStream<Uint8Array>);
  }
  const above = Buffer.from(`${dir}/above\xff`, "latin1");
  assert.deepEqual(await readdir(above, "latin1"), ["caf\xe9"]);
  assert.equal(await readFile(Buffer.concat([above, Buffer.from("/caf\xe9/x", "latin1")]), "utf8"), "odd");
  await assert.rejects(
    unpackTree(`${dir}/above\udcff/other`, new Blob([tar([{ path: "../x" }]) as Uint8Array<ArrayBuffer>]).stream()),
  );
  assert.deepEqual(await readdir(above, "latin1"), ["caf\xe9"], "half a tree is left");
});

test("a link that an earlier copy left is replaced and not followed", async () => {
  await unpack([link("d", outside), link("victim", join(outside, "victim"))]);
  const failure = await unharmed([
    dirEntry("d/", 0o777),
    { path: "d/new", content: "x" },
    { path: "victim", content: "x" },
  ]);
  assert.equal(failure, undefined);
  assert.equal(await readFile(join(target, "d/new"), "utf8"), "x");
  assert.ok((await lstat(join(target, "victim"))).isFile());
});

test("a target that is itself a link is replaced and not followed", async () => {
  await symlink(outside, target);
  assert.equal(await unharmed([{ path: "new", content: "x" }]), undefined);
  assert.ok((await lstat(target)).isDirectory());
});

for (const [what, to] of [
  ["an absolute link", () => outside],
  ["a relative link", () => "../../outside"],
] as const) {
  test(`names behind ${what} of the same archive stay inside`, async () => {
    for (const behind of [
      { path: "l/new", content: "x" },
      { path: "l/victim", content: "x" },
      dirEntry("l/a", 0o777),
      link("l/m", "x"),
      { path: "l/h", type: "1", link: "l/victim" },
    ]) {
      await unharmed([link("l", to()), behind]);
      await unharmed([{ path: "k/x", content: "x" }, link("k/l", to()), link("l", "k/l"), { ...behind }]);
      await rm(target, { recursive: true, force: true });
    }
  });
}

test("names and hard links that lead out are refused, and nothing is left", async () => {
  for (const members of [
    [{ path: "../outside/new", content: "x" }],
    [{ path: "/etc/x", content: "x" }],
    [{ path: "a/../../outside/new", content: "x" }],
    [{ path: "h", type: "1", link: "../outside/victim" }],
    [link("l", outside), { path: "h", type: "1", link: "l/victim" }],
  ] as Member[][]) {
    assert.equal((await unharmed(members))?.code, "corrupt");
    await assert.rejects(lstat(target), { code: "ENOENT" });
  }
});

test("adding to a directory keeps what is there, and its modes", async () => {
  await mkdir(join(target, "d"), { recursive: true });
  await chmod(join(target, "d"), 0o711);
  await writeFile(join(target, "d/mine"), "mine");
  await unpack([dirEntry("d/", 0o777), { path: "d/x", content: "new" }]);
  assert.equal((await lstat(join(target, "d"))).mode & 0o777, 0o711);
  assert.deepEqual((await readdir(join(target, "d"))).sort(), ["mine", "x"]);
});

test("a directory of the user is not replaced by something else", async () => {
  await mkdir(join(target, "d"), { recursive: true });
  assert.equal((await unharmed([link("d", outside)]))?.code, "conflict");
  assert.ok((await lstat(join(target, "d"))).isDirectory());
});

test("an extended header that claims gigabytes is refused before it is read", async () => {
  assert.equal((await unharmed([{ path: "x", type: "x", content: "", size: 8 * 2 ** 30 }]))?.code, "corrupt");
});

test("no archive at all changes anything outside, whatever lies in the target", async () => {
  const name = fc
    .array(fc.constantFrom("a", "b", "..", ".", "l"), { minLength: 1, maxLength: 3 })
    .map((parts) => parts.join("/"));
  const where = fc.constantFrom(
    "a",
    "b",
    "..",
    "../..",
    "../../outside",
    "../outside",
    "l",
    "/",
    "OUTSIDE",
    "OUTSIDE/victim",
  );
  const member = fc.record({
    path: name,
    type: fc.constantFrom("0", "1", "2", "5"),
    link: where,
    mode: fc.constantFrom(0o777, 0o4755, 0o000),
  });
  const archive = fc.array(member, { minLength: 1, maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(archive, archive, async (first, second) => {
      const real = (members: typeof first): Member[] =>
        members.map((each) => ({
          ...each,
          content: each.type === "0" ? "x" : "",
          link: each.link.replace("OUTSIDE", outside),
        }));
      await unharmed(real(first));
      await unharmed(real(second));
      await rm(target, { recursive: true, force: true });
    }),
    { numRuns: Number(process.env.STACYVM_FUZZ ?? 60) },
  );
});

test("a file of a few bytes that is said to be a thousand gigabytes is refused, and names without end", async () => {
  const holes = { path: "x", pax: { "GNU.sparse.size": String(2 ** 40) } };
  assert.equal((await unharmed([{ path: "a", content: "a" }, holes]))?.code, "corrupt");
  const link = tar([{ path: "l", type: "2", link: "t".repeat(4_000) }]).subarray(0, -1024);
  let sent = 0;
  const many = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      if (sent++ < 100_000) controller.enqueue(Buffer.from(link));
      else controller.close();
    },
  });
  await assert.rejects(unpackTree(target, many), { code: "limit" });
  assert.ok(sent < 80_000, String(sent));
  assert.deepEqual(await readdir(join(dir, "work")), []);
});

test("what is left out is counted and warned of: device nodes and FIFOs, and bits that would be the user's here", async (t) => {
  const left = await unpack([
    ...[
      { path: "null", type: "3", major: 1, minor: 3 },
      { path: "disk", type: "4" },
      { path: "pipe", type: "6" },
    ],
    ...[
      { path: "su", content: "x", mode: 0o4755 },
      { path: "sticky", type: "5", mode: 0o1777 },
    ],
    ...[
      { path: "plain", content: "x", mode: 0o755 },
      { path: "link", type: "2", link: "plain", mode: 0o777 },
    ],
  ]);
  assert.deepEqual(left, { nodes: 3, bits: 2 });
  assert.deepEqual((await readdir(target)).sort(), ["link", "plain", "sticky", "su"]);
  assert.equal((await lstat(join(target, "su"))).mode & 0o7000, 0);
  const written: string[] = [];
  t.mock.method(process.stderr, "write", (text: string) => written.push(text) > 0);
  noteLeftOut(left);
  noteLeftOut({ nodes: 0, bits: 0 });
  t.mock.restoreAll();
  assert.match(written.join(""), /^warning: not copied: 3 device nodes or FIFOs\n.*sticky bit: 2 of .*\n$/);
});
