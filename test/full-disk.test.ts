/**
 * A server whose whole data directory is on a disk that becomes full, and has room again: real Firecracker machines, a real ext4.
 * The bare guest, and Linux (a long form where KVM interprets its kernel).
 */
import assert from "node:assert/strict";
import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { processesIn } from "../src/host/process.ts";
import { runTool } from "../src/host/run.ts";
import { type Ask, CRASH_GUESTS, type CrashGuest } from "./crash-guests.ts";
import { fillUp } from "./fill-up.ts";
import { whyNot, whyNotLinux } from "./firecracker-support.ts";
import { Server } from "./server-support.ts";

const needsRoot = process.getuid?.() === 0 ? false : "needs root, to mount a small disk";
const goesOn = "on a full disk calls say so and sandboxes live and end; with room again all goes on, without a restart";
test(`the bare guest: ${goesOn}`, { skip: (await whyNot()) ?? needsRoot }, () =>
  fullDisk(CRASH_GUESTS.firecracker, { mib: 128, commands: 50 }),
);
test(`Linux: ${goesOn}`, { skip: (await whyNotLinux({ long: true })) ?? needsRoot }, () =>
  fullDisk(CRASH_GUESTS["firecracker-linux"], { mib: 256, commands: 5 }),
);

test("under QEMU a guest that writes stands still until there is room, and loses nothing; a start does not wait for it", {
  skip: needsRoot,
}, async () => {
  await using cleanup = new AsyncDisposableStack();
  const disk = await smallDisk(cleanup, 512);
  const server = cleanup.use(
    await Server.create("providers: { default: qemu }\nwarm: { adaptive: false }\n", { parent: disk }),
  );
  const spawn = { image: "stacyvm/busybox", memory_mb: 128, disk_mb: 128 };
  await server.ok("POST", "/snapshots", spawn);
  const { id } = await server.ok("POST", "/sandboxes", spawn);
  const exec = (command: string): Promise<{ exit_code: number; stdout: string }> =>
    server.ok("POST", `/sandboxes/${id}/exec`, { command, timeout: "10m" });
  const write = "dd if=/dev/zero bs=1M count=32 2>/dev/null | tr '\\0' a >/workspace/file && sync";
  await exec("cat /bin/busybox >/dev/null"); // read once, so that it needs no disk later
  const { pid } = server;

  const filler = join(disk, "filler");
  await fillUp(filler);
  let done = false;
  const writing = exec(write).then((result) => {
    done = true;
    return result;
  });
  while (!done && (await server.answers(id, 5_000))) {}
  assert.equal(done, false, "what could not be written was not said to be");
  await rm(filler);
  assert.equal((await writing).exit_code, 0);
  assert.equal((await exec("tr -d a </workspace/file | wc -c; wc -c </workspace/file")).stdout, `0\n${32 << 20}\n`);

  // With room for its directory and not for what its guest writes when it boots: nothing like it is saved.
  await fillUp(filler, 4 << 20);
  const begun = performance.now();
  const booting = server.call("POST", "/sandboxes", { ...spawn, memory_mb: 160 });
  let booted = false;
  void booting.then(() => {
    booted = true;
  });
  const monitors = (): Promise<number[]> => processesIn(join(server.root, "sandboxes"));
  while (!booted && (await monitors()).length < 2) {}
  await fillUp(filler);
  const refused = await booting;
  assert.deepEqual([refused.status, refused.body.code], [507, "NO_SPACE"], JSON.stringify(refused.body));
  assert.ok(performance.now() - begun < 100_000, "it waited for an answer of a guest that stood still");
  await rm(filler);
  assert.equal((await exec("echo fine")).stdout, "fine\n");
  assert.equal(server.pid, pid);
  await server.ok("DELETE", `/sandboxes/${id}`);
  assert.deepEqual(await server.machines(), []);
});

/** A new filesystem of its own, on a file. Not a tmpfs: there, reading a hole of a mapped file takes a page, and a machine's memory is full of holes. */
async function smallDisk(cleanup: AsyncDisposableStack, mib: number): Promise<string> {
  const disk = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "full-"));
  cleanup.defer(() => rm(disk, { recursive: true, force: true }));
  cleanup.defer(() => rm(`${disk}.img`, { force: true }));
  await writeFile(`${disk}.img`, "");
  await truncate(`${disk}.img`, mib << 20);
  await runTool("mkfs.ext4", ["-q", "-F", "-m", "0", `${disk}.img`]);
  await runTool("mount", ["-o", "loop", `${disk}.img`, disk]);
  cleanup.defer(async () => void (await runTool("umount", ["-l", disk])));
  return disk;
}

/** @param size.mib of the disk @param size.commands that are run while it is full */
async function fullDisk(guest: CrashGuest, size: { mib: number; commands: number }): Promise<void> {
  await using cleanup = new AsyncDisposableStack();
  const disk = await smallDisk(cleanup, size.mib);
  const server = cleanup.use(
    await Server.create("providers: { default: firecracker }\nwarm: { adaptive: false }\n", { parent: disk }),
  );
  const filler = join(disk, "filler");
  const fill = (): Promise<void> => fillUp(filler);
  const asking =
    (id: string): Ask =>
    (method, path, body) =>
      server.call(method, `/sandboxes/${id}${path}`, body);
  const echo = async (id: string): Promise<void> => assert.equal(await guest.echo(asking(id)), "fine");
  const spawn = async (): Promise<string> => {
    const answer = await server.call("POST", "/sandboxes", guest.spawn);
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    return answer.body.id;
  };
  assert.equal((await server.call("POST", "/snapshots", guest.spawn)).status, 201);
  const [kept, gone] = [await spawn(), await spawn()];
  await guest.begin(asking(kept));
  assert.equal(await guest.count(asking(kept)), 1);
  const commands = async (): Promise<number> =>
    (await server.call("GET", `/sandboxes/${kept}/history?limit=100`)).body.length;
  const before = await commands();

  await fill();
  for (let i = 0; i < size.commands; i++) await echo(kept); // their history has no place
  const refused = await server.call("POST", "/sandboxes", guest.spawn);
  assert.deepEqual([refused.status, refused.body.code], [507, "NO_SPACE"], JSON.stringify(refused.body));
  for (const save of ["suspend", "checkpoints", "fork"]) {
    const unsaved = await server.call("POST", `/sandboxes/${kept}/${save}`, {});
    assert.deepEqual(
      [unsaved.status, unsaved.body.code],
      [507, "NO_SPACE"],
      `${save}: ${JSON.stringify(unsaved.body)}`,
    );
  }
  assert.equal(await guest.count(asking(kept)), 2, "as if it had not been asked to be saved");
  const template = await server.call("POST", "/templates", { name: "t", image: guest.spawn.image });
  assert.deepEqual([template.status, template.body.code], [507, "NO_SPACE"], JSON.stringify(template.body));
  const ended = await server.call("DELETE", `/sandboxes/${gone}`);
  assert.ok([200, 507].includes(ended.status), JSON.stringify(ended.body));
  await echo(kept);
  const list = (await server.call("GET", "/sandboxes")).body as { id: string; state: string }[];
  assert.deepEqual(
    list.map(({ id, state }) => `${id} ${state}`),
    [`${kept} running`],
    "only what there is",
  );
  assert.deepEqual(await server.machines(), [kept], "and nothing of it else");

  const { pid } = server;
  await rm(filler);
  const late = await spawn();
  await echo(late);
  for (const change of ["suspend", "resume"]) {
    assert.equal((await server.call("POST", `/sandboxes/${kept}/${change}`)).status, 200);
  }
  assert.equal(await guest.count(asking(kept)), 3);
  assert.equal((await server.call("POST", "/templates", { name: "t", image: "stacyvm/bare" })).status, 201);
  assert.equal(await commands(), before + size.commands + 3, "nothing is lost");
  assert.equal((await server.call("GET", "/diagnostics")).body.store.healthy, true);
  assert.equal(server.pid, pid);

  // A start on a full disk comes up, or says why; the sandboxes wait.
  await fill();
  await server.stop("SIGKILL");
  await server.start().catch((error: Error) => assert.match(error.message, /free|full|no space/i));
  await server.stop("SIGKILL");
  await rm(filler);
  await server.start();
  await echo(kept);
  await echo(late);
  for (const id of [kept, late]) assert.equal((await server.call("DELETE", `/sandboxes/${id}`)).status, 200);
  assert.deepEqual(await server.machines(), []);
}
