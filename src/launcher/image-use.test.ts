import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { arm, disarm } from "../../test/faults/points.ts";
import { dataPaths } from "../host/paths.ts";
import { FILES } from "../vmm/vmm.ts";
import { imageUse } from "./image-use.ts";
import { RECORD_FILE } from "./machine-dir.ts";
import { SnapshotStore } from "./snapshot-store.ts";

const [MACHINE, SAVED] = ["a".repeat(64), "b".repeat(64)];

test("what machines and checkpoints need is all there, or it is not said: never less, for want of descriptors", async (t) => {
  const root = await mkdtemp(join(tmpdir(), "image-use-"));
  t.after(() => rm(root, { recursive: true }));
  const paths = dataPaths(root);
  const machine = join(paths.sandboxes, "sb-00000001");
  await mkdir(machine, { recursive: true });
  await symlink(`../../images/${MACHINE}/base.img`, join(machine, FILES.base));
  await writeFile(join(paths.sandboxes, "not a directory"), "");
  const store = new SnapshotStore(paths.snapshots);
  const work = join(root, "work");
  await mkdir(work);
  for (const part of ["vmstate.bin", "memory.bin", "rootfs.ext4"]) await writeFile(join(work, part), part);
  const shape = { imageDigest: `sha256:${SAVED}`, cmdline: "", vmm: "qemu", vmmIdentity: {}, guest: "linux" } as never;
  await store.publish(work, { key: "c".repeat(64), kind: "checkpoint", image: "i", shape });

  const needed = async (): Promise<string[]> => [...(await imageUse(paths, new SnapshotStore(paths.snapshots))).needed];
  const all = [`sha256:${MACHINE}`, `sha256:${SAVED}`];
  for (const record of [undefined, "{"]) {
    if (record !== undefined) await writeFile(join(machine, RECORD_FILE), record);
    assert.deepEqual(await needed(), all);
  }
  let refused = 0;
  for (let at = 1, reached = true; reached; at++) {
    arm("fs.open", at);
    const found = await needed().catch((error: { code?: string }) => error.code);
    ({ reached } = disarm());
    if (found === "EMFILE") refused += 1;
    else assert.deepEqual(found, all, `call ${at}`);
  }
  assert.ok(refused >= 3);
});
