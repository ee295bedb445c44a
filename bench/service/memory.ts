/**
 * Memory that machines have for themselves alone, MiB: of such that wait in the pool, after one command, and, with Linux, of one whose program
 * has written 512 MiB and ended.
 */
import type { BenchDaemon } from "../daemon.ts";
import { monitorsOf, privateMiB, privateParts } from "./monitors.ts";
import { type Bench, type Created, ECHO, sleep } from "./part.ts";

const WARM = 6;
const BURST_MIB = 512;
/** From the program's end, s. */
const MARKS = [1, 2, 4, 10];
const PYTHON = { image: "stacyvm/python", memory_mb: 1_024 };

export async function memory(bench: Bench): Promise<void> {
  await using server = await bench.serve(4);
  const { ok } = server;
  bench.progress(`${WARM} warm machines`);
  await ok("POST", "/snapshots", bench.side.spawn);
  await ok("POST", "/templates", { ...bench.side.spawn, name: "bench", pool_size: WARM });
  while (JSON.parse(await ok("GET", "/pool/status")).vms !== WARM) await sleep(50);
  for (const pid of await monitorsOf(server.pid)) {
    const parts = await privateParts(pid);
    if (parts === undefined) continue; // an idle monitor
    bench.sample("memory.warm", await privateMiB(pid), "MiB");
    for (const [part, size] of Object.entries(parts)) bench.sample(`memory.warm.${part}`, size, "MiB");
  }
  await ok("DELETE", "/templates/bench");
  for (let i = 0; i < WARM; i++) {
    const { id } = JSON.parse(await ok("POST", "/sandboxes", bench.side.spawn)) as Created;
    await ok("POST", `/sandboxes/${id}/exec`, ECHO);
    bench.sample("memory.used", await ownMiB(server, id), "MiB");
    await ok("DELETE", `/sandboxes/${id}`);
    await sleep(200);
  }
  if (bench.side.linux) for (let i = 0; i < bench.option("bursts", 3); i++) await burst(bench, server);
}

async function ownMiB({ ok }: BenchDaemon, id: string): Promise<number> {
  return JSON.parse(await ok("GET", `/sandboxes/${id}/stats`)).mem_bytes / 2 ** 20;
}

async function burst(bench: Bench, server: BenchDaemon): Promise<void> {
  const { ok } = server;
  bench.progress(`a burst of ${BURST_MIB} MiB`);
  await ok("POST", "/snapshots", PYTHON);
  const { id } = JSON.parse(await ok("POST", "/sandboxes", PYTHON)) as Created;
  const own = (): Promise<number> => ownMiB(server, id);
  const python = (code: string) =>
    ok("POST", `/sandboxes/${id}/exec`, { command: "python3", args: ["-c", code], mode: "argv" });
  await python("print(1)");
  await sleep(10_000);
  const before = await own();
  bench.sample("memory.burst.before", before, "MiB");
  await python(`b = b"x" * (${BURST_MIB} << 20)`);
  const begun = performance.now();
  bench.sample("memory.burst.end", await own(), "MiB");
  for (const mark of MARKS) {
    await sleep(begun + mark * 1_000 - performance.now());
    const now = await own();
    bench.sample(`memory.burst.after-${mark}s`, now, "MiB");
    if (mark === MARKS.at(-1)) bench.sample("memory.burst.ratio", now / before, "x");
  }
  await ok("DELETE", `/sandboxes/${id}`);
}
