/** How long a machine of 1 GiB that has little to say stands still for a checkpoint, and how long whoever asked for it waits. */
import { type Bench, type Created, ECHO, sleep } from "./part.ts";

export async function checkpoint(bench: Bench): Promise<void> {
  const rounds = bench.option("checkpoints", 10);
  await using server = await bench.serve(4);
  const { ok } = server;
  const spawn = { ...bench.side.spawn, memory_mb: 1_024 };
  await ok("POST", "/snapshots", spawn);
  bench.progress(`checkpoints, n = ${rounds}`);
  const { id } = JSON.parse(await ok("POST", "/sandboxes", spawn)) as Created;
  for (let i = 0; i < rounds; i++) {
    await ok("POST", `/sandboxes/${id}/exec`, ECHO);
    await sleep(300);
    const taken = await bench.timed("checkpoint.answered", () => ok("POST", `/sandboxes/${id}/checkpoints`, {}));
    if (taken === undefined) continue;
    const { id: made, stopped_ms, bytes } = JSON.parse(taken.result);
    // The first is of a machine that was just restored.
    bench.sample(i === 0 ? "checkpoint.stopped.first" : "checkpoint.stopped", stopped_ms);
    bench.sample("checkpoint.size", bytes / 2 ** 20, "MiB");
    await ok("DELETE", `/checkpoints/${made}`);
  }
  await ok("DELETE", `/sandboxes/${id}`);
}
