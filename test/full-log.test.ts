/** A server whose log lies on the same full disk as its data: what it cannot write there is no reason to end. A real tmpfs, no machines. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { borrow } from "../bench/borrow.ts";
import { findLocal } from "../src/cli/local-socket.ts";
import { packageRoot } from "../src/host/paths.ts";
import { runTool } from "../src/host/run.ts";
import { fillUp } from "./fill-up.ts";

const skip = process.getuid?.() === 0 ? false : "needs root, to mount a small disk";
const main = join(packageRoot, "src/cli/main.ts");

interface Running {
  root: string;
  log: string;
  disk: string;
  child: ChildProcess;
}

for (const format of ["json", "pretty"]) {
  test(`a server whose log (${format}) lies on a full disk says what is wrong, lives, and tells what is missing once there is room`, {
    skip,
  }, async () => {
    await using cleanup = new AsyncDisposableStack();
    const config = `logging: { format: ${format} }\nproviders: { default: qemu }\nwarm: { adaptive: false }\n`;
    const running = await start(cleanup, "log", ["serve", "--port", "0"], config);
    await livesThrough(running);
    running.child.kill("SIGTERM");
    assert.deepEqual(await once(running.child, "exit"), [0, null]);
  });
}

test("a background server, whose log is in its data directory, lives through a full disk too", { skip }, async () => {
  await using cleanup = new AsyncDisposableStack();
  const running = await start(cleanup, "data/server.log", ["background-server"], "providers: { default: qemu }\n");
  await livesThrough(running);
});

test("a server goes on when nobody reads what it says", async () => {
  await using cleanup = new AsyncDisposableStack();
  const root = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "unread-"));
  cleanup.defer(() => rm(root, { recursive: true, force: true }));
  await borrow(root);
  const child = spawn(process.execPath, [main, "serve", "--data-dir", root, "--port", "0"], {
    ...{ stdio: ["ignore", "pipe", "pipe"], cwd: root, env: { ...process.env, STACYVM_PROVIDERS_DEFAULT: "qemu" } },
  });
  cleanup.defer(() => ended(child));
  child.stdout?.destroy();
  child.stderr?.destroy();
  const { url } = await served(root, child);
  assert.equal((await fetch(`${url}/api/v1/volumes/none`)).status, 404);
  child.kill("SIGTERM");
  assert.deepEqual(await once(child, "exit"), [0, null]);
});

async function start(
  cleanup: AsyncDisposableStack,
  logName: string,
  words: string[],
  config: string,
): Promise<Running> {
  const disk = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "full-log-"));
  cleanup.defer(() => rm(disk, { recursive: true, force: true }));
  await runTool("mount", ["-t", "tmpfs", "-o", "size=24m", "tmpfs", disk]);
  cleanup.defer(async () => void (await runTool("umount", ["-l", disk])));
  const root = join(disk, "data");
  await mkdir(root);
  await borrow(root);
  await writeFile(join(root, "stacyvm.yaml"), config);
  const log = join(disk, logName);
  await using file = await open(log, "w", 0o600);
  const env = { ...process.env, STACYVM_DATA_DIR: root, STACYVM_BACKGROUND: "10m" };
  const child = spawn(process.execPath, [main, ...words], { stdio: ["ignore", file.fd, file.fd], cwd: root, env });
  cleanup.defer(() => ended(child));
  return { disk, root, log, child };
}

/** The disk becomes full and has room again, while calls are made. */
async function livesThrough({ disk, root, log, child }: Running): Promise<void> {
  const { url, key } = await served(root, child);
  const post = async (path: string, body: object): Promise<{ status: number; body: Record<string, string> }> => {
    const headers = { "content-type": "application/json", "x-api-key": key };
    const answer = await fetch(`${url}/api/v1${path}`, { method: "POST", headers, body: JSON.stringify(body) });
    return { status: answer.status, body: (await answer.json()) as Record<string, string> };
  };
  const filler = join(disk, "filler");
  await fillUp(filler);
  // The last page of the log has room for a little.
  for (let i = 0; i < 20; i++) {
    const unmade = await post("/volumes", { name: "v", size_mb: 64 });
    assert.deepEqual([unmade.status, unmade.body.code], [507, "NO_SPACE"], JSON.stringify(unmade.body));
    assert.match(unmade.body.message ?? "", /no space left/);
    assert.doesNotMatch(unmade.body.message ?? "", /\n|sector/);
    assert.match(unmade.body.remedy ?? "", /free disk space/);
    const unkept = await post("/keys", { name: `k${i}`, owner: "o", scopes: ["read"] });
    assert.deepEqual([unkept.status, unkept.body.code], [507, "NO_SPACE"], JSON.stringify(unkept.body));
  }
  assert.deepEqual(await readdir(join(root, "volumes")), [], "nothing of a volume that was not made");

  await rm(filler);
  assert.equal((await post("/volumes", { name: "v", size_mb: 64 })).status, 201);
  // A call that fails logs the next line.
  await fillUp(filler);
  await post("/volumes", { name: "w", size_mb: 64 });
  await rm(filler);
  for (let i = 0; !/could not be written here/.test(await readFile(log, "utf8")); i++) {
    assert.equal(child.exitCode, null);
    assert.ok(i < 3, await readFile(log, "utf8"));
    await post("/sandboxes", { image: "stacyvm/busybox", memory_mb: 1 });
  }
  assert.match(
    await readFile(log, "utf8"),
    /\d+ lines of this log could not be written here \(ENOSPC\), and were dropped/,
  );
}

async function served(root: string, child: ChildProcess): Promise<{ url: string; key: string }> {
  for (;;) {
    assert.equal(child.exitCode, null, "the server ended");
    // Its greeting comes after it has begun to listen for signals.
    using found = await findLocal(root);
    if (found?.key !== undefined) return { url: found.url, key: found.key };
    await delay(20);
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await once(child, "exit");
}
