import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type Member, tar } from "../../test/images-support.ts";
import { buildBase, DEFAULT_LIMITS, type Layer } from "./base.ts";
import { ErofsBase } from "./erofs-reader.ts";

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), "erofs-reader-"));
});
after(() => rm(dir, { recursive: true, force: true }));

const layer = (members: Member[]): Layer => ({
  whiteouts: true,
  async *open() {
    yield tar(members);
  },
});
const BIG = randomBytes(3 << 20);
const LOWER: Member[] = [
  ...Array.from({ length: 3000 }, (_, i) => ({ path: `many/name-${"x".repeat(i % 90)}-${i}`, content: `${i}` })),
  { path: "big", content: BIG, mode: 0o4755, uid: 70_000, gid: 80_000 },
  { path: "big-too", type: "1", link: "big" },
  { path: "zeros", content: Buffer.alloc(1 << 20) },
  { path: "end", content: BIG.subarray(0, 4096 + 100) },
  { path: "blocks", content: BIG.subarray(0, 8192) },
  { path: "empty", content: "" },
  { path: "link", type: "2", link: "y".repeat(3000) },
  { path: "tty", type: "3", major: 4, minor: 300, mode: 0o620 },
  { path: "disk", type: "4", major: 259, minor: 70_000 },
  { path: "pipe", type: "6" },
  { path: "ümlaut", content: "u", pax: { mtime: "1234.5" } },
  { path: "deep/er/and/deeper", content: "d" },
  {
    path: "capable",
    content: "c",
    pax: { "SCHILY.xattr.security.capability": Buffer.from([1, 0, 0, 2]), "SCHILY.xattr.user.note": "n" },
  },
];
const UPPER: Member[] = [
  { path: ".wh.blocks", content: "" },
  { path: "end", content: "replaced" },
  { path: "deep/.wh..wh..opq", content: "" },
  { path: "deep/new", content: "new" },
  { path: "big-three", type: "1", link: "big" },
];

/** Everything in a base, contents included. */
async function listing(path: string): Promise<unknown[]> {
  await using base = await ErofsBase.open(path);
  const tree = await base.tree(DEFAULT_LIMITS);
  const all: [string, unknown][] = [];
  for (const [name, node] of tree.nodes()) {
    if (node.type !== "file") {
      all.push([name, node.type === "directory" ? { ...node, children: [...node.children.keys()].sort() } : node]);
      continue;
    }
    const { data, ...rest } = node;
    const whole = data.size - (data.tail?.length ?? 0);
    const parts: Buffer[] = [];
    for await (const chunk of base.read(data.block * 4096, whole)) parts.push(Buffer.from(chunk));
    all.push([
      name,
      { ...rest, content: Buffer.concat([...parts, ...(data.tail ? [data.tail] : [])]).toString("hex") },
    ]);
  }
  return all.sort(([a], [b]) => (a < b ? -1 : 1));
}

test("a base that is read and written again is the same, byte for byte", async () => {
  const [first, again] = [join(dir, "first"), join(dir, "again")];
  await buildBase(first, [layer(LOWER)]);
  await buildBase(again, [], { below: first });
  // Where contents lie differs: they are copied in the order of the tree.
  assert.deepEqual(await listing(again), await listing(first));
  const third = join(dir, "third");
  await buildBase(third, [], { below: again });
  assert.ok((await readFile(third)).equals(await readFile(again)));
});

test("a layer above a finished base gives what both layers at once give", async () => {
  const [lower, derived, direct] = [join(dir, "lower"), join(dir, "derived"), join(dir, "direct")];
  await buildBase(lower, [layer(LOWER)]);
  await buildBase(derived, [layer(UPPER)], { below: lower });
  await buildBase(direct, [layer(LOWER), layer(UPPER)]);
  const found = await listing(derived);
  assert.deepEqual(found, await listing(direct));
  assert.ok(found.length > 3000);
});

test("what is no base of ours is refused", async () => {
  await using base = await ErofsBase.open(process.execPath);
  await assert.rejects(base.tree(DEFAULT_LIMITS), /not a base/);
});
