/** What of a Connect call's body reaches the library, and what the library makes of it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { E2B_BOUNDS, JSON_BOUNDS } from "../../host/bounds.ts";
import type { E2bParts } from "../parts.ts";
import { Envd } from "./envd.ts";
import type { Target } from "./guest.ts";
import { wholeMessages } from "./messages.ts";

const MIB = 2 ** 20;
const STREAM = "application/connect+proto";

function message(length: number, fill = 0x7b): Buffer {
  const bytes = Buffer.alloc(5 + length, fill);
  bytes[0] = 0;
  bytes.writeUInt32BE(length, 1);
  return bytes;
}

async function* cut(bytes: Buffer, length: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

async function passedOn(pieces: AsyncIterable<Uint8Array>, type = STREAM, maxBytes = 1_000): Promise<Buffer[]> {
  return (await Array.fromAsync(wholeMessages(pieces, type, maxBytes))).map((piece) => Buffer.from(piece));
}

test("a stream's messages come whole, however they are cut, and nothing is lost", async () => {
  const messages = [message(0), message(700), message(1), message(1_000), message(0)];
  const whole = Buffer.concat(messages);
  assert.deepEqual(await passedOn(cut(whole, 1)), messages);
  for (const length of [2, 7, 704, 705, 706, whole.length]) {
    const pieces = await passedOn(cut(whole, length));
    assert.deepEqual(Buffer.concat(pieces), whole, String(length));
    const ends = messages.map((_, i) => Buffer.concat(messages.slice(0, i + 1)).length);
    let end = 0;
    for (const piece of pieces) {
      end += piece.length;
      assert.ok(ends.includes(end), `${length}: a piece ends at ${end}`);
    }
  }
  const broken = await passedOn(cut(Buffer.concat([message(3), message(9).subarray(0, 8)]), 4));
  assert.deepEqual(broken, [message(3), message(9).subarray(0, 8)]);
});

test("a message is passed on before the next piece comes, and the end of the reader does not wait for one", async () => {
  let ended: unknown;
  const given = [message(3), message(4)];
  const silent: AsyncIterable<Uint8Array> = {
    [Symbol.asyncIterator]: () => ({
      next: async () => {
        const value = given.shift();
        return value === undefined ? new Promise<never>(() => {}) : { done: false, value };
      },
      throw: async (error) => {
        ended = error;
        return { done: true, value: undefined };
      },
    }),
  };
  const reader = wholeMessages(silent, STREAM, 1_000)[Symbol.asyncIterator]();
  assert.deepEqual((await reader.next()).value, message(3));
  assert.deepEqual((await reader.next()).value, message(4));
  void reader.next();
  await reader.throw?.("enough");
  assert.equal(ended, "enough");
});

test("a message that is too long is not kept: the library refuses it by its head", async () => {
  const pieces = await passedOn(cut(message(1_001), 100));
  assert.deepEqual([pieces.length, pieces[0]?.length], [11, 100]);
});

function ask(path: string, type: string, body: AsyncIterable<Uint8Array> | Buffer): Promise<Response> {
  const parts = { config: { server: { max_file_json_bytes: 16 * MIB } }, stopping: new AbortController().signal };
  const lease = () => Promise.reject(new Error("the call was understood"));
  const envd = new Envd(parts as unknown as E2bParts);
  const target = { id: "x", sandboxes: { lease } } as unknown as Target;
  const stream = "buffer" in body ? body : ReadableStream.from(body);
  const headers = { "content-type": type, "connect-protocol-version": "1" };
  const init = { method: "POST", headers, body: stream, duplex: "half" };
  return envd.handle(target, new Request(`http://x${path}`, init as RequestInit));
}

test("a message in tens of thousands of pieces costs what its bytes cost", async () => {
  const before = process.cpuUsage();
  const pieces = cut(message(60_000), 1);
  const answer = await ask("/process.Process/Start", "application/connect+json", pieces);
  assert.match(await answer.text(), /invalid_argument|JSON/);
  const { user } = process.cpuUsage(before);
  // Counted anew with every piece it is 20 s and more.
  assert.ok(user < 8_000_000, `${user / 1000} ms`);
});

test("JSON of too many values is refused, in a message of a stream and alone", async () => {
  const json = Buffer.from(`{"path":"/","x":[${"[],".repeat(JSON_BOUNDS.clientValues)}0]}`);
  const alone = await ask("/filesystem.Filesystem/Stat", "application/json", json);
  assert.equal(alone.status, 400);
  assert.match(await alone.text(), /JSON of more than 200000 values/);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(json.length, 1);
  const stream = await ask("/process.Process/Start", "application/connect+json", Buffer.concat([head, json]));
  assert.match(await stream.text(), /JSON of more than 200000 values/);
});

test("only calls that carry input take long messages", async () => {
  for (const [path, refused] of [
    ["/filesystem.Filesystem/Stat", true],
    ["/process.Process/SendInput", false],
  ] as const) {
    const answer = await ask(path, "application/json", Buffer.from(`{"${"x".repeat(E2B_BOUNDS.callBytes)}":1}`));
    assert.equal(/resource_exhausted/.test(await answer.text()), refused, path);
  }
  for (const [path, refused] of [
    ["/process.Process/Start", true],
    ["/process.Process/StreamInput", false],
  ] as const) {
    const answer = await ask(path, STREAM, message(E2B_BOUNDS.callBytes + 1));
    assert.equal(/resource_exhausted/.test(await answer.text()), refused, path);
  }
});

test("fields that nobody knows are skipped", async () => {
  const fields = Buffer.alloc(2 * MIB);
  for (let at = 0; at < fields.length; at += 2) fields[at] = 0x78; // the number of field 15, 0
  const before = process.memoryUsage().rss;
  const answer = await ask("/filesystem.Filesystem/Stat", "application/proto", fields);
  await answer.text();
  const grown = process.memoryUsage().rss - before;
  assert.ok(grown < 100 * MIB, `${grown / MIB} MiB for ${fields.length / MIB}`);
});
