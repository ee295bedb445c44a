import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import fc from "fast-check";
import { StacyError } from "../host/error.ts";
import { FrameDecoder } from "./frame-decoder.ts";
import { encodeFrame, FILLER_BYTES, type Frame, FrameType } from "./protocol.ts";

/** Mutated streams per run; more by `FUZZ_RUNS`, eight frames each. */
const RUNS = Number(process.env.FUZZ_RUNS ?? 500);

function frame(type: number, payload: Uint8Array, stream = 0): Frame {
  return { type, channel: 0, flags: 0, stream, payload };
}

function session(payloads: Uint8Array[]): Buffer {
  return Buffer.concat(
    payloads.map((payload, i) => encodeFrame(frame(i === 0 ? FrameType.HELLO_ACK : FrameType.EVENT, payload, i), i)),
  );
}

test("the shared vectors are encoded and decoded alike", async () => {
  const lines = (await readFile(new URL("../../test/vectors/frames.tsv", import.meta.url), "utf8")).trim().split("\n");
  assert.ok(lines.length >= 6);
  for (const line of lines) {
    const [name, type, channel, flags, stream, sequence, payload, bytes] = line.split("\t");
    const original = {
      type: Number(type),
      channel: Number(channel),
      flags: Number(flags),
      stream: Number(stream),
      payload: Buffer.from(payload ?? "", "hex"),
    };
    assert.equal(encodeFrame(original, Number(sequence)).toString("hex"), bytes, String(name));
  }
});

test("frames arrive whole however the stream is cut", () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 300 }), { minLength: 1, maxLength: 8 }),
      fc.integer({ min: 1, max: 97 }),
      (payloads, step) => {
        const decoder = new FrameDecoder();
        const stream = session(payloads);
        const seen: Uint8Array[] = [];
        for (let at = 0; at < stream.length; at += step)
          decoder.push(stream.subarray(at, at + step), (f) => seen.push(Uint8Array.from(f.payload)));
        assert.deepEqual(
          seen,
          payloads.map((p) => Uint8Array.from(p)),
        );
      },
    ),
  );
});

test("a truncated or reordered stream is detected in step", () => {
  const frames = [0, 1, 2, 3].map((i) =>
    encodeFrame(frame(i === 0 ? FrameType.HELLO_ACK : FrameType.EVENT, Buffer.from([i]), i), i),
  );
  const [a, b, c, d] = frames as [Buffer, Buffer, Buffer, Buffer];
  for (const rest of [[c, d], [b, d, c], [b.subarray(0, 21), c, d], [b, b], [a]]) {
    const decoder = new FrameDecoder();
    decoder.push(a, () => decoder.strict());
    assert.throws(() => decoder.push(Buffer.concat(rest), () => {}), StacyError);
  }
});

test("mutated streams neither crash nor grow, and hunting finds the next hello", () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 200 }), { minLength: 8, maxLength: 8 }),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      fc.nat(),
      (payloads, flips, cut) => {
        const stream = session(payloads);
        for (const [at, value] of flips) stream[at % stream.length] = value;
        const decoder = new FrameDecoder();
        decoder.push(stream.subarray(0, cut % stream.length), () => {});
        assert.ok(decoder.buffered <= FILLER_BYTES);
        let last: Buffer | undefined;
        decoder.push(Buffer.concat([Buffer.alloc(FILLER_BYTES), session([Buffer.from("again")])]), (f) => {
          last = Buffer.from(f.payload);
        });
        assert.equal(last?.toString(), "again");
      },
    ),
    { numRuns: RUNS },
  );
});
