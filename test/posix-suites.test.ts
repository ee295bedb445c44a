/**
 * A sandbox's root under public suites, on both base filesystems, booted, restored and forked. A long form: `STACYVM_LONG=1` builds the
 * suites (five minutes; kept in `.build/suites`).
 */
import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { sandboxId } from "../bench/spawning.ts";
import type { Agent } from "../src/guest/agent.ts";
import { runTool } from "../src/host/run.ts";
import { createImages } from "../src/images/store.ts";
import { createMicrovmProvider } from "../src/providers/microvm.ts";
import type { SandboxMachine } from "../src/providers/provider.ts";
import { createQemu } from "../src/vmm/qemu/qemu.ts";
import { startGuest } from "./agent-support.ts";
import { scratchPaths } from "./launcher-support.ts";
import { fsx, pjdfstest, suitesTree } from "./posix-suites.ts";

const skip = process.env.STACYVM_LONG === "1" ? false : "a long form: STACYVM_LONG=1 runs it";
const OPERATIONS = 20_000;

describe("public suites of file systems", { skip }, () => {
  let paths: Awaited<ReturnType<typeof scratchPaths>>;
  let tree: string;

  before(async () => {
    const shared = await scratchPaths();
    paths = { ...shared, images: join(shared.root, "images") };
    tree = join(shared.root, "tree");
    await suitesTree(tree);
    await createImages(paths).import(tree, "test/suites");
  });
  after(() => rm(paths.root, { recursive: true, force: true }));

  async function everything(agent: Agent, seed: number): Promise<void> {
    const { passed, failed, skipped } = await pjdfstest(agent, "/asked");
    // An overlay's sign for a name that is gone is a character device 0:0, so nobody may make one: the only device that these cases make.
    assert.deepEqual(
      failed.filter((name) => !name.endsWith("::char")),
      [],
    );
    // What needs the file system mounted anew to read only, and the largest count of links, which an overlay does not tell.
    assert.deepEqual(
      skipped.filter((name) => !/erofs_|link_count_max/.test(name)),
      [],
    );
    assert.ok(passed >= 340, `${passed} passed`);
    await fsx(agent, "/made", OPERATIONS, seed);
    // A file of the image, written for the first time.
    await fsx(agent, "/of-the-image", OPERATIONS, seed + 1);
  }

  for (const filesystem of ["erofs", "ext4"] as const) {
    test(`above a base of ${filesystem}`, async () => {
      const base = join(paths.root, `${filesystem}.img`);
      if (filesystem === "erofs") await runTool("cp", [(await createImages(paths).resolve("test/suites")).base, base]);
      else {
        await runTool("mke2fs", ["-q", "-F", "-t", "ext4", "-b", "4096", "-d", tree, base, "400M"], {
          package: "e2fsprogs",
        });
      }
      await using guest = await startGuest({
        base: { path: base, filesystem },
        memoryMiB: 512,
        diskMiB: 1024,
        vcpus: 2,
      });
      await everything(guest.agent, 1);
    });
  }

  test("restored, forked, and woken", async () => {
    const provider = createMicrovmProvider({ vmm: createQemu(), images: createImages(paths), paths });
    const spec = { image: "test/suites", memoryMiB: 512, vcpus: 2, diskMiB: 1024, env: {}, setup: [] };
    try {
      const first = await provider.spawn({ id: sandboxId(), ...spec });
      await provider.launcher.settle();
      await first.destroy();
      const source = await provider.spawn({ id: sandboxId(), ...spec });
      await using ends = new AsyncDisposableStack();
      ends.defer(() => source.destroy());
      await everything(source.agent, 3);
      const { machines } = await source.fork([sandboxId()]);
      const [fork] = machines as [SandboxMachine];
      await everything(fork.agent, 5).finally(() => fork.destroy());
      await source.suspend();
      await source.resume();
      await everything(source.agent, 7);
    } finally {
      await provider.close();
    }
  });
});
