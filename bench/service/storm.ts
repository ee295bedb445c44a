/**
 * Many creates at once, each to its first output, while somebody else asks for the server's health. Beside it in the same run: one after the
 * other.
 */
import { type Bench, type Created, ECHO, sleep } from "./part.ts";

const HEALTH_EVERY_MS = 10;
const ALONE = 10;

export async function storm(bench: Bench): Promise<void> {
  const count = bench.option("storm", 100);
  await using server = await bench.serve(count + 2);
  const { ok } = server;
  await ok("POST", "/snapshots", bench.side.spawn);
  const firstOutput = async (): Promise<string> => {
    const { id } = JSON.parse(await ok("POST", "/sandboxes", bench.side.spawn)) as Created;
    await ok("POST", `/sandboxes/${id}/exec`, ECHO);
    return id;
  };
  bench.progress("one after the other");
  for (let i = 0; i < ALONE; i++) {
    await sleep(100);
    const alone = await bench.timed("storm.alone", firstOutput);
    if (alone !== undefined) await ok("DELETE", `/sandboxes/${alone.result}`);
  }
  await sleep(1_000);
  for (let round = 0; round < bench.option("storms", 1); round++) {
    bench.progress(`${count} at once`);
    let over = false;
    const health = (async () => {
      while (!over) {
        await bench.timed("storm.health", () => ok("GET", "/health"));
        await sleep(HEALTH_EVERY_MS);
      }
    })();
    const took: number[] = [];
    const begun = performance.now();
    const answers = await Promise.all(
      Array.from({ length: count }, async () => {
        try {
          const id = await firstOutput();
          took.push(performance.now() - begun);
          return id;
        } catch (error) {
          bench.failure("storm", error);
          return undefined;
        }
      }),
    );
    const all = performance.now() - begun;
    over = true;
    for (const ms of took) bench.sample("storm.each", ms);
    bench.sample("storm.all", all);
    bench.sample("storm.half", ((took[Math.floor(took.length / 2)] ?? all) / all) * 100, "%");
    await health;
    await Promise.all(answers.map((id) => id && ok("DELETE", `/sandboxes/${id}`)));
    await sleep(2_000);
  }
}
