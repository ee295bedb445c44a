import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { Readable } from "node:stream";
import { test } from "node:test";
import { readTar, type TarEntry } from "./tar.ts";
import { type TarMember, writeTar } from "./tar-writer.ts";

const PLAIN = { mode: 0o644, uid: 0, gid: 0, size: 0, mtime: 0, link: "", major: 0, minor: 0, xattrs: new Map() };

/** Every kind, and each number and name with room in the header and without. */
const MEMBERS: TarMember[] = [
  { ...PLAIN, path: "directory", type: "directory", mode: 0o2755 },
  { ...PLAIN, path: "caf\xe9", type: "file", size: 513, bytes: () => Readable.from([Buffer.alloc(513, "x")]) },
  { ...PLAIN, path: `${"d/".repeat(60)}\xff`, type: "symlink", mode: 0o777, link: `${"\xe9/".repeat(80)}x` },
  { ...PLAIN, path: "n".repeat(100), type: "symlink", mode: 0o777, link: "l".repeat(100) },
  { ...PLAIN, path: "pipe", type: "fifo", mode: 0o666, uid: 8 ** 7 - 1, gid: 8 ** 7 },
  { ...PLAIN, path: "null", type: "character", major: 1, minor: 3, uid: 4_294_967_294 },
  { ...PLAIN, path: "disk", type: "block", major: 4_095, minor: 1_048_575, mtime: -2_147_483_648 },
  {
    ...PLAIN,
    path: "future",
    type: "file",
    mtime: 8 ** 11,
    xattrs: new Map([["user.a", Buffer.from([0, 10, 61, 200])]]),
  },
  { ...PLAIN, path: "before", type: "file", mtime: -1, xattrs: new Map([["user.b", Buffer.alloc(1_000)]]) },
  { ...PLAIN, path: "same", type: "hardlink", link: "caf\xe9" },
];

test("an archive has what it was made of, whatever its names, numbers and kinds", async () => {
  const came: Omit<TarEntry, "stored" | "mtimeNs">[] = [];
  const contents: string[] = [];
  await readTar(writeTar(MEMBERS), async ({ stored: _stored, mtimeNs, ...entry }, body) => {
    assert.equal(mtimeNs, 0);
    came.push(entry);
    contents.push(Buffer.concat(await Array.fromAsync(body)).toString());
  });
  assert.deepEqual(
    came,
    MEMBERS.map(({ bytes: _bytes, ...member }) => member),
  );
  assert.equal(contents.join(""), "x".repeat(513));
});

test("the system's tar lists it as well", async () => {
  const input = Buffer.concat(await Array.fromAsync(writeTar(MEMBERS)));
  const { stdout, stderr, status } = spawnSync(
    "tar",
    ["-tvf", "-", "--quoting-style=escape", "--utc", "--numeric-owner"],
    {
      ...{ input, env: { ...process.env, LC_ALL: "C" } },
    },
  );
  assert.equal(status, 0, stderr.toString());
  const lines = stdout.toString().split("\n");
  assert.match(lines[1] ?? "", /^-rw-r--r-- 0\/0 +513 1970-01-01 00:00 caf\\351$/);
  assert.match(lines[4] ?? "", /^prw-rw-rw- 2097151\/2097152 .* pipe$/);
  assert.match(lines[6] ?? "", /^brw-r--r-- 0\/0 +4095,1048575 1901-12-13 20:45 disk$/);
});

test("content that is not as long as it was said, and an attribute that has no form, fail the archive", async () => {
  for (const size of [2, 4]) {
    const member: TarMember = {
      ...PLAIN,
      path: "f",
      type: "file",
      size,
      bytes: () => Readable.from([Buffer.from("abc")]),
    };
    await assert.rejects(Array.fromAsync(writeTar([member])), { code: "internal", message: /f has 3 bytes/ });
  }
  const xattrs = new Map([["user.a=b", Buffer.from("x")]]);
  const odd: TarMember = { ...PLAIN, path: "caf", type: "file", xattrs };
  await assert.rejects(Array.fromAsync(writeTar([odd])), { code: "not-supported", message: /caf has an attribute/ });
});
