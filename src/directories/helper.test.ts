/** The helper itself, asked what no kernel would ask, with something outside of its directory that it must never touch. */
import assert from "node:assert/strict";
import {
  appendFile,
  chmod,
  chown,
  link,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
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
import { isRoot } from "../host/is-root.ts";
import { dataPaths } from "../host/paths.ts";
import { runTool } from "../host/run.ts";
import { FuseClient, Op, ROOT, text, u32, u64 } from "./fuse-client.ts";
import { type Helper, startHelper } from "./helper.ts";
import { askAnything } from "./hostile-requests.ts";
import { WatchBudget } from "./watch-budget.ts";

const { errno } = constants;
const CANARY = "never to be seen";
/** Short form; `STACYVM_LONG` makes it a million. */
const MUTATIONS = process.env.STACYVM_LONG === undefined ? 100_000 : 1_000_000;
const [O_RDONLY, O_RDWR] = [0, 2];

let outside: string;
let dir: string;
let helper: Helper;
let fuse: FuseClient;

async function start(more: { readOnly?: boolean; hidden?: string } = {}): Promise<void> {
  const program = directoryHelperPath(dataPaths().assets);
  helper = await startHelper(
    { program, hidden: more.hidden ?? join(outside, "data") },
    { source: dir, path: "/work", readOnly: more.readOnly ?? false, uid: 1000, gid: 1001 },
  );
  fuse = new FuseClient(helper);
}

beforeEach(async () => {
  outside = await mkdtemp(join(tmpdir(), "directories-"));
  dir = join(outside, "dir");
  await mkdir(join(dir, "sub"), { recursive: true });
  await mkdir(join(outside, "data"));
  await writeFile(join(outside, "secret"), CANARY);
  await writeFile(join(dir, "file"), "content");
  await start();
});
afterEach(async () => {
  await helper?.[Symbol.asyncDispose]();
  await rm(outside, { recursive: true, force: true });
});

const create = (parent: bigint, name: string, mode = 0o100644, flags = O_RDWR) =>
  fuse.call(Op.CREATE, parent, u32(flags, mode, 0, 0), text(name));

describe("the helper of a directory", () => {
  test("serves what is there, and makes what is asked for", async () => {
    const file = await fuse.lookup(ROOT, "file");
    assert.equal(String((await fuse.read(await fuse.open(file))).body), "content");
    const made = await create(ROOT, "new");
    assert.equal(made.errno, 0);
    assert.equal((await fuse.write(made.body.readBigUInt64LE(128), "written", 3)).errno, 0);
    assert.equal(await readFile(join(dir, "new"), "latin1"), "\0\0\0written");
    await fuse.good(Op.MKDIR, ROOT, u32(0o755, 0), text("made"));
    await fuse.good(Op.RENAME, ROOT, u64(ROOT), text("new"), text("renamed"));
    await fuse.good(Op.UNLINK, ROOT, text("file"));
    assert.deepEqual((await readdir(dir)).sort(), ["made", "renamed", "sub"]);
    const attributes = await fuse.good(Op.GETATTR, ROOT, u32(0, 0), u64(0));
    assert.deepEqual([attributes.readUInt32LE(16 + 68), attributes.readUInt32LE(16 + 72)], [1000, 1001]);
  });

  test("changes by the host in directories that are known are told, its own are not, and of more than it can hold that all may have changed", async () => {
    const told = async (last: string): Promise<string[]> => {
      while (!fuse.changes.includes(last)) await new Promise((resolve) => setTimeout(resolve, 10));
      return fuse.changes.splice(0).filter((change, at, all) => change !== all[at - 1]);
    };
    await mkdir(join(dir, "unknown"));
    assert.deepEqual(await told("1 unknown"), ["1 unknown"]);
    await writeFile(join(dir, "unknown", "file"), "");
    const sub = await fuse.lookup(ROOT, "sub");
    const made = await create(sub, "own");
    await fuse.write(made.body.readBigUInt64LE(128), "written");
    await fuse.good(Op.RENAME, sub, u64(ROOT), text("own"), text("renamed"));
    await fuse.good(Op.MKDIR, sub, u32(0o755, 0), text("made"));
    await fuse.good(Op.UNLINK, ROOT, text("renamed"));
    await writeFile(join(dir, "sub", "host"), "content");
    await chmod(join(dir, "file"), 0o600);
    await rename(join(dir, "sub", "host"), join(dir, "moved"));
    await rm(join(dir, "sub", "made"), { recursive: true });
    assert.deepEqual(await told("2 sub/made"), [
      "1 sub/host",
      "3 sub/host",
      "3 file",
      "2 sub/host",
      "1 moved",
      "2 sub/made",
    ]);
    process.kill(helper.pid, "SIGSTOP");
    // More than fs.inotify.max_queued_events.
    const most = Number(await readFile("/proc/sys/fs/inotify/max_queued_events", "latin1"));
    for (let count = 0; count <= most; count++)
      await chmod(join(dir, count % 2 === 0 ? "file" : "moved"), 0o600 + (count % 7));
    process.kill(helper.pid, "SIGCONT");
    await told("3 sub");
    // Another one is told what is known, and says of it that nobody has looked.
    const record = u32(3);
    fuse.tell(Op.RESTORE, 0n, Buffer.concat([record, u64(ROOT), record, u64(sub)]));
    assert.deepEqual(await told("3 sub"), ["3 ", "3 sub"]);
  });

  test("of more directories than it may watch the newest are watched, those that are looked into again, and the directory itself", async () => {
    const names = Array.from({ length: 2_100 }, (_, count) => `d${count}`);
    for (const name of names) await mkdir(join(dir, name));
    for (const name of names) await fuse.lookup(ROOT, name);
    fuse.changes.splice(0);
    const told = async (): Promise<string[]> => {
      await writeFile(join(dir, "last"), "");
      while (!fuse.changes.includes("1 last")) await new Promise((resolve) => setTimeout(resolve, 10));
      await rm(join(dir, "last"));
      while (!fuse.changes.includes("2 last")) await new Promise((resolve) => setTimeout(resolve, 10));
      return fuse.changes.splice(0).filter((change) => !change.endsWith(" last"));
    };
    await told();
    for (const name of ["d0", "d2099"]) await mkdir(join(dir, name, "made"));
    assert.deepEqual(await told(), ["1 d2099/made"]);
    const oldest = await fuse.lookup(ROOT, "d0");
    await mkdir(join(dir, "d0", "again"));
    assert.deepEqual(await told(), ["1 d0/again"]);
    // What its kernel has forgotten it does not watch.
    fuse.tell(Op.FORGET, oldest, u64(2));
    await fuse.good(Op.STATFS, ROOT);
    await mkdir(join(dir, "d0", "late"));
    assert.deepEqual(await told(), []);
  });

  test("where the host has no inotify left for it, it serves all the same and tells of nothing; what one gives back the next one has", async () => {
    const program = directoryHelperPath(dataPaths().assets);
    const watches = new WatchBudget(async () => ({ instances: 2, watches: 100 }));
    const directory = { source: dir, path: "/work", readOnly: false, uid: 0, gid: 0 };
    const another = (): Promise<Helper> => startHelper({ program, hidden: join(outside, "data"), watches }, directory);
    const inotify = async ({ pid }: Helper): Promise<number> => {
      const links = (await readdir(`/proc/${pid}/fd`)).map((fd) => readlink(`/proc/${pid}/fd/${fd}`));
      return (await Promise.all(links)).filter((target) => target === "anon_inode:inotify").length;
    };
    const first = await another();
    await using second = await another();
    assert.deepEqual([await inotify(first), await inotify(second)], [1, 0]);
    assert.notEqual(await new FuseClient(second).lookup(ROOT, "file"), 0n);
    await first[Symbol.asyncDispose]();
    await using third = await another();
    assert.equal(await inotify(third), 1);
  });

  test("a listing says of each name what a lookup would, counts as one, and says nothing of what is above or was moved out", async () => {
    await symlink("../secret", join(dir, "sub", "link"));
    await writeFile(join(dir, "sub", "own"), "four");
    const sub = await fuse.lookup(ROOT, "sub");
    const handle = (await fuse.good(Op.OPENDIR, sub, u32(0, 0))).readBigUInt64LE(0);
    const list = async (opcode: number, node = sub): Promise<Map<string, Buffer>> => {
      const entries = new Map<string, Buffer>();
      const before = opcode === Op.READDIRPLUS ? 128 : 0;
      for (let offset = 0n; ; ) {
        // Room for about two of them.
        const body = await fuse.good(opcode, node, u64(handle, offset), u32(400, 0), u64(0), u32(0, 0));
        assert.ok(body.length <= 400);
        if (body.length === 0) return entries;
        for (let at = 0; at < body.length; ) {
          const head = at + before;
          const length = body.readUInt32LE(head + 16);
          offset = body.readBigUInt64LE(head + 8);
          entries.set(body.toString("utf8", head + 24, head + 24 + length), body.subarray(at, head));
          at = head + ((24 + length + 7) & ~7);
        }
      }
    };
    const plus = await list(Op.READDIRPLUS);
    assert.deepEqual([...plus.keys()].sort(), [...(await list(Op.READDIR)).keys()].sort());
    assert.deepEqual([...plus.keys()].sort(), [".", "..", "link", "own"]);
    for (const name of [".", ".."]) assert.deepEqual(plus.get(name), Buffer.alloc(128), name);
    for (const name of ["link", "own"]) {
      const entry = plus.get(name) as Buffer;
      const looked = await fuse.good(Op.LOOKUP, sub, text(name));
      // All but for how long the name holds: node, generation, and what is known of it.
      assert.deepEqual(entry.subarray(0, 16), looked.subarray(0, 16), name);
      assert.deepEqual(entry.subarray(40), looked.subarray(40), name);
      const node = looked.readBigUInt64LE(0);
      fuse.tell(Op.FORGET, node, u64(1));
      assert.equal((await fuse.call(Op.GETATTR, node, u32(0, 0), u64(0))).errno, 0, "told of it twice, forgotten once");
      fuse.tell(Op.FORGET, node, u64(1));
      assert.equal((await fuse.call(Op.GETATTR, node, u32(0, 0), u64(0))).errno, errno.ESTALE);
    }
    // Another directory's number, and one that is not where it was: names at most.
    for (const entry of (await list(Op.READDIRPLUS, ROOT)).values()) assert.deepEqual(entry, Buffer.alloc(128));
    await rename(join(dir, "sub"), join(outside, "moved"));
    for (const entry of (await list(Op.READDIRPLUS)).values()) assert.deepEqual(entry, Buffer.alloc(128));
  });

  test("names lead nowhere: neither up, nor from the root, nor through a link", async () => {
    await symlink("..", join(dir, "up"));
    await symlink(outside, join(dir, "absolute"));
    await symlink(join(outside, "secret"), join(dir, "direct"));
    await symlink("/proc/self/root", join(dir, "magic"));
    for (const name of ["..", ".", "", "/", "../secret", "/etc/passwd", "sub/../../secret", "x".repeat(256)]) {
      assert.notEqual((await fuse.call(Op.LOOKUP, ROOT, text(name))).errno, 0, name);
      assert.notEqual((await create(ROOT, name)).errno, 0, name);
      assert.notEqual((await fuse.call(Op.MKDIR, ROOT, u32(0o755, 0), text(name))).errno, 0, name);
      assert.notEqual((await fuse.call(Op.RENAME, ROOT, u64(ROOT), text("file"), text(name))).errno, 0, name);
      assert.notEqual((await fuse.call(Op.LINK, ROOT, u64(ROOT), text(name))).errno, 0, name);
    }
    for (const name of ["up", "absolute", "direct", "magic"]) {
      const node = await fuse.lookup(ROOT, name);
      // It is a link, to be read; the guest's own kernel goes where it says, in the guest.
      assert.equal((await fuse.call(Op.READLINK, node)).errno, 0);
      assert.equal((await fuse.call(Op.LOOKUP, node, text("secret"))).errno, errno.ENOTDIR);
      assert.equal((await fuse.call(Op.OPEN, node, u32(O_RDWR, 0))).errno, errno.EPERM);
      assert.notEqual((await fuse.call(Op.OPENDIR, node, u32(0, 0))).errno, 0);
      assert.notEqual((await create(ROOT, name)).errno, 0);
      const setMode = Buffer.concat([u32(1, 0), u64(0, 0, 0, 0, 0, 0), u32(0, 0, 0, 0o777, 0, 0, 0, 0)]);
      assert.notEqual((await fuse.call(Op.SETATTR, node, setMode)).errno, 0);
    }
    assert.equal(await readFile(join(outside, "secret"), "utf8"), CANARY);
    assert.deepEqual((await readdir(outside)).sort(), ["data", "dir", "secret"]);
  });

  test("a directory that is replaced by a link while it is known is not followed", async () => {
    const sub = await fuse.lookup(ROOT, "sub");
    await writeFile(join(dir, "sub", "secret"), "inside");
    const inner = await fuse.lookup(sub, "secret");
    await rename(join(dir, "sub"), join(dir, "moved"));
    await symlink("..", join(dir, "sub"));
    assert.equal((await fuse.call(Op.LOOKUP, sub, text("secret"))).errno, errno.ESTALE);
    assert.equal((await fuse.call(Op.OPEN, inner, u32(O_RDWR, 0))).errno, errno.ESTALE);
    assert.notEqual((await create(sub, "made")).errno, 0);
  });

  test("what another process renames and links at the same time shows nothing of the outside", async () => {
    const sub = await fuse.lookup(ROOT, "sub");
    await writeFile(join(dir, "sub", "secret"), "inside");
    await symlink(outside, join(dir, "link"));
    let stop = false;
    const racing = (async () => {
      while (!stop) {
        await rename(join(dir, "sub"), join(dir, "aside"));
        await rename(join(dir, "link"), join(dir, "sub"));
        await rename(join(dir, "sub"), join(dir, "link"));
        await rename(join(dir, "aside"), join(dir, "sub"));
      }
    })();
    const seen = new Set<string>();
    try {
      for (let round = 0; round < 2_000; round++) {
        const found = await fuse.call(Op.LOOKUP, sub, text("secret"));
        if (found.errno !== 0) continue;
        const opened = await fuse.call(Op.OPEN, found.body.readBigUInt64LE(0), u32(O_RDONLY, 0));
        if (opened.errno !== 0) continue;
        const handle = opened.body.readBigUInt64LE(0);
        seen.add(String((await fuse.read(handle)).body));
        fuse.tell(Op.RELEASE, 0n, Buffer.concat([u64(handle), u32(0, 0), u64(0)]));
        await create(sub, `made-${round % 8}`);
      }
    } finally {
      stop = true;
      await racing;
    }
    assert.deepEqual([...seen], ["inside"]);
    assert.deepEqual((await readdir(outside)).sort(), ["data", "dir", "secret"]);
  });

  test("neither devices nor pipes nor set-user-ID programs come about, and none is opened", async () => {
    for (const kind of [0o020000, 0o060000, 0o010000, 0o140000, 0o120000]) {
      assert.equal((await fuse.call(Op.MKNOD, ROOT, u32(kind | 0o666, 0x103, 0, 0), text("node"))).errno, errno.EPERM);
      assert.equal((await create(ROOT, "node", kind | 0o666)).errno, errno.EPERM);
    }
    await create(ROOT, "program", 0o106755);
    assert.equal((await stat(join(dir, "program"))).mode & 0o7777, 0o755);
    const program = await fuse.lookup(ROOT, "program");
    const setMode = Buffer.concat([u32(1, 0), u64(0, 0, 0, 0, 0, 0), u32(0, 0, 0, 0o6777, 0, 0, 0, 0)]);
    await fuse.good(Op.SETATTR, program, setMode);
    assert.equal((await stat(join(dir, "program"))).mode & 0o7777, 0o777);
    // The host's own are not shown; a directory's sticky bit is.
    await chmod(join(dir, "program"), 0o7755);
    await chmod(join(dir, "sub"), 0o7755);
    const modes = ["program", "sub"].map((name) => fuse.good(Op.LOOKUP, ROOT, text(name)));
    assert.deepEqual(
      (await Promise.all(modes)).map((entry) => entry.readUInt32LE(100).toString(8)),
      ["100755", "41755"],
    );
    const capability = fuse.call(Op.SETXATTR, program, u32(4, 0), text("security.capability"), Buffer.from("abcd"));
    assert.equal((await capability).errno, errno.EOPNOTSUPP);
  });

  test("a file that was removed can be asked about and changed as long as it is open", async () => {
    const file = await fuse.lookup(ROOT, "file");
    const handle = await fuse.open(file, O_RDWR);
    await fuse.good(Op.UNLINK, ROOT, text("file"));
    // Without the handle: so asks a guest's kernel for fstat and fchmod.
    const attributes = await fuse.good(Op.GETATTR, file, u32(0, 0), u64(0));
    assert.deepEqual([attributes.readBigUInt64LE(16 + 8), attributes.readUInt32LE(16 + 64)], [7n, 0]);
    const set = (valid: number, size: number) =>
      fuse.good(Op.SETATTR, file, u32(valid, 0), u64(0, size, 0, 0, 0, 0), u32(0, 0, 0, 0o600, 0, 0, 0, 0));
    assert.equal((await set(1, 0)).readUInt32LE(16 + 60) & 0o777, 0o600);
    assert.equal((await set(8, 3)).readBigUInt64LE(16 + 8), 3n);
    await fuse.good(Op.SETXATTR, file, u32(1, 0), text("user.x"), Buffer.from("x"));
    fuse.tell(Op.RELEASE, 0n, Buffer.concat([u64(handle), u32(0, 0), u64(0)]));
    assert.equal((await fuse.call(Op.GETATTR, file, u32(0, 0), u64(0))).errno, errno.ESTALE);
  });

  test("what is appended comes after what the host has appended meanwhile", async () => {
    const append = 0o2001;
    const handle = await fuse.open(await fuse.lookup(ROOT, "file"), append);
    await appendFile(join(dir, "file"), " of the host");
    // Where its kernel believes that it ends.
    assert.equal((await fuse.write(handle, " of the guest", 7, append)).errno, 0);
    assert.equal((await fuse.write(handle, "C", 0, 1)).errno, 0);
    assert.equal(await readFile(join(dir, "file"), "utf8"), "Content of the host of the guest");
  });

  test("extended attributes are made, replaced, listed and removed, as the flags say", async () => {
    const file = await fuse.lookup(ROOT, "file");
    const [create, replace] = [1, 2];
    const set = (name: string, flags: number) =>
      fuse.call(Op.SETXATTR, file, u32(1, flags), text(name), Buffer.from("x")).then((answer) => answer.errno);
    assert.deepEqual([await set("user.a", replace), await set("user.a", create)], [errno.ENODATA, 0]);
    assert.deepEqual([await set("user.a", create), await set("user.a", replace)], [errno.EEXIST, 0]);
    assert.equal(String(await fuse.good(Op.LISTXATTR, file, u32(64, 0))), "user.a\0");
    assert.equal((await fuse.call(Op.REMOVEXATTR, file, text("security.x"))).errno, errno.EOPNOTSUPP);
    await fuse.good(Op.REMOVEXATTR, file, text("user.a"));
    assert.equal((await fuse.call(Op.GETXATTR, file, u32(64, 0), text("user.a"))).errno, errno.ENODATA);
  });

  test("read-only is read-only, whatever is asked", async () => {
    await helper[Symbol.asyncDispose]();
    await start({ readOnly: true });
    const file = await fuse.lookup(ROOT, "file");
    const handle = await fuse.open(file);
    const asked = [
      fuse.call(Op.OPEN, file, u32(O_RDWR, 0)),
      fuse.call(Op.OPEN, file, u32(0o1000, 0)),
      fuse.write(handle, "no"),
      create(ROOT, "new"),
      fuse.call(Op.MKDIR, ROOT, u32(0o755, 0), text("made")),
      fuse.call(Op.UNLINK, ROOT, text("file")),
      fuse.call(Op.RENAME, ROOT, u64(ROOT), text("file"), text("moved")),
      fuse.call(Op.SYMLINK, ROOT, text("link"), text("file")),
      fuse.call(Op.LINK, ROOT, u64(file), text("hard")),
      fuse.call(Op.SETATTR, file, u32(8, 0), u64(0, 0, 0, 0, 0, 0), u32(0, 0, 0, 0, 0, 0, 0, 0)),
      fuse.call(Op.SETXATTR, file, u32(1, 0), text("user.x"), Buffer.from("x")),
      fuse.call(Op.REMOVEXATTR, file, text("user.x")),
      fuse.call(Op.ACCESS, file, u32(2, 0)),
    ];
    for (const answer of await Promise.all(asked)) assert.equal(answer.errno, errno.EROFS);
    assert.deepEqual((await readdir(dir)).sort(), ["file", "sub"]);
    assert.equal(await readFile(join(dir, "file"), "utf8"), "content");
  });

  test("the server's own files are not there, whatever directory they lie in", async () => {
    await helper[Symbol.asyncDispose]();
    await mkdir(join(dir, "sub", "own"));
    await writeFile(join(dir, "sub", "own", "keys"), CANARY);
    await start({ hidden: join(dir, "sub", "own") });
    const sub = await fuse.lookup(ROOT, "sub");
    const own = (await fuse.call(Op.LOOKUP, sub, text("own"))).body.readBigUInt64LE(0);
    assert.notEqual((await fuse.call(Op.LOOKUP, own, text("keys"))).errno, 0);
    // Nor by a table that says it was known already, by its true number.
    const { ino } = await stat(join(dir, "sub", "own", "keys"), { bigint: true });
    const record = (node: bigint, parent: bigint, inode: bigint, name: string): Buffer =>
      Buffer.concat([u32(1), u64(node, parent, inode, 0, 1), u32(name.length), Buffer.from(name)]);
    const own2 = await stat(join(dir, "sub", "own"), { bigint: true });
    fuse.tell(Op.RESTORE, 0n, Buffer.concat([record(50n, sub, own2.ino, "own"), record(51n, 50n, ino, "keys")]));
    for (const node of [50n, 51n]) assert.notEqual((await fuse.call(Op.GETATTR, node, u32(0, 0), u64(0))).errno, 0);
    assert.notEqual((await fuse.call(Op.OPEN, 51n, u32(0, 0))).errno, 0);
  });

  test("what leads to the server's own files cannot be renamed or removed by a guest, and all beside it can", async () => {
    await helper[Symbol.asyncDispose]();
    await mkdir(join(dir, "sub", "way", "own"), { recursive: true });
    await start({ hidden: join(dir, "sub", "way", "own") });
    const sub = await fuse.lookup(ROOT, "sub");
    const way = await fuse.lookup(sub, "way");
    for (const [parent, name] of [
      [ROOT, "sub"],
      [sub, "way"],
      [way, "own"],
    ] as const) {
      assert.equal(
        (await fuse.call(Op.RENAME, parent, u64(parent), text(name), text("aside"))).errno,
        errno.EBUSY,
        name,
      );
      assert.notEqual((await fuse.call(Op.RMDIR, parent, text(name))).errno, 0, name);
    }
    await fuse.good(Op.MKDIR, way, u32(0o755, 0), text("beside"));
    await fuse.good(Op.RENAME, way, u64(way), text("beside"), text("renamed"));
    assert.deepEqual((await readdir(join(dir, "sub", "way"))).sort(), ["own", "renamed"]);
  });

  test("the server's own files are seen by no other mount of them either", { skip: !isRoot() }, async () => {
    await helper[Symbol.asyncDispose]();
    const own = join(outside, "data");
    await writeFile(join(own, "keys"), CANARY);
    const mount = join(dir, "sub", "mount");
    await mkdir(mount);
    await runTool("mount", ["--bind", own, mount]);
    try {
      await start({ hidden: own });
      const place = await fuse.lookup(await fuse.lookup(ROOT, "sub"), "mount");
      assert.notEqual((await fuse.call(Op.LOOKUP, place, text("keys"))).errno, 0);
      await helper[Symbol.asyncDispose]();
      dir = mount;
      await assert.rejects(start({ hidden: own }), { code: "unavailable", message: /the server's own directory/ });
    } finally {
      await helper[Symbol.asyncDispose]();
      await runTool("umount", [mount]);
    }
  });

  test("whoever comes after goes on with what was known and open, and says what is gone", async () => {
    const stay = await fuse.lookup(ROOT, "file");
    const sub = await fuse.lookup(ROOT, "sub");
    await writeFile(join(dir, "sub", "gone"), "x");
    const entry = await fuse.good(Op.LOOKUP, sub, text("gone"));
    const entries = [
      await fuse.good(Op.LOOKUP, ROOT, text("file")),
      await fuse.good(Op.LOOKUP, ROOT, text("sub")),
      entry,
    ];
    const gone = entry.readBigUInt64LE(0);
    await helper[Symbol.asyncDispose]();
    await rm(join(dir, "sub", "gone"));
    await writeFile(join(dir, "sub", "gone"), "another one");
    await start();
    const names = [
      ["file", ROOT],
      ["sub", ROOT],
      ["gone", sub],
    ] as const;
    const records = entries.map((each, at) => {
      const [name, parent] = names[at] ?? ["", 0n];
      const identity = u64(each.readBigUInt64LE(40), each.readBigUInt64LE(8), 1);
      return Buffer.concat([u32(1), each.subarray(0, 8), u64(parent), identity, u32(name.length), Buffer.from(name)]);
    });
    const open = Buffer.concat([u32(2), u64(7, stay), u32(O_RDWR, 0), u32(2), u64(8, gone), u32(O_RDWR, 0)]);
    fuse.tell(Op.RESTORE, 0n, Buffer.concat([...records, open]));
    assert.equal(String((await fuse.read(7n)).body), "content");
    assert.equal((await fuse.write(7n, "C")).errno, 0);
    assert.equal((await fuse.read(8n)).errno, errno.ESTALE);
    assert.equal((await fuse.call(Op.GETATTR, gone, u32(0, 0), u64(0))).errno, errno.ESTALE);
    assert.equal(await fuse.lookup(ROOT, "sub"), sub);
    assert.equal(await readFile(join(dir, "file"), "utf8"), "Content");
  });

  test("started by root it is the directory's owner, with that user's rights", async (t) => {
    if (!isRoot()) return t.skip("only root can become another user");
    await helper[Symbol.asyncDispose]();
    await writeFile(join(dir, "roots"), CANARY, { mode: 0o600 });
    await chmod(outside, 0o755);
    await chown(dir, 65_534, 65_534);
    await start();
    assert.equal((await create(ROOT, "made")).errno, 0);
    const { uid, gid } = await stat(join(dir, "made"));
    assert.deepEqual([uid, gid], [65_534, 65_534]);
    const roots = await fuse.lookup(ROOT, "roots");
    assert.equal((await fuse.call(Op.OPEN, roots, u32(O_RDONLY, 0))).errno, errno.EACCES);
  });

  test("a flood of open files is an error of the guest that opens them", async () => {
    const file = await fuse.lookup(ROOT, "file");
    const answers = await Promise.all(Array.from({ length: 20_000 }, () => fuse.call(Op.OPEN, file, u32(0, 0))));
    assert.equal(answers.at(-1)?.errno, errno.EMFILE);
    assert.equal((await fuse.call(Op.STATFS, ROOT)).errno, 0);
  });

  test("what a guest says that it knows takes so much memory and no more, and what fits in it is known", async () => {
    const most = 192 * 1024; // KiB
    const memory = async (): Promise<number> =>
      Number(/^VmRSS:\s*(\d+)/m.exec(await readFile(`/proc/${helper.pid}/status`, "latin1"))?.[1]);
    const name = Buffer.from("n".repeat(240));
    for (let node = 2; node < 600_000; ) {
      const records: Buffer[] = [];
      for (let each = 0; each < 150; each++, node++) {
        const unique = Buffer.concat([name, Buffer.from(String(node))]).subarray(0, 246);
        records.push(u32(1), u64(node, 1, node, 0, 1), u32(unique.length), unique);
      }
      for (let each = 0; each < 100; each++) records.push(u32(2), u64(node * 100 + each, node), u32(0, 0));
      fuse.tell(Op.RESTORE, 0n, Buffer.concat(records));
      if (node % 30_000 < 150) await fuse.good(Op.STATFS, ROOT);
    }
    await fuse.good(Op.STATFS, ROOT);
    const kib = await memory();
    assert.ok(kib < most, `${kib} KiB`);
    const long = "l".repeat(250);
    await writeFile(join(dir, long), "");
    assert.equal((await fuse.call(Op.LOOKUP, ROOT, text(long))).errno, errno.ENFILE);
    fuse.tell(Op.FORGET, 2n, u64(1));
    fuse.tell(Op.FORGET, 3n, u64(1));
    await fuse.lookup(ROOT, long);
  });

  test("bytes that are no requests end it, and it alone", async () => {
    helper.requests.write(Buffer.alloc(64));
    await helper.ended;
    assert.equal((await fuse.call(Op.STATFS, ROOT)).errno, -1);
  });

  test(`${MUTATIONS} requests with anything in them never reach what is outside`, async () => {
    await symlink("../secret", join(dir, "relative"));
    await symlink(join(outside, "secret"), join(dir, "absolute"));
    await link(join(dir, "file"), join(dir, "hard"));
    await chmod(outside, 0o777);
    await chmod(join(outside, "secret"), 0o666);
    const { leaked, starts } = await askAnything(MUTATIONS, CANARY, {
      current: () => ({ helper, fuse }),
      restart: async () => {
        await helper[Symbol.asyncDispose]();
        await start();
      },
    });
    assert.equal(leaked, false);
    assert.ok(starts < MUTATIONS / 200, `${starts} starts`);
    assert.equal(await readFile(join(outside, "secret"), "utf8"), CANARY);
    assert.deepEqual((await readdir(outside)).sort(), ["data", "dir", "secret"]);
  });
});
