/** A daemon that is killed at any moment of starting Firecrackers loses none that it had told of, and leaves nothing else. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, rm } from "node:fs/promises";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { processesIn } from "../src/host/process.ts";
import { buildBareGuest } from "../src/images/bare-guest.ts";
import { createImages } from "../src/images/store.ts";
import { createMicrovmProvider, type MicrovmProvider } from "../src/providers/microvm.ts";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { installFirecracker } from "../src/vmm/firecracker/install.ts";
import { whyNot, whyNotLinux } from "./firecracker-support.ts";
import { borrowGoldens, lendGoldens } from "./goldens.ts";
import { scratchPaths } from "./launcher-support.ts";
import { specOf } from "./spawn-spec.ts";

const KILLS = Number(process.env.STACYVM_KILLS ?? 16);
const LINUX_KILLS = Number(process.env.STACYVM_KILLS ?? 4);

const inside = (guest: string, kills: number): string =>
  `${guest}: ${kills} kills between and inside the phases of a start`;
test(inside("the bare guest", KILLS), { skip: (await whyNot()) ?? false }, () => kills("stacyvm/bare", KILLS, 40));
test(inside("Linux", LINUX_KILLS), { skip: (await whyNotLinux()) ?? false }, () =>
  kills("stacyvm/busybox", LINUX_KILLS, 400),
);

/** @param spreadMs the kills fall into this time after the third start has begun */
async function kills(image: string, count: number, spreadMs: number): Promise<void> {
  const paths = await scratchPaths();
  await installFirecracker(paths.assets);
  await buildBareGuest(paths.assets);
  await borrowGoldens(paths.snapshots);
  const open = (): MicrovmProvider =>
    createMicrovmProvider({
      vmm: createFirecracker({ assets: paths.assets }),
      images: createImages(paths),
      paths,
    });
  let adoptions = 0;
  try {
    // Every start is a restore then: a kill in the middle of a cold boot would find the same thing each time.
    const builder = open();
    await builder.buildSnapshot(specOf(image));
    await builder.close();
    await lendGoldens(paths.snapshots);
    for (let i = 0; i < count; i++) {
      const mode = i % 2 === 0 ? "plain" : "pool";
      const child = spawn(
        process.execPath,
        [new URL("spawn-until-killed.ts", import.meta.url).pathname, paths.root, mode, image],
        {
          stdio: ["ignore", "pipe", "inherit"],
        },
      );
      const told: string[] = [];
      const lines = createInterface({ input: child.stdout });
      // From the second sandbox on starts are restores; the delay then falls into another part of one each time.
      await new Promise<void>((resolve) => {
        lines.on("line", (line) => {
          told.push(line.split(" ")[1] as string);
          if (told.length === 3) setTimeout(resolve, (i * spreadMs) / count);
        });
      });
      const exited = once(child, "exit");
      child.kill("SIGKILL");
      await Promise.all([exited, once(lines, "close")]);
      const provider = open();
      const { adopted } = await provider.adopt(new Set(told));
      assert.deepEqual(adopted.map(({ id }) => id).sort(), told.sort());
      adoptions += adopted.length;
      await Promise.all(adopted.map((machine) => machine.agent.ping()));
      await Promise.all(adopted.map((machine) => machine.destroy()));
      await provider.close();
      assert.deepEqual(await readdir(paths.sandboxes), []);
      assert.deepEqual(await readdir(paths.tmp).catch(() => []), []);
      assert.deepEqual(await processesIn(paths.root), []);
    }
    console.log(`# ${image}: ${count} kills, ${adoptions} adoptions, nothing left`);
  } finally {
    await rm(paths.root, { recursive: true, force: true });
  }
}
