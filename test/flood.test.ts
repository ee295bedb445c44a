/**
 * Many forms of hostile guests at once, beside a good one in a real machine: its commands go on, and the host's memory has a bound. The short form
 * takes the first forms for some seconds; `STACYVM_FLOOD=full` takes all of them for a minute.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Agent } from "../src/guest/agent.ts";
import { connectAgent } from "../src/guest/client.ts";
import { reconnectingAgent } from "../src/guest/reconnecting-agent.ts";
import { connectUnix } from "../src/host/unix-socket.ts";
import { startGuest } from "./agent-support.ts";
import { FORMS } from "./flood-guests.ts";

const FULL = process.env.STACYVM_FLOOD === "full";
const GUESTS = FULL ? FORMS.length : 6;
const FLOOD_MS = FULL ? 60_000 : 5_000;
const COMMANDS = FULL ? 300 : 60;
/** Of this process above what it had, with all of them at their worst: docs/security.md. */
const MEMORY_BYTES = 1024 * 1024 * 1024;

/** Uses a guest in every way, until it is told to stop. */
async function use(agent: Agent, stop: AbortSignal): Promise<void> {
  const signal = stop;
  const ways: (() => Promise<unknown>)[] = [
    () => agent.list("/", { signal }),
    () => agent.glob("*", undefined, { signal }),
    () => agent.exec({ argv: ["x"], signal: AbortSignal.any([stop, AbortSignal.timeout(2000)]) }),
    () => agent.stat("/x", { signal: AbortSignal.any([stop, AbortSignal.timeout(1000)]) }),
    () => agent.readFile("/x", { signal, limitBytes: 16 * 2 ** 20 }),
    () => agent.processes({ signal: AbortSignal.any([stop, AbortSignal.timeout(1000)]) }),
    async () => {
      for await (const change of agent.watch("/", { signal: AbortSignal.any([stop, AbortSignal.timeout(2000)]) })) {
        await new Promise((resolve) => setTimeout(resolve, 10)); // it does not keep up
        if (change.change === "overflow") break;
      }
    },
  ];
  await Promise.all(
    ways.map(async (way) => {
      while (!stop.aborted) {
        await way().catch(() => {});
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }),
  );
}

async function execTimes(agent: Agent, count: number): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const begun = performance.now();
    assert.equal((await agent.exec({ argv: ["/bin/true"] })).exitCode, 0);
    times.push(performance.now() - begun);
  }
  return times.sort((a, b) => a - b);
}

const at = (times: number[], share: number): number =>
  times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0;

test("a good guest goes on beside hostile ones, and what they cost has a bound", async (t) => {
  const dir = await mkdtemp(join(process.env.STACYVM_TEST_DIR ?? tmpdir(), "flood-"));
  await using good = await startGuest();
  const child = spawn(
    "nice",
    ["-n", "19", process.execPath, join(import.meta.dirname, "flood-guests.ts"), dir, String(GUESTS)],
    {
      // What hostile guests burn themselves is not what is measured.
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  const stop = new AbortController();
  let flooding: Promise<unknown> = Promise.resolve();
  try {
    await once(child.stdout, "data");
    await execTimes(good.agent, COMMANDS / 2);
    const before = await execTimes(good.agent, COMMANDS);
    const rssBefore = process.memoryUsage.rss();
    let most = 0;
    const sampler = setInterval(() => {
      most = Math.max(most, process.memoryUsage.rss());
    }, 50);
    const agents = Array.from({ length: GUESTS }, (_, i) =>
      reconnectingAgent(
        async (signal) => {
          const stream = await connectUnix(dir, String(i), { timeoutMs: 5000, signal });
          return connectAgent({ stream, clean: true }, { timeoutMs: 2000, signal });
        },
        { limitMs: () => 10_000 },
      ),
    );
    flooding = Promise.all(agents.map((agent) => use(agent, stop.signal)));
    const until = performance.now() + FLOOD_MS;
    const during: number[] = [];
    while (performance.now() < until || during.length < COMMANDS) during.push(...(await execTimes(good.agent, 20)));
    stop.abort();
    await Promise.all(agents.map((agent) => agent.close()));
    await flooding;
    clearInterval(sampler);
    const after = await execTimes(good.agent, COMMANDS);
    during.sort((a, b) => a - b);
    const quiet = [...before, ...after].sort((a, b) => a - b);
    const shown = (times: number[]): string =>
      `p50 ${at(times, 0.5).toFixed(1)} p99 ${at(times, 0.99).toFixed(1)} ms (n ${times.length})`;
    t.diagnostic(`exec quiet ${shown(quiet)}, beside ${GUESTS} hostile guests ${shown(during)}`);
    t.diagnostic(`memory grew by ${((most - rssBefore) / 2 ** 20).toFixed(0)} MiB`);
    assert.ok(most - rssBefore < MEMORY_BYTES, `${most - rssBefore} bytes`);
    // The hostile guests' own processor time is the host's too, and with fewer cores than guests the good one's machine waits for it.
    // The 99th percentile of a short run is its five worst.
    const share = FULL ? 0.99 : 0.95;
    assert.ok(at(during, share) < 3 * at(quiet, share) + (FULL ? 0 : 50), `${shown(during)}, quiet ${shown(quiet)}`);
  } finally {
    stop.abort();
    child.kill("SIGKILL");
    await flooding.catch(() => {});
    await rm(dir, { recursive: true, force: true });
  }
});
