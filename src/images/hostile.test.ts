/** Archives made to do harm: each is refused or made harmless, and nothing appears outside the one file that is written. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { countTurns } from "../../test/count-turns.ts";
import { type Member, tar } from "../../test/images-support.ts";
import { ARCHIVE_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import { buildBase, type Layer } from "./base.ts";
import { layerFile } from "./layer.ts";
import { readTar } from "./tar.ts";
import { FileTree, NO_XATTRS } from "./tree.ts";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "hostile-"));
  await mkdir(join(dir, "out"));
  await writeFile(join(dir, "victim"), "untouched");
});
afterEach(() => rm(dir, { recursive: true, force: true }));

/** Builds the layers in a directory of their own. @returns the tree, after checking what is on disk */
async function build(archives: Buffer[], limits = {}): Promise<FileTree> {
  const layers: Layer[] = archives.map((archive) => ({
    whiteouts: true,
    async *open() {
      yield archive;
    },
  }));
  let tree: FileTree | undefined;
  const path = join(dir, "out", "base.img");
  const before = await snapshot();
  let failure: unknown;
  await buildBase(path, layers, {
    limits,
    edit: (built) => {
      tree = built;
    },
  }).catch((error) => {
    failure = error;
  });
  assert.deepEqual(await snapshot(), before, "something was written outside");
  assert.deepEqual(await readdir(join(dir, "out")), failure === undefined ? ["base.img"] : []);
  if (failure !== undefined) throw failure;
  assert.ok(tree);
  return tree;
}

async function snapshot(): Promise<string[]> {
  return [...(await readdir(dir)), await readFile(join(dir, "victim"), "utf8")];
}

async function refused(code: string, words: RegExp, archives: Buffer[], limits = {}): Promise<void> {
  await assert.rejects(build(archives, limits), (error) => {
    assert.ok(error instanceof StacyError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, words);
    return true;
  });
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

const dirEntry = (path: string): Member => ({ path, type: "5", mode: 0o755 });

describe("hostile archives are refused:", () => {
  const cases: Record<string, [code: string, words: RegExp, archives: Buffer[], limits?: object]> = {
    "a path that climbs out": ["corrupt", /leaves the image/, [tar([{ path: "../victim", content: "x" }])]],
    "a path that climbs out further in": ["corrupt", /leaves/, [tar([{ path: "a/../../victim", content: "x" }])]],
    "a climbing path in an extended header": [
      "corrupt",
      /leaves/,
      [tar([{ path: "harmless", content: "x", pax: { path: "../../victim" } }])],
    ],
    "a hard link to a path outside": ["corrupt", /leaves/, [tar([{ path: "l", type: "1", link: "../victim" }])]],
    "a hard link to an absolute path that the image lacks": [
      "corrupt",
      /no file of the image/,
      [tar([{ path: "l", type: "1", link: "/etc/shadow" }])],
    ],
    "a hard link to a directory": ["corrupt", /no file/, [tar([dirEntry("d/"), { path: "l", type: "1", link: "d" }])]],
    "a hard link to itself": ["corrupt", /no file/, [tar([{ path: "l", type: "1", link: "l" }])]],
    "a whiteout of `..`": ["corrupt", /no name/, [tar([{ path: "a/.wh..." }])]],
    "a whiteout of `.`": ["corrupt", /no name/, [tar([{ path: "a/.wh.." }])]],
    "a whiteout of nothing": ["corrupt", /no name/, [tar([{ path: "a/.wh." }])]],
    "a whiteout outside": ["corrupt", /leaves/, [tar([{ path: "../.wh.victim" }])]],
    "symbolic links in a circle as a parent": [
      "corrupt",
      /too many symbolic links/,
      [
        tar([
          { path: "a", type: "2", link: "b" },
          { path: "b", type: "2", link: "a" },
          { path: "a/x", content: "x" },
        ]),
      ],
    ],
    "symbolic links that double at each step": [
      "corrupt",
      /too many symbolic links|too deep/,
      [
        tar([
          dirEntry("d/"),
          ...Array.from({ length: 60 }, (_, i) => ({
            path: `l${i}`,
            type: "2",
            link: i === 0 ? "d" : `l${i - 1}/../l${i - 1}`,
          })),
          { path: "l59/x", content: "x" },
        ]),
      ],
    ],
    "a file as a directory": [
      "corrupt",
      /no directory/,
      [
        tar([
          { path: "f", content: "x" },
          { path: "f/x", content: "x" },
        ]),
      ],
    ],
    "the root as a symbolic link": ["corrupt", /the root is/, [tar([{ path: "./", type: "2", link: "/" }])]],
    "a symbolic link to nothing": ["corrupt", /without a target/, [tar([{ path: "l", type: "2" }])]],
    "a NUL in a path": ["corrupt", /NUL/, [tar([{ path: "x", pax: { path: "a\0b" } }])]],
    "a name of 256 bytes": ["corrupt", /255/, [tar([{ path: "n".repeat(256), content: "x" }])]],
    "a path of 5,000 bytes": ["corrupt", /4096/, [tar([{ path: "p/".repeat(2500), type: "5" }])]],
    "a wrong checksum": ["corrupt", /checksum/, [tar([{ path: "x", badChecksum: true }])]],
    "a size that is no number": ["corrupt", /octal/, [tar([{ path: "x", size: "99999999999" }])]],
    "a size beyond the archive": ["corrupt", /ends in the middle/, [tar([{ path: "x", content: "x", size: 1 << 20 }])]],
    "a size of 8 EiB": [
      "limit",
      /more than is allowed/,
      [tar([{ path: "x", content: "x", pax: { size: "9007199254740991" } }])],
    ],
    "a negative size": ["corrupt", /size/, [tar([{ path: "x", content: "x", pax: { size: "-1" } }])]],
    "an owner out of range": ["corrupt", /owner/, [tar([{ path: "x", pax: { uid: "4294967296" } }])]],
    "an extended header of 2 MiB": [
      "corrupt",
      /extended header/,
      [tar([{ path: "x", pax: { comment: "c".repeat(2 << 20) } }])],
    ],
    "an extended header whose record lies about its length": [
      "corrupt",
      /malformed/,
      [tar([{ path: "h", type: "x", content: "99 path=x\n" }, { path: "x" }])],
    ],
    "an extended header whose record has length 0": [
      "corrupt",
      /malformed/,
      [tar([{ path: "h", type: "x", content: "0 path=x\n" }, { path: "x" }])],
    ],
    "directories that no entry names, hundreds for each entry": [
      "limit",
      /more than is allowed/,
      [tar(Array.from({ length: 30 }, (_, i) => ({ path: `${i}/${"d/".repeat(400)}x`, content: "" })))],
      { entries: 10_000 },
    ],
    "2,000 records in an extended header, which each entry would have a copy of": [
      "corrupt",
      /too many extended records/,
      [
        tar([
          { path: "x", content: "x", pax: Object.fromEntries(Array.from({ length: 2_000 }, (_, i) => [`k${i}`, "v"])) },
        ]),
      ],
    ],
    "300 extended attributes": [
      "corrupt",
      /attributes/,
      [
        tar([
          {
            path: "x",
            pax: Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`SCHILY.xattr.user.a${i}`, "v"])),
          },
        ]),
      ],
    ],
    "an extended attribute with an endless name": [
      "corrupt",
      /longer than Linux allows/,
      [tar([{ path: "x", pax: { [`SCHILY.xattr.user.${"n".repeat(300)}`]: "v" } }])],
    ],
    "a device number out of range": ["corrupt", /device/, [tar([{ path: "d", type: "3", major: 0xffff, minor: 1 }])]],
    "more entries than allowed": [
      "limit",
      /more than is allowed/,
      [tar(Array.from({ length: 50 }, (_, i) => ({ path: `f${i}` })))],
      { entries: 49 },
    ],
    "more bytes than allowed, in the same file again and again": [
      "limit",
      /more than is allowed/,
      [tar(Array.from({ length: 50 }, () => ({ path: "f", content: "c".repeat(100) })))],
      { bytes: 4999 },
    ],
    "no archive at all": ["corrupt", /checksum|octal/, [Buffer.alloc(5000, "nonsense")]],
    "an empty file": ["corrupt", /empty/, [Buffer.alloc(0)]],
    "an archive cut inside a header": ["corrupt", /middle/, [tar([{ path: "x" }]).subarray(0, 700)]],
  };
  for (const [title, [code, words, archives, limits]] of Object.entries(cases)) {
    test(title, () => refused(code, words, archives, limits));
  }

  test("attributes without end, in an archive that is nothing but them", async () => {
    const value = "v".repeat((1 << 20) - 100);
    // Without the two blocks that end an archive.
    const member = tar([{ path: "f", content: "", pax: { "SCHILY.xattr.user.a": value } }]).subarray(0, -1024);
    let sent = 0;
    const layer: Layer = {
      whiteouts: true,
      async *open() {
        for (; sent < 1_000; sent++) yield Buffer.from(member);
      },
    };
    await assert.rejects(buildBase(join(dir, "out", "base.img"), [layer], {}), {
      code: "limit",
      message: /attributes/,
    });
    assert.ok(sent < 300, `${sent} MiB were taken`);
  });

  test("extended headers without end before one member: none of them is kept for a record of it", async () => {
    const rest = "p".repeat((1 << 20) - 20_000);
    const begun = process.memoryUsage().arrayBuffers;
    let most = 0;
    const layer: Layer = {
      whiteouts: true,
      async *open() {
        for (let i = 0; i < 300; i++) {
          // The member behind them is another's.
          const header = tar([{ path: "f", pax: { [`KEY${i}`]: "v", comment: rest } }]).subarray(0, -1536);
          yield header;
          most = Math.max(most, process.memoryUsage().arrayBuffers - begun);
        }
        yield tar([{ path: "f", content: "x" }]);
      },
    };
    await buildBase(join(dir, "out", "base.img"), [layer], {});
    assert.ok(most < 150 * 2 ** 20, `${most / 2 ** 20} MiB`);
  });

  test("records of extended headers have a length in all", async () => {
    const members = Array.from({ length: 4 }, (_, i) =>
      tar([{ path: "f", pax: { [`KEY${i}`]: "v".repeat(300_000) } }]),
    );
    const archive = Buffer.concat([...members.map((each) => each.subarray(0, -1536)), tar([{ path: "f" }])]);
    await refused("corrupt", /too many extended records/, [archive]);
  });

  test("marks that hide what lower layers have: each costs what it hides", async () => {
    const names = Array.from({ length: 30_000 }, (_, i) => ({ path: `d/e/${i}`, content: "" }));
    const marks = (path: string) => Array.from({ length: 3_000 }, () => ({ path, content: "" }));
    const archive = tar([...names, ...marks("d/e/.wh..wh..opq"), ...marks("d/.wh.e"), ...marks(".wh..wh..opq")]);
    const before = process.threadCpuUsage();
    const tree = await build([archive]);
    const { user } = process.threadCpuUsage(before);
    assert.equal(tree.find("d/e/29999")?.type, "file");
    // Looked at anew for each it is ten seconds and more.
    assert.ok(user < 5_000_000, `${user / 1000} ms`);
  });

  test("what is kept of a header is no more than that, however small it is beside the rest", async () => {
    const count = 300;
    const junk = `32008 a=${"j".repeat(31_999)}\n`.repeat(4);
    const header = { path: "h", type: "x", content: `${junk}28 SCHILY.xattr.user.k=vvvv\n${junk}` };
    const piece = tar([header, { path: "f" }], false);
    const kept: (Buffer | undefined)[] = [];
    await readTar(
      (async function* () {
        for (let i = 0; i < count; i++) yield piece;
      })(),
      async ({ xattrs }) => void kept.push(xattrs.get("user.k")),
    );
    assert.equal(kept[0]?.toString(), "vvvv");
    const memory = new Map(kept.map((value) => [value?.buffer, value?.buffer.byteLength ?? 0]));
    assert.ok([...memory.values()].reduce((sum, bytes) => sum + bytes, 0) < 500_000);
  });

  test("a sparse member of very many pieces: others have their turns", async () => {
    const pieces = 20_000;
    const numbers = Array.from({ length: pieces }, (_, i) => `${2 * i}\n1\n`).join("");
    const map = Buffer.from(`${pieces}\n${numbers}`);
    const content = Buffer.concat([map, Buffer.alloc((512 - (map.length % 512)) % 512), Buffer.alloc(pieces, 1)]);
    const pax = { "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": String(2 * pieces) };
    const ended = countTurns();
    let bytes = 0;
    await readTar(once(tar([{ path: "f", content, pax }])), async (_entry, body) => {
      for await (const part of body) bytes += part.length;
    });
    const turns = ended();
    assert.equal(bytes, 2 * pieces);
    assert.ok(turns > 10, `${turns} turns`);
  });

  test("very many files: others have their turns while the disk is written, and also while it is read again", async () => {
    const members = Array.from({ length: 30_000 }, (_, i) => ({ path: `d/${i}`, content: "" }));
    const archive = tar(members);
    const ownMs = (): number => {
      const { user, system } = process.threadCpuUsage();
      return (user + system) / 1_000;
    };
    const begun = ownMs();
    let [longest, last, ended] = [0, begun, false];
    const turn = (): void => {
      longest = Math.max(longest, ownMs() - last);
      last = ownMs();
      if (!ended) setImmediate(turn);
    };
    setImmediate(turn);
    const [lower, upper] = [join(dir, "lower.img"), join(dir, "upper.img")];
    const layer = (bytes: Buffer): Layer => ({ whiteouts: true, open: () => once(bytes) });
    await buildBase(lower, [layer(archive)]);
    await buildBase(upper, [layer(tar([{ path: "d/.wh..wh..opq" }]))], { below: lower });
    await new Promise((wake) => setImmediate(wake));
    ended = true;
    const all = ownMs() - begun;
    assert.ok(longest < all / 8, `${longest} of ${all} ms at a stretch`);
  });

  test("a file of very many names: each of them is a step, between which others may have their turn", () => {
    const tree = new FileTree({ entries: 2_000, bytes: 1 });
    const file = {
      type: "file",
      data: { size: 0, block: 0, tail: undefined },
      mode: 0,
      uid: 0,
      gid: 0,
      mtime: 0,
      mtimeNs: 0,
      xattrs: NO_XATTRS,
    } as const;
    for (let i = 0; i < 1_000; i++) tree.put(`d/${i}`, file);
    const names = [...tree.names()];
    assert.equal(names.length, 1_002);
    assert.equal(names.filter(([, , again]) => again).length, 999);
    assert.deepEqual(
      [...tree.nodes()].map(([path]) => path),
      ["/", "/d", "/d/0"],
    );
  });

  test("what a tree takes in memory has a bound, whatever it is taken by", () => {
    const one = { path: "f", type: "file", mode: 0, uid: 0, gid: 0, size: 0, stored: 0 } as const;
    const rest = { mtime: 0, mtimeNs: 0, link: "", major: 0, minor: 0 };
    const xattrs = new Map(Array.from({ length: 256 }, (_, i) => [`user.${i}`, Buffer.alloc(0)]));
    for (const entry of [
      { ...one, ...rest, xattrs },
      { ...one, ...rest, xattrs: new Map() },
    ]) {
      let taken = 0;
      const take = (bytes: number): void => {
        taken += bytes;
      };
      const tree = new FileTree({ entries: 2_000_000, bytes: 1, take });
      assert.throws(
        () => {
          for (;;) tree.admit(entry);
        },
        { code: "limit", message: /memory/ },
      );
      assert.ok(taken <= ARCHIVE_BOUNDS.treeBytes + 100_000, `${taken}`);
    }
  });

  test("disks are made few at a time, those of one party one after the other", async () => {
    const order: string[] = [];
    const [first, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const made = (name: string, party: string, wait?: Promise<void>): Promise<unknown> =>
      buildBase(
        join(dir, name),
        [
          {
            whiteouts: true,
            async *open() {
              order.push(name);
              first.resolve();
              await wait;
              yield tar([{ path: "f", content: "x" }]);
            },
          },
        ],
        { party },
      );
    const slow = made("slow", "a", gate.promise);
    await first.promise;
    const next = made("next", "a");
    await made("other", "b");
    assert.deepEqual(order, ["slow", "other"]);
    gate.resolve();
    await Promise.all([slow, next]);
    assert.deepEqual(order, ["slow", "other", "next"]);
  });

  test("a gzip bomb: 2 GiB of zeros in 2 MB stop at the limit", async () => {
    const zeros = Buffer.alloc(64 << 20);
    const size = 2 * 2 ** 30;
    const head = tar([{ path: "bomb", size }], false);
    const path = join(dir, "bomb.tar.gz");
    await writeFile(
      path,
      Buffer.concat([gzipSync(head), ...Array.from({ length: 32 }, () => gzipSync(zeros, { level: 1 }))]),
    );
    const before = performance.now();
    await assert.rejects(
      buildBase(join(dir, "out", "base.img"), [layerFile(path, { whiteouts: true })], { limits: { bytes: 1 << 30 } }),
      { code: "limit" },
    );
    assert.ok(performance.now() - before < 5000);
    assert.deepEqual(await readdir(join(dir, "out")), []);
  });

  test("damaged gzip data", async () => {
    const path = join(dir, "bad.tar.gz");
    const good = gzipSync(tar([{ path: "x", content: "c".repeat(100_000) }]), { level: 0 });
    good[50_000] = (good[50_000] ?? 0) ^ 1;
    await writeFile(path, good);
    await assert.rejects(buildBase(join(dir, "out", "base.img"), [layerFile(path, { whiteouts: true })]), {
      code: "corrupt",
      message: /gzip data is damaged/,
    });
  });
});

describe("what looks hostile but has a harmless meaning stays inside:", () => {
  const content = (tree: FileTree, path: string): string | undefined => {
    const node = tree.find(path);
    return node?.type === "file" ? node.data.tail?.toString() : node?.type;
  };

  test("absolute paths are relative to the image", async () => {
    const tree = await build([tar([{ path: "/etc/passwd", content: "x" }])]);
    assert.equal(content(tree, "etc/passwd"), "x");
  });

  test("a file behind a symbolic link to `/` or `..` lands in the image", async () => {
    const tree = await build([
      tar([
        { path: "abs", type: "2", link: "/" },
        { path: "abs/in-root", content: "1" },
        { path: "up", type: "2", link: "../../../.." },
        { path: "up/also-in-root", content: "2" },
      ]),
    ]);
    assert.equal(content(tree, "in-root"), "1");
    assert.equal(content(tree, "also-in-root"), "2");
  });

  test("a symbolic link to a place outside is only a link", async () => {
    const tree = await build([tar([{ path: "l", type: "2", link: "/etc/../../victim" }])]);
    const node = tree.find("l");
    assert.ok(node?.type === "symlink" && node.target === "/etc/../../victim");
  });

  test("a file over a symbolic link replaces the link, not its target", async () => {
    const tree = await build([
      tar([
        { path: "target", content: "safe" },
        { path: "l", type: "2", link: "target" },
      ]),
      tar([{ path: "l", content: "new" }]),
    ]);
    assert.equal(content(tree, "target"), "safe");
    assert.equal(content(tree, "l"), "new");
  });

  test("a whiteout hides lower layers only, whatever the order in its own layer", async () => {
    const tree = await build([
      tar([dirEntry("d/"), { path: "d/old", content: "old" }, dirEntry("d/s/"), { path: "d/s/old", content: "old" }]),
      tar([
        dirEntry("d/"),
        { path: "d/new", content: "new" },
        { path: "d/s/new", content: "new" },
        { path: "d/.wh..wh..opq" },
      ]),
    ]);
    assert.deepEqual([...tree.nodes()].map(([path]) => path).sort(), ["/", "/d", "/d/new", "/d/s", "/d/s/new"].sort());
  });

  test("overlay's own attributes are left out: they would hide or redirect files in the guest", async () => {
    const pax = {
      "SCHILY.xattr.trusted.overlay.opaque": "y",
      "SCHILY.xattr.user.overlay.redirect": "/x",
      "SCHILY.xattr.user.k": "v",
    };
    const tree = await build([tar([{ ...dirEntry("d/"), pax }])]);
    assert.deepEqual([...(tree.find("d")?.xattrs.keys() ?? [])], ["user.k"]);
  });
});
