import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { arm, disarm } from "../../../test/faults/points.ts";
import { migrateOut } from "./migration.ts";
import { removeSockets } from "./process.ts";
import type { Qmp, QmpEvent } from "./qmp.ts";
import { saveTarget } from "./save-file.ts";

/** A monitor that sends its state to the socket that it is told, and says what became of it. */
function monitor(dir: string): Qmp {
  let tell: (event: QmpEvent) => void = () => {};
  const send = (uri: string): void => {
    let status = "failed";
    const socket = connect(join(dir, uri.replace("unix:", "")));
    socket.on("error", () => {});
    socket.on("close", () => tell({ event: "MIGRATION", data: { status } }));
    const more = (): void => {
      if (socket.destroyed || socket.writableEnded) return;
      socket.write("x".repeat(1_000), () => setTimeout(more, 2));
    };
    setTimeout(() => {
      if (socket.destroyed) return;
      status = "completed";
      socket.end();
    }, 300);
    more();
  };
  return {
    open: true,
    lost: new Promise(() => {}),
    bounded: (work: Promise<unknown>) => work,
    following: (listener: typeof tell, work: () => Promise<unknown>) => {
      tell = listener;
      return work();
    },
    execute: async (command: string, args?: { uri: string }) => {
      if (command === "migrate" && args !== undefined) send(args.uri);
      if (command === "query-migrate") return { "error-desc": "Unable to write to socket: Broken pipe" };
      return { status: "postmigrate" };
    },
  } as unknown as Qmp;
}

async function place(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "save-"));
  t.after(() => rm(dir, { recursive: true }));
  return dir;
}

test("a QEMU that cannot write its state itself: a full disk is `no-space`, and nothing is left", async (t) => {
  const dir = await place(t);
  const target = await saveTarget("7.2.0", dir, join(dir, "vmstate.bin"), 1e6);
  t.after(() => disarm());
  arm("fs.write", 3, "lasting");
  await assert.rejects(migrateOut(monitor(dir), target, true), { code: "no-space", message: /ENOSPC/ });
  assert.equal(disarm().reached, true);
  await target.close();
  assert.deepEqual(await readdir(dir), ["run"]);
});

test("what it sends is the file", async (t) => {
  const dir = await place(t);
  const path = join(dir, "vmstate.bin");
  const target = await saveTarget("7.2.0", dir, path, 1e6);
  await migrateOut(monitor(dir), target, true);
  await target.close();
  assert.match(await readFile(path, "latin1"), /^x+$/);
  assert.deepEqual(await readdir(dir), ["run", "vmstate.bin"]);
});

test("a monitor that has sent everything before its connection is taken has sent it", async (t) => {
  const dir = await place(t);
  const path = join(dir, "vmstate.bin");
  const target = await saveTarget("7.2.0", dir, path, 1e6);
  const finished = target.finish(); // nobody has come yet
  connect(join(dir, target.uri.replace("unix:", ""))).end("all of it");
  await finished;
  await target.close();
  assert.equal(await readFile(path, "latin1"), "all of it");
});

test("what it writes itself can be read by the user of the next one; what is no file is refused", async (t) => {
  const dir = await place(t);
  const path = join(dir, "stream.bin");
  const target = await saveTarget("8.2.0", dir, path, 1e6);
  assert.equal(target.uri, "file:run/save.bin");
  await writeFile(join(dir, "run/save.bin"), "state", { mode: 0o600 });
  await target.finish();
  assert.equal((await stat(path)).mode & 0o777, 0o644);
  const outside = join(dir, "outside");
  await writeFile(outside, "ours", { mode: 0o600 });
  await symlink(outside, join(dir, "run/save.bin"));
  await assert.rejects(target.finish(), { code: "corrupt" });
  assert.equal((await stat(outside)).mode & 0o777, 0o600);
});

test("a QEMU that sends more than its machine can need is not heard to the end: nothing is left, and nobody waits for it", async (t) => {
  const dir = await place(t);
  const target = await saveTarget("7.2.0", dir, join(dir, "vmstate.bin"), 10_000);
  // It says nothing of a failure.
  const mute = { ...monitor(dir), following: (_: unknown, work: () => Promise<unknown>) => work() } as unknown as Qmp;
  await assert.rejects(migrateOut(mute, target, true), { code: "too-large", message: /more than 10000 bytes/ });
  assert.ok((await stat(join(dir, "save.bin"))).size <= 10_000);
  await target.close();
  assert.deepEqual(await readdir(dir), ["run"]);
  const own = await saveTarget("8.2.0", dir, join(dir, "vmstate.bin"), 10_000);
  await writeFile(join(dir, "run/save.bin"), "x".repeat(10_001));
  await assert.rejects(own.finish(), { code: "too-large" });
  await own.close();
  assert.deepEqual(await readdir(dir, { recursive: true }), ["run"]);
});

test("sockets of a QEMU that was killed are removed where an earlier version had them, too", async (t) => {
  const dir = await place(t);
  await mkdir(join(dir, "run"));
  for (const name of ["qmp.sock", "agent.sock", "run/qmp.sock", "run/agent.sock"]) await writeFile(join(dir, name), "");
  await removeSockets(dir);
  assert.deepEqual(await readdir(dir, { recursive: true }), ["run"]);
});
