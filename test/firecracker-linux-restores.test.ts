/**
 * No connection is lost after a load: restores of Linux under the real Firecracker, one after another and ten at once, each with its
 * first commands right behind. What goes wrong here belongs to the golden snapshot, so the long form builds several:
 *
 *     STACYVM_GOLDENS=3 STACYVM_RESTORES=300 STACYVM_STORMS=20 npm test -- firecracker-linux-restores
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createFirecracker } from "../src/vmm/firecracker/firecracker.ts";
import { assets, whyNotLinux } from "./firecracker-support.ts";
import { Bench, sh } from "./launcher-support.ts";

const GOLDENS = Number(process.env.STACYVM_GOLDENS ?? 1);
const RESTORES = Number(process.env.STACYVM_RESTORES ?? 12);
const STORMS = Number(process.env.STACYVM_STORMS ?? 1);
const AT_ONCE = 10;

describe("restores of Linux under the real Firecracker", { skip: (await whyNotLinux()) ?? false }, () => {
  test(`${RESTORES} in turn and ${STORMS} times ${AT_ONCE} at once, over ${GOLDENS} golden snapshots`, {
    timeout: 7_200_000,
  }, async () => {
    const samples: Record<string, number[]> = {};
    const wrong: string[] = [];
    for (let golden = 0; golden < GOLDENS; golden++) {
      await using bench = await Bench.create(createFirecracker({ assets }));
      bench.launcher.events.on("restore.failed", ({ phase, reason }) => wrong.push(`restore ${phase}: ${reason}`));
      // A set-up command of its own makes it another golden snapshot.
      const spec = golden === 0 ? {} : { setup: [`echo ${golden} > /golden`] };
      await bench.golden(spec);
      const one = async (kind: string): Promise<void> => {
        const launched = await bench.launch(spec);
        const { boot } = launched;
        if (boot.path !== "restored") wrong.push(`${boot.path}: ${boot.fallback}`);
        for (const [phase, ms] of Object.entries({
          total: boot.totalMs,
          load: boot.phases.load,
          agent: boot.phases.agent,
        })) {
          samples[`${kind}.${phase}`] = [...(samples[`${kind}.${phase}`] ?? []), ms ?? 0];
        }
        for (const nth of ["first", "second"]) {
          const start = performance.now();
          const answer = await sh(launched, `echo ${nth}`).catch((error: Error) => error.message);
          if (answer !== nth) wrong.push(`the ${nth} command: ${answer}`);
          samples[`${kind}.${nth}-exec`] = [...(samples[`${kind}.${nth}-exec`] ?? []), performance.now() - start];
        }
        await bench.remove(launched);
      };
      for (let i = golden; i < RESTORES; i += GOLDENS) await one("restore");
      for (let i = golden; i < STORMS; i += GOLDENS)
        await Promise.all(Array.from({ length: AT_ONCE }, () => one("x10")));
      // Of all so far: a run that is ended early has counted something.
      console.log(`# golden snapshot ${golden + 1} of ${GOLDENS}, wrong so far: ${wrong.length}`);
      for (const [name, values] of Object.entries(samples)) {
        const sorted = values.toSorted((a, b) => a - b);
        const at = (share: number): string => (sorted[Math.floor(share * (sorted.length - 1))] ?? 0).toFixed(1);
        console.log(`# ${name}: n ${sorted.length}, p50 ${at(0.5)}, p95 ${at(0.95)}, max ${at(1)} ms`);
      }
    }
    assert.deepEqual(wrong, []);
  });
});
