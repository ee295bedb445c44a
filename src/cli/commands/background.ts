import { existsSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { Command } from "commander";
import { dataPaths } from "../../host/paths.ts";
import { backgroundIdleMs, settingsMark } from "../background.ts";
import { interruptible } from "../interrupt.ts";
import { unheardIsNoError } from "../output.ts";

const LOOK_MS = 1_000;
const LEAVING_MS = 5_000;

/** `stacyvm background-server`: what commands start (background.ts). */
export function backgroundCommand(): Command {
  return new Command("background-server").description("what commands start for the next ones").action(serve);
}

/** One that is just ending has the directory a little longer. */
async function free<T>(take: () => Promise<T | undefined>): Promise<T | undefined> {
  for (const deadline = performance.now() + LEAVING_MS; ; ) {
    const lock = await take();
    if (lock !== undefined || performance.now() > deadline) return lock;
    await delay(25);
  }
}

async function serve(): Promise<void> {
  unheardIsNoError(process.stdout);
  const idleMs = backgroundIdleMs() ?? 0;
  const [{ lockDataDir }, { startEmbedded }] = await Promise.all([import("../data-dir.ts"), import("../embedded.ts")]);
  const paths = dataPaths();
  const lock = await free(() => lockDataDir(paths));
  // Another one was faster: whoever has started this one finds that.
  if (lock === undefined) return;
  await interruptible(async (signal, { hurry }) => {
    const ending = new AbortController();
    const background = { mark: await settingsMark(), asked: () => ending.abort() };
    const server = await startEmbedded(paths, lock, { background });
    const stop = AbortSignal.any([signal, ending.signal]);
    try {
      let used = performance.now();
      // A data directory that was removed is nobody's any more.
      while (!stop.aborted && existsSync(paths.root) && performance.now() - used < idleMs) {
        await delay(Math.min(LOOK_MS, idleMs), undefined, { signal: stop }).catch(() => {});
        used = server.idle ? Math.max(used, server.usedAt) : performance.now();
      }
    } finally {
      await server.close({ signal: hurry, snapshots: !signal.aborted, waiting() {} });
    }
  });
}
