/**
 * What another server on the way of a call costs: the same calls, in turns, to a server that is alone, to a node of a fleet that has the
 * sandbox, and to an entrance that passes them on to it. All of them, PostgreSQL and the machine are on one host.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Postgres } from "../test/postgres.ts";
import { borrow } from "./borrow.ts";
import { type BenchDaemon, startDaemon } from "./daemon.ts";
import type { BenchContext } from "./harness.ts";

const SPAWN = { image: "stacyvm/busybox", memory_mb: 128 };
const FILE_BYTES = 32 * 2 ** 20;
/** Before the first round that counts. */
const UNCOUNTED = 3;
/** Behind what a DELETE leaves to be done. */
const REST_MS = 60;
const KEY = "a-key-of-all-servers-of-this-measurement";

interface Way {
  name: "alone" | "node" | "entrance";
  daemon: BenchDaemon;
  /** Asked for by this way. */
  sandbox: string;
}

export async function measureForwarding(context: BenchContext, n: number): Promise<void> {
  await using left = new AsyncDisposableStack();
  const root = await mkdtemp(join(tmpdir(), "stacyvm-bench-fleet-"));
  left.defer(() => rm(root, { recursive: true, force: true }));
  const postgres = left.use(await Postgres.create({ durable: true }));
  const start = async (name: string, settings: Record<string, string>): Promise<BenchDaemon> => {
    const dir = join(root, name);
    await borrow(dir);
    const whole = { STACYVM_PROVIDER: "qemu", STACYVM_WARM_ADAPTIVE: "false", STACYVM_AUTH_API_KEY: KEY, ...settings };
    return left.use(await startDaemon(dir, 8, whole));
  };
  const fleet = {
    STACYVM_FLEET_DATABASE_URL: postgres.url,
    STACYVM_FLEET_ADDRESS: "127.0.0.1:0",
    STACYVM_FLEET_SECRET: "s".repeat(40),
  };
  const headers = { "x-api-key": KEY };
  const alone = await start("alone", {});
  const node = await start("node", { ...fleet, STACYVM_FLEET_NODE_NAME: "node" });
  const role = { STACYVM_FLEET_NODE_NAME: "entrance", STACYVM_FLEET_ROLE: "entrance" };
  const entrance = await start("entrance", { ...fleet, ...role });
  const make = async (daemon: BenchDaemon): Promise<string> =>
    JSON.parse(await daemon.ok("POST", "/sandboxes", SPAWN, headers)).id;
  for (const daemon of [alone, node]) await daemon.ok("POST", "/snapshots", SPAWN, headers);
  const there = await make(node);
  const ways: Way[] = [
    { name: "alone", daemon: alone, sandbox: await make(alone) },
    { name: "node", daemon: node, sandbox: there },
    { name: "entrance", daemon: entrance, sandbox: there },
  ];
  const timed = async (name: string, counts: boolean, work: () => Promise<unknown>): Promise<void> => {
    const began = performance.now();
    try {
      await work();
      if (counts) context.sample(name, performance.now() - began);
    } catch (error) {
      context.failure(name, error);
    }
  };
  context.progress(`forwarding: n = ${n}`);
  for (let i = -UNCOUNTED; i < n; i++) {
    for (const { name, daemon, sandbox } of inTurns(ways, i)) {
      context.signal.throwIfAborted();
      const at = `/sandboxes/${sandbox}`;
      await timed(`${name}.get`, i >= 0, () => daemon.ok("GET", at, undefined, headers));
      const echo = { command: "echo", args: ["hello"] };
      await timed(`${name}.exec`, i >= 0, () => daemon.ok("POST", `${at}/exec`, echo, headers));
    }
  }
  context.progress("creates");
  for (let i = -1; i < Math.ceil(n / 2); i++) {
    for (const { name, daemon } of inTurns(ways, i)) {
      context.signal.throwIfAborted();
      let made = "";
      await timed(`${name}.create`, i >= 0, async () => {
        made = await make(daemon);
      });
      if (made === "") continue;
      await daemon.ok("DELETE", `/sandboxes/${made}`, undefined, headers);
      await delay(REST_MS);
    }
  }
  context.progress(`${FILE_BYTES / 2 ** 20} MiB from a guest`);
  const command = `head -c ${FILE_BYTES} /dev/zero > /tmp/file`;
  for (const { daemon, sandbox } of ways.filter(({ name }) => name !== "entrance")) {
    await daemon.ok("POST", `/sandboxes/${sandbox}/exec`, { command }, headers);
  }
  for (let i = -1; i < 5; i++) {
    for (const { name, daemon, sandbox } of inTurns(ways, i)) {
      const began = performance.now();
      const text = await daemon.ok("GET", `/sandboxes/${sandbox}/files?path=/tmp/file`, undefined, headers);
      const seconds = (performance.now() - began) / 1_000;
      if (text.length !== FILE_BYTES) context.failure(`${name}.download`, new Error(`${text.length} bytes`));
      else if (i >= 0) context.sample(`${name}.download`, FILE_BYTES / 2 ** 20 / seconds, "MiB/s");
    }
  }
  context.guest = "linux";
}

/** Whoever comes first has another turn each time. */
function inTurns<T>(all: readonly T[], i: number): T[] {
  return all.map((_, at) => all[(at + i + all.length * UNCOUNTED) % all.length] as T);
}
