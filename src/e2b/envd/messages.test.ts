/** What of a Connect call's body reaches the library, and what the library makes of it. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Code } from "@connectrpc/connect";
import { HeldInput } from "../../guest/held-input.ts";
import { E2B_BOUNDS, GUEST_BOUNDS, JSON_BOUNDS } from "../../host/bounds.ts";
import type { E2bParts } from "../parts.ts";
import { Envd } from "./envd.ts";
import { StreamInputRequestSchema } from "./gen/process/process_pb.ts";
import type { Target } from "./guest.ts";
import { wholeMessages } from "./messages.ts";

const MIB = 2 ** 20;
const STREAM = "application/connect+proto";

function message(length: number, fill = 0x78): Buffer {
  const bytes = Buffer.alloc(5 + length, fill);
  bytes[0] = 0;
  bytes.writeUInt32BE(length, 1);
  return bytes;
}

async function* cut(bytes: Buffer, length: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length);
}

async function passedOn(pieces: AsyncIterable<Uint8Array>, type = STREAM, maxBytes = 1_000): Promise<Buffer[]> {
  const taken = { message: StreamInputRequestSchema, maxBytes, memory: new HeldInput("owner") };
  return (await Array.fromAsync(wholeMessages(pieces, type, taken))).map((piece) => Buffer.from(piece));
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
  const reader = wholeMessages(silent, STREAM, {
    ...{ message: StreamInputRequestSchema, maxBytes: 1_000 },
    memory: new HeldInput("owner"),
  })[Symbol.asyncIterator]();
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
  const parts = { config: { server: { max_file_json_bytes: 64 * MIB } }, stopping: new AbortController().signal };
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

test("messages that never become whole have one bound, and it is free again when they are given up", async () => {
  const owner = "of messages";
  const most = GUEST_BOUNDS.inputBytes / 2;
  const length = 16 * 2 ** 20;
  const began = Array.from({ length: most / length + 1 }, () => {
    const { promise: never } = Promise.withResolvers<never>();
    const begin = message(length).subarray(0, length);
    const body = (async function* () {
      yield begin;
      await never;
    })();
    const taken = { message: StreamInputRequestSchema, maxBytes: length, memory: new HeldInput(owner) };
    const reader = wholeMessages(body, STREAM, taken)[Symbol.asyncIterator]();
    return { reader, first: reader.next() };
  });
  await assert.rejects(began.at(-1)?.first ?? Promise.resolve(), { code: Code.ResourceExhausted });
  for (const { reader } of began) void reader.throw?.("enough").catch(() => {});
  using again = new HeldInput(owner);
  again.add(most);
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

test("only calls that carry input take long messages, and these as long as input may be", async () => {
  const { callBytes, inputBytes } = E2B_BOUNDS;
  for (const [path, maxBytes, refused] of [
    ["/filesystem.Filesystem/Stat", callBytes, true],
    ["/process.Process/SendInput", callBytes, false],
    ["/process.Process/SendInput", inputBytes, true],
  ] as const) {
    for (const type of ["json", "proto"]) {
      const answer = await ask(path, `application/${type}`, Buffer.from(`{"${"x".repeat(maxBytes)}":1}`));
      assert.equal(/resource_exhausted/.test(await answer.text()), refused, `${path} ${type} ${maxBytes}`);
    }
  }
  for (const [path, maxBytes, refused] of [
    ["/process.Process/Start", callBytes, true],
    ["/process.Process/StreamInput", callBytes, false],
    ["/process.Process/StreamInput", inputBytes, true],
  ] as const) {
    const answer = await ask(path, STREAM, message(maxBytes + 1));
    assert.equal(/resource_exhausted/.test(await answer.text()), refused, `${path} ${maxBytes}`);
  }
});

/** A field of a message: its bytes behind their length. */
function field(number: number, bytes: Uint8Array): Buffer {
  const length: number[] = [];
  for (let rest = bytes.length; ; rest >>>= 7) {
    length.push(rest > 127 ? (rest & 127) | 128 : rest);
    if (rest <= 127) break;
  }
  return Buffer.concat([Buffer.from([(number << 3) | 2, ...length]), bytes]);
}

function many(one: Uint8Array): Buffer {
  return Buffer.concat(Array<Uint8Array>(JSON_BOUNDS.clientValues + 1).fill(one));
}

test("protobuf of too many fields is refused, wherever they are, in a message of a stream and alone", async () => {
  const unknown = Buffer.from([0x78, 0]); // the number of field 15, 0
  const empty = (number: number) => field(number, Buffer.alloc(0));
  const start = "/process.Process/Start";
  const cases: [string, string, Buffer][] = [
    ["unknown ones", "/process.Process/SendInput", many(unknown)],
    ["a message again and again", "/process.Process/SendInput", many(empty(2))],
    ["input of nothing", "/process.Process/SendInput", field(2, many(empty(1)))],
    ["in a message of a stream", "/process.Process/StreamInput", field(2, field(2, many(empty(1))))],
    ["arguments", start, field(1, many(empty(2)))],
    ["variables", start, field(1, many(empty(3)))],
    ["names of one variable", start, field(1, field(3, many(empty(1))))],
    ["groups", "/process.Process/SendInput", many(Buffer.from([0x7b, 0x7c]))],
    ["paths", "/filesystem.Filesystem/Stat", many(empty(1))],
  ];
  for (const [name, path, bytes] of cases) {
    const stream = /Start|Stream/.test(path);
    const head = Buffer.alloc(5);
    head.writeUInt32BE(bytes.length, 1);
    const answer = await ask(
      path,
      stream ? STREAM : "application/proto",
      stream ? Buffer.concat([head, bytes]) : bytes,
    );
    const words = name === "groups" ? /a group/ : /a message of more than 200000 fields/;
    assert.match(await answer.text(), words, name);
  }
});

test("a group in a message is refused, however deep the groups in it are", async () => {
  const answer = await ask("/process.Process/SendInput", "application/proto", Buffer.alloc(2 * MIB, 0x7b));
  assert.match(await answer.text(), /invalid_argument.*a group/);
});
