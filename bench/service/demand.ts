/** Spawns on demand: to the handshake, which is the launcher's report, to the answer, and to the first command's output. */
import { type Bench, type Created, ECHO, sleep } from "./part.ts";

/** Behind what a DELETE leaves to be done, and until an idle monitor waits again. */
const REST_MS = 60;

export async function demand(bench: Bench): Promise<void> {
  const n = bench.option("n", 50);
  await using server = await bench.serve(4);
  const { ok } = server;
  await ok("POST", "/snapshots", bench.side.spawn);
  bench.progress(`on demand, n = ${n}`);
  for (let i = 0; i < n; i++) {
    const begun = performance.now();
    const created = await bench.timed("demand.create", async () =>
      JSON.parse(await ok("POST", "/sandboxes", bench.side.spawn)),
    );
    if (created === undefined) continue;
    const { id, boot } = created.result as Created;
    if (boot.path !== "restored") bench.failure("demand", new Error(`it came ${boot.path}`));
    bench.sample("demand.handshake", boot.total_ms);
    await ok("POST", `/sandboxes/${id}/exec`, ECHO);
    bench.sample("demand.first-output", performance.now() - begun);
    await bench.timed("demand.delete", () => ok("DELETE", `/sandboxes/${id}`));
    await sleep(REST_MS);
    await bench.timed("demand.run", () => ok("POST", "/run", { ...bench.side.spawn, ...ECHO }));
    await sleep(REST_MS);
  }
}
