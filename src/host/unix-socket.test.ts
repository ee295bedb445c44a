import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, rm, stat, symlink } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { connectUnix, listenUnix } from "./unix-socket.ts";

test("a socket is met by its name, however long; a link in its place is not followed", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "socket-"));
  const long = join(root, "d".repeat(120));
  const server = createServer((socket) => socket.end("hello"));
  t.after(async () => {
    server.close();
    await rm(root, { recursive: true });
  });
  await mkdir(long);
  const waiting = connectUnix(root, "s.sock", { timeoutMs: 5_000 });
  await once(server.listen(join(root, "s.sock")), "listening");
  const socket = await waiting;
  assert.equal(String((await once(socket, "data"))[0]), "hello");
  await symlink("../s.sock", join(long, "link"));
  await symlink("s.sock", join(root, "link"));
  for (const dir of [root, long])
    await assert.rejects(connectUnix(dir, "link", { timeoutMs: 20 }), (error: Error) => {
      assert.match(String(error.cause), /is no socket/);
      return true;
    });
  await assert.rejects(connectUnix(root, "none", { timeoutMs: 0 }), { code: "timeout" });
  const other = createServer((each) => each.end("there"));
  t.after(() => other.close());
  process.chdir(long);
  await once(other.listen("o.sock"), "listening");
  process.chdir("/");
  const far = await connectUnix(long, "o.sock", { timeoutMs: 5_000 });
  assert.equal(String((await once(far, "data"))[0]), "there");
});

test("who listens is met by this user alone, however long the name, and its end removes its own socket", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "socket-"));
  t.after(() => rm(root, { recursive: true }));
  const [long, other] = ["d", "e"].map((letter) => join(root, letter.repeat(120))) as [string, string];
  const servers = [];
  for (const dir of [long, other]) {
    await mkdir(dir);
    const server = createServer((socket) => socket.end(dir));
    t.after(() => void server.close());
    servers.push(server);
    await listenUnix(server, dir, "s.sock");
  }
  assert.equal((await stat(join(long, "s.sock"))).mode & 0o777, 0o600);
  const socket = await connectUnix(long, "s.sock", { timeoutMs: 5_000 });
  assert.equal(String((await once(socket, "data"))[0]), long);
  socket.destroy();
  await assert.rejects(listenUnix(createServer(), long, "s.sock"), { code: "EADDRINUSE" });
  for (const [server, dir] of [
    [servers[0], long],
    [servers[1], other],
  ] as const) {
    assert.deepEqual(await readdir(dir), ["s.sock"]);
    await new Promise((closed) => server?.close(closed));
    assert.deepEqual(await readdir(dir), []);
  }
});
