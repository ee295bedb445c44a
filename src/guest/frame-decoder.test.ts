import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import fc from "fast-check";
import { StacyError } from "../host/error.ts";
import { FrameDecoder } from "./frame-decoder.ts";
import { encodeFrame, FILLER_BYTES, FieldReader, FieldWriter, type Frame, FrameType } from "./protocol.ts";

/** Mutated frames per run, eight per stream; `FUZZ_FRAMES=1000000` is the long form. */
const FRAMES = Number(process.env.FUZZ_FRAMES ?? 4000);

async function rows(name: string): Promise<string[][]> {
  const text = await readFile(new URL(`../../test/vectors/${name}`, import.meta.url), "utf8");
  return text
    .trimEnd()
    .split("\n")
    .map((line) => line.split("\t"));
}

function frame(type: number, payload: Uint8Array, stream = 0): Frame {
  return { type, channel: 0, flags: 0, stream, payload };
}

function session(payloads: Uint8Array[]): Buffer {
  return Buffer.concat(
    payloads.map((payload, i) => encodeFrame(frame(i === 0 ? FrameType.HELLO_ACK : FrameType.EVENT, payload, i), i)),
  );
}

test("the shared vectors are encoded and decoded alike", async () => {
  const vectors = await rows("frames.tsv");
  const types = new Set(vectors.map(([, type]) => Number(type)));
  for (const type of Object.values(FrameType)) assert.ok(types.has(type), `no vector of type ${type}`);
  for (const [name, type, channel, flags, stream, sequence, payload, bytes] of vectors) {
    const original = {
      type: Number(type),
      channel: Number(channel),
      flags: Number(flags),
      stream: Number(stream),
      payload: Buffer.from(payload ?? "", "hex"),
    };
    const encoded = encodeFrame(original, Number(sequence));
    assert.equal(encoded.toString("hex"), bytes, String(name));
    // Led into step, so that the vector is the frame that is expected next.
    const decoder = new FrameDecoder(FrameType.HELLO_ACK);
    decoder.push(encodeFrame(frame(FrameType.HELLO_ACK, Buffer.alloc(0)), 0), () => {});
    decoder.expectForTests(Number(sequence));
    const seen: Frame[] = [];
    decoder.push(encoded, (f) => seen.push({ ...f, payload: Buffer.from(f.payload) }));
    assert.deepEqual(seen, [original], String(name));
  }
});

test("what no decoder may take is refused", async () => {
  for (const [name, bytes] of await rows("rejected.tsv")) {
    const decoder = new FrameDecoder();
    decoder.push(Buffer.concat([Buffer.from(String(bytes), "hex"), Buffer.alloc(FILLER_BYTES)]), () =>
      assert.fail(String(name)),
    );
  }
  for (const [name, bytes] of await rows("bad-fields.tsv"))
    assert.throws(() => new FieldReader(Buffer.from(String(bytes), "hex")), StacyError, String(name));
});

test("fields come back as they were written, lists in order", () => {
  const field = fc.tuple(fc.integer({ min: 0, max: 255 }), fc.uint8Array({ maxLength: 40 }));
  fc.assert(
    fc.property(fc.array(field, { maxLength: 20 }), (fields) => {
      const writer = new FieldWriter();
      for (const [tag, value] of fields) writer.bytes(tag, value);
      const reader = new FieldReader(writer.finish());
      for (const [tag] of fields)
        assert.deepEqual(
          reader.all(tag).map((b) => Uint8Array.from(b)),
          fields.filter(([t]) => t === tag).map(([, value]) => Uint8Array.from(value)),
        );
    }),
  );
});

test("any bytes are fields or the typed error", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        const reader = new FieldReader(bytes);
        for (let tag = 0; tag < 256; tag++) if (reader.bytes(tag)?.length === 8) reader.number(tag);
      } catch (error) {
        assert.ok(error instanceof StacyError, String(error));
      }
    }),
    { numRuns: 1000 },
  );
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

/** Numbers that are the same in every run. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

test("mutated streams neither crash nor grow, and hunting finds the next hello", () => {
  const below = random(0x9e3779b9);
  const fresh = Buffer.concat([Buffer.alloc(FILLER_BYTES), session([Buffer.from("again")])]);
  for (let frames = 0; frames < FRAMES; frames += 8) {
    const original = session(Array.from({ length: 8 }, () => Buffer.alloc(below(200), below(256))));
    let stream = Buffer.from(original);
    const [a, b] = [below(stream.length), below(stream.length)];
    switch (below(5)) {
      case 0:
        stream[a] = (stream[a] ?? 0) ^ (1 << below(8));
        break;
      case 1:
        stream = stream.subarray(0, a);
        break;
      case 2:
        stream = Buffer.concat([stream.subarray(0, Math.min(a, b)), stream.subarray(Math.max(a, b))]);
        break;
      case 3:
        stream = Buffer.concat([stream.subarray(0, a), Buffer.from([below(256)]), stream.subarray(a)]);
        break;
      default:
        stream = Buffer.concat([stream.subarray(a), stream.subarray(0, a)]);
    }
    const decoder = new FrameDecoder();
    decoder.push(stream, (f) => {
      try {
        new FieldReader(f.payload);
      } catch (error) {
        assert.ok(error instanceof StacyError, String(error));
      }
    });
    assert.ok(decoder.buffered <= FILLER_BYTES);
    let last: Buffer | undefined;
    decoder.push(fresh, (f) => {
      last = Buffer.from(f.payload);
    });
    assert.equal(last?.toString(), "again");
  }
});

test("what looks like many headers is searched in turns, and the hello behind them is found", () => {
  // Each could be one until its checksum says that it is not.
  const decoy = encodeFrame(frame(FrameType.HELLO_ACK, Buffer.alloc(0), 0), 0).subarray(0, 16);
  const decoder = new FrameDecoder();
  const decoys = 10_000;
  decoder.feed(Buffer.concat([...Array.from({ length: decoys }, () => decoy), session([Buffer.from("found")])]));
  let turns = 0;
  const seen: string[] = [];
  do {
    const found = decoder.take();
    if (found !== undefined) seen.push(Buffer.from(found.payload).toString());
    else if (!decoder.unfinished) break;
    turns += 1;
  } while (turns < decoys);
  assert.equal(seen.at(-1), "found");
  assert.ok(turns > decoys / 300, `${turns} turns`);
});
