/** A volume of a Linux sandbox under the real Firecracker: attached, over a suspend and a kill of its machine. A long form where its kernel is interpreted. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { whyNotLinux } from "./firecracker-support.ts";
import { Server } from "./server-support.ts";

const SHAPE = { image: "stacyvm/busybox", memory_mb: 256, disk_mb: 256, volume_slots: 1 };

test("a volume under Firecracker with Linux", { skip: (await whyNotLinux({ long: true })) ?? false }, async () => {
  await using server = await Server.create("providers: { default: firecracker }\nwarm: { adaptive: false }\n");
  const good = (method: string, path: string, body?: unknown) => server.ok(method, path, body);
  const run = async (id: string, command: string): Promise<string> => {
    const { exit_code, stdout, stderr } = await good("POST", `/sandboxes/${id}/exec`, { command });
    assert.equal(exit_code, 0, `${command}: ${stderr}`);
    return stdout.trim();
  };
  await good("POST", "/snapshots", SHAPE);
  await good("POST", "/volumes", { name: "data", size_mb: 64 });
  const start = async (): Promise<string> => {
    const { id, boot } = await good("POST", "/sandboxes", SHAPE);
    assert.equal(boot.vmm, "firecracker");
    return id;
  };
  /** What is left of a machine that was killed has the volume until it is removed. */
  const attach = async (id: string): Promise<void> => {
    for (;;) {
      const { status, body } = await server.call("POST", `/sandboxes/${id}/volumes`, { name: "data", path: "/data" });
      if (status === 200) return;
      assert.match(JSON.stringify(body), /what is left of sandbox|is with sandbox/);
    }
  };
  const first = await start();
  await attach(first);
  await run(first, "echo synced > /data/word; sync /data/word");
  await good("POST", `/sandboxes/${first}/suspend`);
  await good("POST", `/sandboxes/${first}/resume`);
  assert.equal(await run(first, "cat /data/word; echo more >> /data/word; sync /data/word; echo"), "synced");
  await good("DELETE", `/sandboxes/${first}/volumes/data`);
  await attach(first);
  const record = await readFile(join(server.root, "sandboxes", first, "sandbox.json"), "utf8");
  process.kill(JSON.parse(record).process.pid, "SIGKILL");
  const second = await start();
  await attach(second);
  assert.equal(await run(second, "cat /data/word"), "synced\nmore");
  for (const id of [first, second]) await good("DELETE", `/sandboxes/${id}`);
});
