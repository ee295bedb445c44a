import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { lock, tryLock } from "./lock.ts";

let root: string;
before(async () => {
  root = await mkdtemp(join(tmpdir(), "lock-"));
});
after(() => rm(root, { recursive: true, force: true }));

const HOLD = `
  const { tryLock } = await import(process.argv[1]);
  const held = await tryLock(process.argv[2], "daemon");
  console.log(held === undefined ? "taken" : "held");
  if (held !== undefined) setInterval(() => {}, 1000);
`;

/** Another process that tries to take the lock of `guarded`, perhaps elsewhere. @returns what it says, and the process */
async function other(guarded: string, ...within: string[]) {
  const node = [process.execPath, "--input-type=module", "-e", HOLD, new URL("lock.ts", import.meta.url).href, guarded];
  const [command = "", ...args] = [...within, ...node];
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  const [said] = await once(child.stdout, "data");
  return { said: String(said).trim(), child };
}

test("one holder at a time, in this process too; what is released is free", async () => {
  const guarded = join(root, "a");
  const held = await tryLock(guarded, "daemon");
  assert.ok(held);
  assert.equal(await tryLock(guarded, "daemon"), undefined);
  const another = await tryLock(guarded, "something else");
  assert.ok(another, "another lock of the same directory is another lock");
  await another.release();
  await held.release();
  await held.release();
  const again = await tryLock(guarded, "daemon");
  assert.ok(again);
  await again.release();
});

test("a holder that is killed holds no longer, and who waits gets it then", async () => {
  const guarded = join(root, "b");
  const { said, child } = await other(guarded);
  assert.equal(said, "held");
  assert.equal(await tryLock(guarded, "daemon"), undefined);
  const waiting = lock(guarded, "daemon");
  child.kill("SIGKILL");
  await (await waiting).release();
});

test("whoever waits gives up by its signal", async () => {
  const guarded = join(root, "c");
  await using _held = await tryLock(guarded, "daemon");
  const abort = new AbortController();
  const waiting = lock(guarded, "daemon", abort.signal);
  abort.abort(new Error("no longer"));
  await assert.rejects(waiting, /no longer/);
});

test("another name of the directory is the same lock", async () => {
  await symlink(root, `${root}-link`);
  try {
    await using held = await tryLock(join(root, "d"), "daemon");
    assert.ok(held);
    assert.equal(await tryLock(join(`${root}-link`, "d"), "daemon"), undefined);
  } finally {
    await rm(`${root}-link`);
  }
});

const unprivileged = process.getuid?.() !== 0 && "network and process namespaces need root";
test("it holds across network and process namespaces, as between two containers", { skip: unprivileged }, async () => {
  const guarded = join(root, "e");
  const { said, child } = await other(guarded, "unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child");
  assert.equal(said, "held");
  assert.equal(await tryLock(guarded, "daemon"), undefined);
  assert.equal((await other(guarded)).said, "taken");
  child.kill("SIGKILL");
  await (await lock(guarded, "daemon")).release();
});

test("the file goes with its lock, and is one lock however many take turns", async () => {
  const guarded = join(root, "turns", "it");
  const url = new URL("lock.ts", import.meta.url).href;
  // Each looks whether another one is inside, by a file that only one of them can make.
  const script = `
    const { lock } = await import(process.argv[1]);
    const { openSync, closeSync, unlinkSync } = await import("node:fs");
    for (let i = 0; i < 200; i++) {
      const held = await lock(process.argv[2], "turn");
      closeSync(openSync(process.argv[2] + ".inside", "wx"));
      await new Promise((next) => setImmediate(next));
      unlinkSync(process.argv[2] + ".inside");
      await held.release();
    }
  `;
  const ends = [1, 2, 3].map(async () => {
    const args = ["--input-type=module", "-e", script, url, guarded];
    return (await once(spawn(process.execPath, args, { stdio: "inherit" }), "exit"))[0];
  });
  const own = lock(guarded, "another").then((held) => held.release());
  assert.deepEqual(await Promise.all([...ends, own]), [0, 0, 0, undefined]);
  assert.deepEqual(await readdir(join(root, "turns", "locks")), []);
});
