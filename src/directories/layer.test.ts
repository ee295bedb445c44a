/** The helper of a copy that has its own layer: what it writes stays there, what it reads is the host's, and another helper goes on with both. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  appendFile,
  chmod,
  link,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { directoryHelperPath } from "../host/directory-helper.ts";
import { dataPaths } from "../host/paths.ts";
import { runTool } from "../host/run.ts";
import { type Answer, FuseClient, Op, ROOT, text, u32, u64 } from "./fuse-client.ts";
import { type Helper, startHelper } from "./helper.ts";
import { askAnything } from "./hostile-requests.ts";

const { errno } = constants;
const [O_WRONLY, O_RDWR, O_TRUNC] = [1, 2, 0o1000];
const [NOREPLACE, EXCHANGE] = [1, 2];
const BYTES = 8 * 2 ** 20;
const CANARY = "never to be seen";
/** Short form; `STACYVM_LONG` makes it a million. */
const MUTATIONS = process.env.STACYVM_LONG === undefined ? 50_000 : 1_000_000;

let outside: string;
let dir: string;
let machine: string;
let helper: Helper;
let fuse: FuseClient;

async function start(readOnly = false): Promise<void> {
  const program = directoryHelperPath(dataPaths().assets);
  helper = await startHelper(
    { program, hidden: join(outside, "data"), machineDir: () => machine },
    { source: dir, path: "/work", readOnly, uid: 0, gid: 0, layer: { name: "0", bytes: BYTES } },
  );
  fuse = new FuseClient(helper);
}

beforeEach(async () => {
  outside = await mkdtemp(join(tmpdir(), "layer-"));
  dir = join(outside, "dir");
  machine = join(outside, "data/sandboxes/sb");
  await mkdir(join(dir, "sub/deep"), { recursive: true });
  await mkdir(machine, { recursive: true });
  await writeFile(join(dir, "file"), "of the host");
  await writeFile(join(dir, "sub/deep/far"), "far");
  await start();
});
afterEach(async () => {
  await helper?.[Symbol.asyncDispose]();
  await rm(outside, { recursive: true, force: true });
});

/** All that is in the host's directory: names, modes, times, contents, and who is one file. */
async function hosts(place = dir): Promise<string[]> {
  const lines: string[] = [];
  for (const name of (await readdir(place, { recursive: true })).sort()) {
    const path = join(place, name);
    const { mode, mtimeNs, ctimeNs, ino, nlink, size } = await stat(path, { bigint: true }).catch(
      () => ({}) as Awaited<ReturnType<typeof stat>> & { mtimeNs: bigint; ctimeNs: bigint },
    );
    const content = await readFile(path, "latin1").catch(() => "");
    lines.push([name, mode, mtimeNs, ctimeNs, ino, nlink, size, content].join(" "));
  }
  return lines;
}

/** What a client sees of it: by name what is in it, or its names. */
async function seen(node = ROOT, way = ""): Promise<Record<string, string>> {
  const all: Record<string, string> = {};
  for (const name of await list(node)) {
    const at = way === "" ? name : `${way}/${name}`;
    const entry = await fuse.good(Op.LOOKUP, node, text(name));
    const child = entry.readBigUInt64LE(0);
    const kind = entry.readUInt32LE(100) & 0o170000;
    if (kind === 0o040000) Object.assign(all, { [at]: "/" }, await seen(child, at));
    else if (kind === 0o120000) all[at] = `-> ${await fuse.good(Op.READLINK, child)}`;
    else all[at] = String((await fuse.read(await fuse.open(child))).body);
  }
  return all;
}

async function list(node: bigint, opcode: number = Op.READDIR): Promise<string[]> {
  const handle = (await fuse.good(Op.OPENDIR, node, u32(0, 0))).readBigUInt64LE(0);
  const names: string[] = [];
  const before = opcode === Op.READDIRPLUS ? 128 : 0;
  for (let offset = 0n; ; ) {
    const body = await fuse.good(opcode, node, u64(handle, offset), u32(4096, 0), u64(0), u32(0, 0));
    if (body.length === 0) break;
    for (let at = before; at < body.length; ) {
      const length = body.readUInt32LE(at + 16);
      offset = body.readBigUInt64LE(at + 8);
      names.push(body.toString("utf8", at + 24, at + 24 + length));
      at += ((24 + length + 7) & ~7) + before;
    }
  }
  await fuse.good(Op.RELEASE, node, u64(handle), u32(0, 0), u64(0));
  return names.filter((name) => name !== "." && name !== "..").sort();
}

/** What a listing gives that goes on from there, on a handle of its own: at most one answer. */
async function from(node: bigint, offset: bigint): Promise<{ names: string[]; next: bigint }> {
  const handle = (await fuse.good(Op.OPENDIR, node, u32(0, 0))).readBigUInt64LE(0);
  const body = await fuse.good(Op.READDIR, node, u64(handle, offset), u32(4096, 0), u64(0), u32(0, 0));
  const names: string[] = [];
  let next = offset;
  for (let at = 0; at < body.length; ) {
    const length = body.readUInt32LE(at + 16);
    next = body.readBigUInt64LE(at + 8);
    names.push(body.toString("utf8", at + 24, at + 24 + length));
    at += (24 + length + 7) & ~7;
  }
  await fuse.good(Op.RELEASE, node, u64(handle), u32(0, 0), u64(0));
  return { names: names.filter((name) => name !== "." && name !== ".."), next };
}

const create = (parent: bigint, name: string, mode = 0o100644): Promise<Answer> =>
  fuse.call(Op.CREATE, parent, u32(O_RDWR, mode, 0, 0), text(name));
async function write(parent: bigint, name: string, content: string): Promise<void> {
  const made = await good(fuse.call(Op.CREATE, parent, u32(O_RDWR | O_TRUNC, 0o100644, 0, 0), text(name)));
  assert.equal((await fuse.write(made.readBigUInt64LE(128), content)).errno, 0);
}
const mkdirAt = (parent: bigint, name: string): Promise<Answer> =>
  fuse.call(Op.MKDIR, parent, u32(0o755, 0), text(name));
const unlink = (parent: bigint, name: string): Promise<Answer> => fuse.call(Op.UNLINK, parent, text(name));
const rmdir = (parent: bigint, name: string): Promise<Answer> => fuse.call(Op.RMDIR, parent, text(name));
const move = (from: bigint, old: string, to: bigint, name: string, flags = 0): Promise<Answer> =>
  fuse.call(Op.RENAME2, from, u64(to), u32(flags, 0), text(old), text(name));
const good = async (answer: Promise<Answer>): Promise<Buffer> => {
  const { errno, body } = await answer;
  assert.equal(errno, 0);
  return body;
};
/** Size, mode, number and count of names. */
async function attributes(node: bigint): Promise<{ size: bigint; mode: number; inode: bigint; links: number }> {
  const body = await fuse.good(Op.GETATTR, node, u32(0, 0), u64(0));
  return {
    size: body.readBigUInt64LE(24),
    mode: body.readUInt32LE(76) & 0o7777,
    inode: body.readBigUInt64LE(16),
    links: body.readUInt32LE(80),
  };
}
const setattr = (node: bigint, valid: number, { size = 0, mode = 0 }): Promise<Answer> =>
  fuse.call(Op.SETATTR, node, u32(valid, 0), u64(0, size, 0), u64(0, 0, 0), u32(0, 0, 0, mode, 0, 0, 0, 0));
const [MODE, SIZE] = [1, 8];

describe("a copy's own layer over a directory of the host", () => {
  test("what it writes, makes and removes is in it alone, and what the host does beside is seen", async () => {
    await symlink("file", join(dir, "link"));
    const before = await hosts();
    const sub = await fuse.lookup(ROOT, "sub");
    await write(ROOT, "file", "of the copy");
    await write(sub, "new", "new");
    await good(mkdirAt(sub, "made"));
    await good(fuse.call(Op.SYMLINK, sub, text("soft"), text("../file")));
    await good(unlink(await fuse.lookup(ROOT, "sub", "deep"), "far"));
    await good(rmdir(sub, "deep"));
    await good(unlink(ROOT, "link"));
    const expected = { file: "of the copy", sub: "/", "sub/made": "/", "sub/new": "new", "sub/soft": "-> ../file" };
    assert.deepEqual(await seen(), expected);
    for (const name of ["deep", "link"])
      assert.equal((await fuse.call(Op.LOOKUP, sub, text(name))).errno, errno.ENOENT);
    assert.deepEqual(await hosts(), before);
    // Beside: what the copy has touched is its own, everything else the host's at once.
    await writeFile(join(dir, "file"), "the host again");
    await writeFile(join(dir, "beside"), "beside");
    await writeFile(join(dir, "sub/other"), "other");
    assert.deepEqual(await seen(), { ...expected, beside: "beside", "sub/other": "other" });
    await writeFile(join(dir, "next"), "another"); // as editors save
    await rename(join(dir, "next"), join(dir, "beside"));
    await rm(join(dir, "sub/other"));
    assert.deepEqual(await seen(), { ...expected, beside: "another" });
    // What was removed may be made again, as something else, and is not what the host has below it.
    await good(mkdirAt(sub, "deep"));
    await good(mkdirAt(ROOT, "link"));
    await write(sub, "deeper", "x");
    assert.deepEqual(await list(await fuse.lookup(ROOT, "sub", "deep")), []);
    await good(rmdir(ROOT, "link"));
    assert.deepEqual(await seen(), { ...expected, beside: "another", "sub/deep": "/", "sub/deeper": "x" });
    assert.equal(await readFile(join(dir, "sub/deep/far"), "utf8"), "far");
  });

  test("a file keeps its number, its attributes and who has it open when it is first written, truncated or changed", async () => {
    const path = join(dir, "sub/deep/far");
    const program = "import os, sys; os.setxattr(sys.argv[1], 'user.mine', b'host')";
    await chmod(path, 0o644);
    await runTool("python3", ["-c", program, path]);
    await chmod(path, 0o444);
    const before = await hosts();
    const node = await fuse.lookup(ROOT, "sub", "deep", "far");
    const [reader, writer] = [await fuse.open(node), await fuse.open(node, O_RDWR)];
    const was = await attributes(node);
    assert.deepEqual([was.mode, was.size], [0o444, 3n]);
    assert.equal(String((await fuse.read(reader)).body), "far");
    assert.equal((await fuse.write(writer, "her", 3)).errno, 0);
    assert.equal(String((await fuse.read(reader)).body), "farher");
    assert.deepEqual(await attributes(node), { ...was, size: 6n });
    const value = await fuse.good(Op.GETXATTR, node, u32(64, 0), text("user.mine"));
    assert.equal(String(value), "host");
    assert.equal(String(await fuse.good(Op.LISTXATTR, node, u32(64, 0))), "user.mine\0");
    await fuse.good(Op.SETXATTR, node, u32(1, 0), text("user.more"), Buffer.from("x"));
    assert.equal(
      (await fuse.call(Op.SETXATTR, node, u32(1, 0), text("user.stacyvm"), Buffer.from("x"))).errno,
      errno.EPERM,
    );
    assert.equal((await fuse.call(Op.GETXATTR, node, u32(64, 0), text("user.stacyvm"))).errno, errno.ENODATA);
    // A mode that would close it to whoever serves it.
    await good(setattr(node, MODE, { mode: 0 }));
    assert.equal((await attributes(node)).mode, 0);
    assert.equal(String((await fuse.read(await fuse.open(node))).body), "farher");
    await good(setattr(node, SIZE, { size: 0 }));
    assert.equal((await attributes(node)).size, 0n);
    // Times are a change, too; and of one that is only looked at nothing is in the layer.
    const file = await fuse.lookup(ROOT, "file");
    await good(setattr(file, MODE, { mode: 0o600 }));
    assert.equal((await attributes(file)).mode, 0o600);
    assert.deepEqual(await hosts(), before);
    await fuse.lookup(ROOT, "sub");
    assert.deepEqual((await readdir(join(machine, "layers/0/upper"))).sort(), ["file", "sub"]);
  });

  test("who has a file open goes on with it when its name is gone, and nothing of that reaches the host", async () => {
    const before = await hosts();
    const node = await fuse.lookup(ROOT, "file");
    const [reader, writer] = [await fuse.open(node), await fuse.open(node, O_WRONLY)];
    await good(unlink(ROOT, "file"));
    assert.equal((await fuse.write(writer, "gone")).errno, 0);
    assert.equal(String((await fuse.read(reader)).body), "gonehe host");
    const far = await fuse.lookup(ROOT, "sub", "deep", "far");
    const handle = await fuse.open(far);
    await good(move(await fuse.lookup(ROOT, "sub", "deep"), "far", ROOT, "near"));
    assert.equal(String((await fuse.read(handle)).body), "far");
    assert.deepEqual(await hosts(), before);
  });

  test("renames: files and whole directories of the host, over others, back, exchanged, and what is below them", async () => {
    await mkdir(join(dir, "empty"));
    await mkdir(join(dir, "tree/a/b"), { recursive: true });
    await writeFile(join(dir, "tree/a/b/c"), "c");
    await writeFile(join(dir, "tree/one"), "1");
    const before = await hosts();
    const sub = await fuse.lookup(ROOT, "sub");
    await good(move(ROOT, "file", sub, "moved"));
    await good(move(ROOT, "tree", sub, "tree"));
    const a = await fuse.lookup(ROOT, "sub", "tree", "a");
    assert.equal((await move(ROOT, "sub", a, "in itself")).errno, errno.EINVAL);
    assert.equal((await move(sub, "tree", ROOT, "sub")).errno, errno.ENOTEMPTY);
    assert.equal((await move(sub, "moved", ROOT, "empty")).errno, errno.EISDIR);
    assert.equal((await move(sub, "tree", sub, "moved")).errno, errno.ENOTDIR);
    assert.equal((await move(sub, "moved", sub, "tree", NOREPLACE)).errno, errno.EEXIST);
    assert.equal((await move(sub, "moved", sub, "none", EXCHANGE)).errno, errno.ENOENT);
    await good(move(a, "b", ROOT, "b"));
    await good(unlink(await fuse.lookup(ROOT, "sub", "tree"), "one"));
    await good(move(sub, "tree", ROOT, "empty")); // over one that is empty
    await good(mkdirAt(ROOT, "tree"));
    await write(await fuse.lookup(ROOT, "b"), "d", "d");
    const expected: Record<string, string> = {
      ...{ "sub/moved": "of the host", sub: "/", "sub/deep": "/", "sub/deep/far": "far" },
      ...{ empty: "/", "empty/a": "/", b: "/", "b/c": "c", "b/d": "d", tree: "/" },
    };
    assert.deepEqual(await seen(), expected);
    // What the host does in the one that was moved is seen where it is now.
    await writeFile(join(dir, "tree/two"), "2");
    expected["empty/two"] = "2";
    assert.deepEqual(await seen(), expected);
    await rm(join(dir, "tree/two"));
    delete expected["empty/two"];
    await good(move(ROOT, "b", sub, "moved", EXCHANGE));
    const { "b/c": c = "", "b/d": d = "", "sub/moved": moved = "", ...rest } = expected;
    const exchanged = { ...rest, b: moved, "sub/moved": "/", "sub/moved/c": c, "sub/moved/d": d };
    assert.deepEqual(await seen(), exchanged);
    // And back over its own name.
    await good(move(ROOT, "b", ROOT, "file"));
    const { b: _, ...without } = exchanged;
    assert.deepEqual(await seen(), { ...without, file: "of the host" });
    // Only that the host's own file in it came and went is to be seen of the directory.
    const still = (lines: string[]): string[] => lines.filter((line) => !line.startsWith("tree "));
    assert.deepEqual(still(await hosts()), still(before));
  });

  test("names of one file stay one file, those of the host, too", async () => {
    await link(join(dir, "file"), join(dir, "sub/same"));
    const before = await hosts();
    const [first, second] = [await fuse.lookup(ROOT, "file"), await fuse.lookup(ROOT, "sub", "same")];
    assert.equal(first, second);
    assert.equal((await attributes(first)).links, 2);
    const handle = await fuse.open(await fuse.lookup(ROOT, "file"), O_RDWR);
    assert.equal((await fuse.write(handle, "OF")).errno, 0);
    const content = async (...names: string[]): Promise<string> =>
      String((await fuse.read(await fuse.open(await fuse.lookup(ROOT, ...names)))).body);
    assert.equal(await content("sub", "same"), "OF the host");
    const sub = await fuse.lookup(ROOT, "sub");
    await good(fuse.call(Op.LINK, sub, u64(first), text("third")));
    assert.equal((await attributes(first)).links, 3);
    await good(unlink(ROOT, "file"));
    assert.equal((await attributes(second)).links, 2);
    await write(sub, "same", "both");
    assert.equal(await content("sub", "third"), "both");
    assert.equal(await fuse.lookup(sub, "same"), await fuse.lookup(sub, "third"));
    assert.deepEqual(await hosts(), before);
  });

  test("another helper goes on where this one was killed: open files, numbers, and a copy of the layer alike", async () => {
    const sub = await fuse.lookup(ROOT, "sub");
    await write(ROOT, "file", "of the copy");
    await write(sub, "new", "new");
    await good(move(ROOT, "sub", ROOT, "renamed"));
    const names = ["file", "renamed", "renamed/deep", "renamed/deep/far", "renamed/new"];
    const records: Buffer[] = [];
    const inodes = new Map<string, bigint>();
    const numbers = new Map<string, bigint>([["", ROOT]]);
    for (const path of names) {
      const [above, name] = path.includes("/")
        ? [path.slice(0, path.lastIndexOf("/")), path.slice(path.lastIndexOf("/") + 1)]
        : ["", path];
      const parent = numbers.get(above) ?? 0n;
      const entry = await fuse.good(Op.LOOKUP, parent, text(name));
      const [node, generation, inode] = [entry.readBigUInt64LE(0), entry.readBigUInt64LE(8), entry.readBigUInt64LE(40)];
      numbers.set(path, node);
      inodes.set(path, inode);
      const bytes = Buffer.from(name);
      records.push(u32(1), u64(node, parent, inode, generation, 1), u32(bytes.length), bytes);
    }
    const far = numbers.get("renamed/deep/far") ?? 0n;
    const file = numbers.get("file") ?? 0n;
    records.push(u32(2), u64(1000, far), u32(O_WRONLY, 0), u32(2), u64(1001, file), u32(O_RDWR, 0));
    const everything = await seen();
    for (const copy of [false, true]) {
      await helper[Symbol.asyncDispose]();
      if (copy) {
        await runTool("cp", ["-a", "--", join(machine, "layers"), join(outside, "layers")]);
        await rm(join(machine, "layers"), { recursive: true });
        await rename(join(outside, "layers"), join(machine, "layers"));
      }
      await start();
      // What has no file of the host behind it has another number in a copy of the layer.
      if (!copy) {
        fuse.tell(Op.RESTORE, 0n, Buffer.concat(records));
        for (const [path, node] of numbers)
          if (path !== "") assert.equal((await attributes(node)).inode, inodes.get(path), path);
        assert.equal((await fuse.write(1000n, "FAR")).errno, 0);
        assert.equal(String((await fuse.read(1001n)).body), "of the copy");
        everything["renamed/deep/far"] = "FAR";
      }
      assert.deepEqual(await seen(), everything);
    }
    await helper[Symbol.asyncDispose]();
    await start(true);
    assert.deepEqual(await seen(), everything);
    assert.equal((await unlink(ROOT, "file")).errno, errno.EROFS);
    assert.equal(await readFile(join(dir, "sub/deep/far"), "utf8"), "far");
  });

  test("it takes so much and no more, whatever is removed, kept open or overwritten, and room comes back", async () => {
    const part = Buffer.alloc(256 * 1024, 1);
    const fill = async (handle: bigint): Promise<number> => {
      for (let at = 0; ; at += part.length) {
        const { errno: failed } = await fuse.write(handle, part, at);
        if (failed === errno.ENOSPC) return at;
        assert.equal(failed, 0);
        assert.ok(at <= BYTES);
      }
    };
    const made = await good(create(ROOT, "big"));
    const handle = made.readBigUInt64LE(128);
    assert.ok((await fill(handle)) > BYTES - 3 * part.length);
    // What is there already can be written anew as long as there is room for it once more: less is not promised.
    const second = (await good(create(ROOT, "second"))).readBigUInt64LE(128);
    assert.ok((await fill(second)) < part.length);
    // Open without a name it still takes its room.
    await good(unlink(ROOT, "big"));
    assert.ok((await fill(second)) < part.length);
    await fuse.good(Op.RELEASE, 0n, u64(handle), u32(0, 0), u64(0));
    assert.ok((await fill(second)) > BYTES - 4 * part.length);
    // The host's can be removed all the same, and a large one of the host's cannot be brought in.
    await using large = await open(join(dir, "large"), "w");
    await large.write(randomBytes(1024 * 1024));
    await good(unlink(ROOT, "file"));
    const node = await fuse.lookup(ROOT, "large");
    assert.equal((await fuse.write(await fuse.open(node, O_WRONLY), "x")).errno, errno.ENOSPC);
    const body = await fuse.good(Op.STATFS, ROOT);
    assert.ok(body.readBigUInt64LE(16) * BigInt(body.readUInt32LE(40)) < BigInt(part.length));
  });

  test("listings say each name once, also in parts and of many", async () => {
    for (let i = 0; i < 500; i++) await writeFile(join(dir, "sub", `h${i}`), "");
    const sub = await fuse.lookup(ROOT, "sub");
    const expected = new Set(["deep"]);
    for (let i = 0; i < 500; i++) if (i % 3 !== 0) expected.add(`h${i}`);
    for (let i = 0; i < 500; i += 3) await good(unlink(sub, `h${i}`));
    for (let i = 0; i < 100; i++) {
      await write(sub, `c${i}`, "x");
      expected.add(`c${i}`);
    }
    for (let i = 1; i < 500; i += 3) await write(sub, `h${i}`, "own");
    for (const opcode of [Op.READDIR, Op.READDIRPLUS]) assert.deepEqual(await list(sub, opcode), [...expected].sort());
    // As `rm -r` does: what is removed between two parts changes nothing of the rest.
    for (const name of expected) if (name !== "deep") await good(unlink(sub, name));
    assert.deepEqual(await list(sub), ["deep"]);
    assert.equal((await readdir(join(dir, "sub"))).length, 501);
    // What was told is removed, and whoever goes on with another listing misses nothing: `rm -r` over a helper that was replaced.
    for (const name of expected) if (name !== "deep") await write(sub, name, "again");
    const told: string[] = [];
    for (let offset = 0n; ; ) {
      const { names, next } = await from(sub, offset);
      if (names.length === 0 && next === offset) break;
      for (const name of names) if (name !== "deep") await good(unlink(sub, name));
      told.push(...names);
      offset = next;
    }
    assert.deepEqual(told.sort(), [...expected].sort());
    assert.deepEqual(await list(sub), ["deep"]);
  });

  test(`${MUTATIONS} requests with anything in them change nothing of the host's`, async () => {
    await writeFile(join(outside, "secret"), CANARY);
    await symlink("../secret", join(dir, "relative"));
    await symlink(join(outside, "secret"), join(dir, "absolute"));
    await link(join(dir, "file"), join(dir, "hard"));
    const before = await hosts();
    const { leaked, starts } = await askAnything(MUTATIONS, CANARY, {
      current: () => ({ helper, fuse }),
      restart: async () => {
        await helper[Symbol.asyncDispose]();
        await start();
      },
    });
    assert.equal(leaked, false);
    assert.ok(starts < MUTATIONS / 200, `${starts} starts`);
    assert.deepEqual(await hosts(), before);
    assert.deepEqual((await readdir(outside)).sort(), ["data", "dir", "secret"]);
  });

  test("changes by the host are told where they show, and not its own", async () => {
    const sub = await fuse.lookup(ROOT, "sub");
    await good(move(ROOT, "sub", ROOT, "renamed"));
    await write(sub, "own", "x");
    await unlink(ROOT, "file");
    fuse.changes.splice(0);
    await writeFile(join(dir, "sub/host"), "");
    await appendFile(join(dir, "file"), "hidden");
    await writeFile(join(dir, "last"), "");
    while (!fuse.changes.includes("1 last")) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.ok(fuse.changes.includes("1 renamed/host"), fuse.changes.join());
    assert.ok(!fuse.changes.some((change) => change.includes("own")), fuse.changes.join());
    assert.equal((await fuse.call(Op.LOOKUP, ROOT, text("file"))).errno, errno.ENOENT);
  });
});
