import assert from "node:assert/strict";
import { test } from "node:test";
import { Echoes } from "./echo.ts";

/** Hosts that answer when they are told to. */
class World {
  readonly asked: string[] = [];
  readonly replies: string[] = [];
  readonly #answers: (() => void)[] = [];
  readonly echoes: Echoes;

  constructor(freshMs = 0) {
    this.echoes = new Echoes({
      find: async (host) => host,
      ping: (address) => {
        this.asked.push(address);
        return new Promise((settle) => this.#answers.push(() => settle(true)));
      },
      tell: () => {},
      freshMs,
    });
  }

  send(host: string, payload: Buffer): Promise<void> {
    return this.echoes.send(host, payload, (answered, bytes) => this.replies.push(`${host} ${answered} ${bytes}`));
  }

  /** @param count of those that are asked, the first ones */
  answer(count = this.#answers.length): void {
    for (const settle of this.#answers.splice(0, count)) settle();
  }
}

const turn = (): Promise<void> => new Promise((next) => setImmediate(next));

test("echoes that wait for an answer have a bound in bytes, which an answer gives back", async () => {
  for (const [payload, most] of [
    [Buffer.alloc(16_128), 16],
    [Buffer.alloc(0), 1_024],
  ] as const) {
    const world = new World(60_000);
    for (const round of [1, 2]) {
      const all = Array.from({ length: 3_000 }, () => world.send(`host-${round}`, payload));
      await turn();
      world.answer();
      await Promise.all(all);
      assert.equal(world.replies.splice(0).length, most);
    }
  }
});

test("an echo is answered with what it had, whatever became of the frame that it came in", async () => {
  const world = new World();
  const frame = Buffer.from("header and payload");
  const sent = world.send("a", frame.subarray(11));
  frame.fill(0);
  await turn();
  world.answer();
  await sent;
  assert.deepEqual(world.replies, ["a true payload"]);
});

test("other rules: answers that are on their way are lost, and what asks for them keeps its place", async () => {
  const world = new World();
  const old = Array.from({ length: 20 }, (_, i) => world.send(`${i}`, Buffer.alloc(0)));
  await turn();
  assert.equal(world.asked.length, 8);
  for (let i = 0; i < 5; i++) {
    world.echoes.forget();
    void world.send("again", Buffer.alloc(0));
  }
  await turn();
  assert.equal(world.asked.length, 8, "however often the rules change");
  world.answer();
  await Promise.all(old);
  assert.deepEqual(world.replies, []);
  while (world.asked.length === 8) {
    void world.send("again", Buffer.alloc(0));
    await turn();
  }
  assert.equal(world.asked[8], "again");
});

test("the end of a question that was forgotten takes nothing from the one that came after it", async () => {
  const world = new World();
  const former = world.send("a", Buffer.from("former"));
  await turn();
  world.echoes.forget();
  const later = world.send("a", Buffer.from("later"));
  await turn();
  assert.deepEqual(world.asked, ["a", "a"]);
  world.answer(1);
  await former;
  // Longer than an answer counts: timers of the same length end in their order.
  await new Promise((wake) => setTimeout(wake, 20));
  const beside = world.send("a", Buffer.from("beside"));
  await turn();
  assert.equal(world.asked.length, 2, "the later question is still the one that is asked");
  world.answer();
  await Promise.all([later, beside]);
  assert.deepEqual(world.replies, ["a true later", "a true beside"]);
});
