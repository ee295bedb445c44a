import assert from "node:assert/strict";
import { test } from "node:test";
import { exactly, jsonList, jsonRecord } from "./streams.ts";

test("long texts and lists are the same JSON as short ones, and others have their turns meanwhile", async () => {
  const text = `${`${"\u0001".repeat(200_000)}🦊`.repeat(3)}\ud83e`;
  for (const value of [
    { a: 1, text: "short" },
    { exit_code: 0, stdout: text, stderr: `x${text}`, truncated: true },
  ]) {
    let done = 0;
    let turns = 0;
    const counting = setInterval(() => turns++, 0);
    const response = jsonRecord(value, () => done++);
    assert.deepEqual(JSON.parse(await response.text()), value);
    clearInterval(counting);
    assert.equal(done, 1);
    if (value.text === undefined) assert.ok(turns > 0);
  }
  for (const count of [0, 3, 256, 257, 5000]) {
    const items = Array.from({ length: count }, (_, i) => i);
    assert.deepEqual(
      await jsonList(items, (i) => ({ i })).json(),
      items.map((i) => ({ i })),
    );
  }
});

test("a reader that goes away gives back what the answer held", async () => {
  let done = 0;
  const response = jsonRecord({ text: "x".repeat(10_000_000) }, () => done++);
  const reader = response.body?.getReader();
  await reader?.read();
  await reader?.cancel();
  assert.equal(done, 1);
});

test("a body has the length that was announced, or breaks", async () => {
  async function* parts(...sizes: number[]): AsyncGenerator<Uint8Array> {
    for (const size of sizes) yield new Uint8Array(size);
  }
  const read = (source: AsyncIterable<Uint8Array>, length: number) => Array.fromAsync(exactly(source, length));
  assert.equal((await read(parts(3, 2), 5)).length, 2);
  for (const source of [parts(3, 3), parts(3), parts()]) await assert.rejects(read(source, 5), { code: "protocol" });
});

test("a body is over with its last announced byte: its reader may go on to end its sandbox, on the same connection", async () => {
  let freed = false;
  async function* lost(): AsyncGenerator<Uint8Array> {
    try {
      yield new Uint8Array(5);
      throw new Error("its sandbox is gone");
    } finally {
      freed = true;
    }
  }
  assert.equal((await Array.fromAsync(exactly(lost(), 5))).length, 1);
  assert.ok(freed, "nobody else frees what it is read from");
});
