/**
 * No decay: claims of machines that have waited for minutes, in turns with claims of machines that have waited for a second, so that
 * whatever else the box does meets both.
 */
import type { Launcher } from "../src/launcher/launcher.ts";
import type { Pool } from "../src/launcher/pool.ts";
import type { LaunchSpec, Target } from "../src/launcher/target.ts";
import type { BenchContext } from "./harness.ts";
import { ECHO, remove, spawnTimed } from "./spawning.ts";

/** Claims at each mark. */
const CLAIMS = 10;

/** A launcher whose machines are for this alone. */
export interface Shelf {
  launcher: Launcher;
  target: Target;
  pool: Pool;
}

/** All of `old` are made now; so many minutes later, and so many, ten of them are claimed. */
export async function idling(
  context: BenchContext,
  prefix: string,
  spec: LaunchSpec,
  old: Shelf,
  young: Shelf,
  minutes: readonly number[],
): Promise<void> {
  old.pool.pin(old.target.key, old.target, CLAIMS * minutes.length);
  await old.pool.settled();
  const begun = performance.now();
  for (const [at, minute] of minutes.entries()) {
    context.progress(`${prefix.slice(0, -1)}: machines wait ${minute} minutes`);
    await pause(begun + minute * 60_000 - performance.now());
    using _turn = await turn();
    // What is claimed now is not made again: nothing runs beside the claims.
    const held = old.pool.arrive(old.target);
    for (let i = 0; i < CLAIMS; i++) {
      context.signal.throwIfAborted();
      young.pool.pin(young.target.key, young.target, 1);
      await young.pool.settled();
      const other = young.pool.arrive(young.target);
      await pause(1_000);
      const both = [
        [`${prefix}warm.after-1s-beside-${minute}m`, young],
        [`${prefix}warm.after-${minute}m`, old],
      ] as const;
      for (const [name, { launcher }] of i % 2 === 0 ? both : both.toReversed())
        await claim(context, name, launcher, spec);
      young.pool.pin(young.target.key, young.target, 0);
      other();
    }
    old.pool.pin(old.target.key, old.target, CLAIMS * (minutes.length - at - 1));
    held();
  }
}

async function claim(context: BenchContext, name: string, launcher: Launcher, spec: LaunchSpec): Promise<void> {
  try {
    const { launched, total, firstExec } = await spawnTimed(launcher, spec, undefined, ECHO);
    if (launched.boot.path !== "warm") context.failure(name, new Error(`it came ${launched.boot.path}`));
    context.sample(name, total);
    context.sample(`${name}.first-exec`, firstExec ?? 0);
    await remove(launched);
  } catch (error) {
    context.failure(name, error);
  }
}

let last: Promise<void> = Promise.resolve();
/** Several sides wait at the same time, and claim one after another. */
async function turn(): Promise<Disposable> {
  const before = last;
  const { promise, resolve } = Promise.withResolvers<void>();
  last = promise;
  await before;
  return { [Symbol.dispose]: resolve };
}

function pause(ms: number): Promise<void> {
  return new Promise((wake) => setTimeout(wake, Math.max(0, ms)));
}
