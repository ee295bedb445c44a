/**
 * A thousand creates at once of ten owners, of which one asks for most and first, for fifty places: each runs a command and is gone, so that
 * another one has its place. `queue.few` are the last answers of the owners with few, as shares of the whole; in turns they come early.
 */
import { type Bench, type Created, ECHO } from "./part.ts";

const PLACES = 50;
const OWNERS = 10;
/** Of each owner but the first. */
const FEW = 20;

export async function queue(bench: Bench): Promise<void> {
  const count = bench.option("queue", 1_000);
  await using server = await bench.serve(count + OWNERS, {
    STACYVM_DEFAULTS_MAX_SANDBOXES: String(PLACES),
    STACYVM_DEFAULTS_SPAWN_OVERFLOW: "queue",
    STACYVM_DEFAULTS_SPAWN_QUEUE_TIMEOUT: "10m",
    STACYVM_DEFAULTS_MAX_SPAWN_QUEUE: String(count),
  });
  const { ok } = server;
  await ok("POST", "/snapshots", bench.side.spawn);
  const keys: string[] = [];
  for (let owner = 0; owner < OWNERS; owner++) {
    const body = { name: `owner-${owner}`, owner: `owner-${owner}`, scopes: ["use"] };
    keys.push(JSON.parse(await ok("POST", "/keys", body)).key);
  }
  const few = Array.from({ length: (OWNERS - 1) * FEW }, (_, i) => 1 + (i % (OWNERS - 1)));
  const asked = [...Array<number>(count - few.length).fill(0), ...few];
  bench.progress(`${count} creates of ${OWNERS} owners for ${PLACES} places`);
  const last = new Map<number, number>();
  const begun = performance.now();
  await Promise.all(
    asked.map(async (owner) => {
      const headers = { "x-api-key": keys[owner] as string };
      try {
        const { id } = JSON.parse(await ok("POST", "/sandboxes", bench.side.spawn, headers)) as Created;
        await ok("POST", `/sandboxes/${id}/exec`, ECHO, headers);
        const ms = performance.now() - begun;
        bench.sample("queue.each", ms);
        last.set(owner, ms);
        await ok("DELETE", `/sandboxes/${id}`, undefined, headers);
      } catch (error) {
        bench.failure("queue", error);
      }
    }),
  );
  const all = performance.now() - begun;
  bench.sample("queue.all", all);
  for (const [owner, ms] of last) if (owner > 0) bench.sample("queue.few", (ms / all) * 100, "%");
}
