/**
 * As many idle sandboxes at once as a host of 24 GiB is to hold: each made, and when all are there each asked for a command, one after the
 * other. Only by name (`--only=idle`): it takes minutes and most of the memory.
 */
import { availableMiB } from "./monitors.ts";
import { type Bench, type Created, ECHO } from "./part.ts";

/** What stays free for everything else, MiB. */
const SPARE_MIB = 3_000;
const AT_ONCE = 8;

export async function idle(bench: Bench): Promise<void> {
  const count = bench.option("idle", bench.side.linux ? 500 : 1_000);
  await using server = await bench.serve(AT_ONCE);
  const { ok } = server;
  await ok("POST", "/snapshots", bench.side.spawn);
  const before = await availableMiB();
  const ids: string[] = [];
  bench.progress(`${count} sandboxes`);
  const begun = performance.now();
  let asked = 0;
  const make = async (): Promise<void> => {
    while (asked < count) {
      asked += 1;
      bench.context.signal.throwIfAborted();
      if ((await availableMiB()) < SPARE_MIB) return;
      const { id } = JSON.parse(await ok("POST", "/sandboxes", { ...bench.side.spawn, ttl: "1h" })) as Created;
      ids.push(id);
      await ok("POST", `/sandboxes/${id}/exec`, ECHO);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, make));
  if (ids.length < count) bench.note(`only ${ids.length} of ${count} sandboxes: the host has no more memory to spare`);
  bench.sample("idle.count", ids.length, "");
  bench.sample("idle.made", performance.now() - begun);
  bench.sample("idle.memory", (before - (await availableMiB())) / ids.length, "MiB");
  for (const id of ids) await bench.timed("idle.exec", () => ok("POST", `/sandboxes/${id}/exec`, ECHO));
  bench.progress("ending them");
  while (ids.length > 0) await Promise.all(ids.splice(0, AT_ONCE).map((id) => ok("DELETE", `/sandboxes/${id}`)));
}
