/** Volumes on a real server: what is kept, who may have it, also over pause, suspend and kills of the server. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { runTool } from "../src/host/run.ts";
import { Server } from "./server-support.ts";

interface Mount {
  name: string;
  path: string;
  read_only?: boolean;
}

describe("volumes of a server, QEMU with Linux guests", () => {
  let server: Server;
  before(async () => {
    server = await Server.create("warm: { adaptive: false }\nproviders: { default: qemu }\n");
  });
  after(() => server[Symbol.asyncDispose]());

  const spawn = (volumes: Mount[]) =>
    server.call("POST", "/sandboxes", { image: "stacyvm/busybox", memory_mb: 256, disk_mb: 256, volumes });
  const started = async (...volumes: Mount[]): Promise<string> => {
    const { status, body } = await spawn(volumes);
    assert.equal(status, 201, JSON.stringify(body));
    return body.id;
  };
  const sh = async (id: string, command: string): Promise<string> => {
    const { body } = await server.call("POST", `/sandboxes/${id}/exec`, { command });
    assert.equal(body.exit_code, 0, JSON.stringify(body));
    return body.stdout.trim();
  };
  const make = (name: string, size_mb = 64) => server.ok("POST", "/volumes", { name, size_mb });
  const remove = (id: string) => server.ok("DELETE", `/sandboxes/${id}`);
  /** Of the volume that was made last. */
  const disk = async (): Promise<string> => {
    const root = join(server.root, "volumes");
    const names = await readdir(root);
    return join(root, names.at(-1) ?? "", "disk.ext4");
  };
  /** Nothing is repaired: it fails unless the filesystem is clean. */
  const assertClean = async (path: string): Promise<void> => {
    const found = await runTool("e2fsck", ["-fn", path], { env: { PATH: "/usr/sbin:/sbin:/usr/bin:/bin" } });
    assert.doesNotMatch(found.toString(), /recover|WARNING/i);
  };
  const dropVolumes = async (): Promise<void> => {
    for (const { name } of await server.ok("GET", "/volumes")) await server.ok("DELETE", `/volumes/${name}`);
  };

  test("what was written, synced or not, is there after the sandbox's end, and the filesystem was closed", async () => {
    await make("data");
    const first = await started({ name: "data", path: "/data" });
    await sh(first, "mkdir -p /data/deep/er && seq 200000 > /data/deep/er/numbers");
    const { sandboxes } = await server.ok("GET", "/volumes/data");
    assert.deepEqual(sandboxes, [{ id: first, path: "/data", read_only: false }]);
    const taken = await spawn([{ name: "data", path: "/other" }]);
    assert.equal(taken.status, 409);
    assert.match(taken.body.message, /volume data is with sandbox sb-/);
    assert.equal((await server.call("DELETE", "/volumes/data")).status, 409);
    for (const what of ["fork", "checkpoints"])
      assert.equal((await server.call("POST", `/sandboxes/${first}/${what}`, {})).status, 409, what);
    await remove(first);
    await assertClean(await disk());
    const readers = await Promise.all([1, 2].map(() => started({ name: "data", path: "/data", read_only: true })));
    for (const id of readers) assert.equal(await sh(id, "tail -n 1 /data/deep/er/numbers"), "200000");
    const refused = await server.call("POST", `/sandboxes/${readers[0]}/exec`, { command: "echo x > /data/x" });
    assert.notEqual(refused.body.exit_code, 0);
    await Promise.all(readers.map(remove));
    await dropVolumes();
  });

  test("a sandbox that was started again from the saved machine has the volume, too", async () => {
    await make("data", 200);
    const volumes = [{ name: "data", path: "/data" }];
    await server.ok("POST", "/snapshots", { image: "stacyvm/busybox", memory_mb: 256, disk_mb: 256, volumes });
    for (let i = 1; i <= 3; i++) {
      const { status, body } = await spawn(volumes);
      assert.equal(status, 201, JSON.stringify(body));
      assert.equal(body.boot.path, "restored");
      assert.equal(await sh(body.id, `echo ${i} >> /data/rounds; wc -l < /data/rounds`), String(i));
      await remove(body.id);
    }
    await dropVolumes();
  });

  test("pause and suspend hold it, also over a kill of the server", async () => {
    await make("data");
    const id = await started({ name: "data", path: "/data" });
    await server.ok("POST", `/sandboxes/${id}/processes`, {
      command: "i=0; while true; do i=$((i+1)); echo $i > /data/counter; sleep 0.05; done",
    });
    for (const [there, back] of [
      ["pause", "resume"],
      ["suspend", "resume"],
    ]) {
      await sh(id, `echo ${there} >> /data/words`);
      await server.ok("POST", `/sandboxes/${id}/${there}`);
      assert.equal((await spawn([{ name: "data", path: "/data", read_only: true }])).status, 409);
      if (there === "suspend") await assertClean(await disk());
      await server.stop("SIGKILL");
      await server.start();
      assert.equal((await spawn([{ name: "data", path: "/data", read_only: true }])).status, 409);
      await server.ok("POST", `/sandboxes/${id}/${back}`);
      const before = await sh(id, "cat /data/counter");
      await sh(id, `until [ "$(cat /data/counter)" != "${before}" ]; do sleep 0.05; done`);
    }
    // Ended while it stands still: what its guest had in memory is written first.
    await sh(id, "echo last >> /data/words");
    await server.ok("POST", `/sandboxes/${id}/pause`);
    await remove(id);
    await assertClean(await disk());
    const next = await started({ name: "data", path: "/data", read_only: true });
    assert.equal(await sh(next, "cat /data/words"), "pause\nsuspend\nlast");
    await remove(next);
    await dropVolumes();
  });
});
