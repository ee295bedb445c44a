import assert from "node:assert/strict";
import { chmod, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { createFirecracker } from "./firecracker.ts";
import { BlankFirecracker, type Life } from "./machine.ts";
import type { FirecrackerProcess } from "./process.ts";

test("a Firecracker that is replaced, or comes, while the server runs is the one that is used", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "firecracker-"));
  t.after(() => rm(root, { recursive: true, force: true }));
  const binary = join(root, "firecracker");
  const install = async (version: string): Promise<void> => {
    await writeFile(`${binary}.new`, `#!/bin/sh\necho "Firecracker v${version}"\n`);
    await chmod(`${binary}.new`, 0o755);
    await rename(`${binary}.new`, binary);
  };
  const vmm = createFirecracker({ assets: root, firecracker: binary });
  assert.equal((await vmm.probe()).usable, false);
  await install("1.12.1");
  const seen = [];
  for (let i = 0; i < 3; i++) seen.push((await vmm.probe()).version);
  await install("1.16.2");
  seen.push((await vmm.probe()).version);
  assert.deepEqual(seen, ["1.12.1", "1.12.1", "1.12.1", "1.16.2"]);
});

test("one that waits and is of a program that was replaced is not used", async () => {
  const process = {} as unknown as FirecrackerProcess;
  const config = { memoryMiB: 128, vcpus: 1, kernel: "/kernel" };
  for (const current of [true, false]) {
    const become = new BlankFirecracker(process, {} as unknown as Life, async () => current).become(config);
    if (current) await become;
    else await assert.rejects(become, { phase: "vmm", message: /was replaced/ });
  }
});
