import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, open, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type Content, contentOf, contentSchema, PIECE_BYTES, type Piece } from "./pieces.ts";
import { Rate } from "./rate.ts";
import { receive, type Source } from "./transfer.ts";

let dir = "";
/** A sparse file of 64 MiB with 3 MiB in it, not at the borders of pieces, and one block in its last. */
let original = "";
let content: Content;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), "stacyvm-transfer-"));
  original = join(dir, "original");
  const file = await open(original, "w");
  await file.truncate((64 << 20) + 1000);
  await file.write(randomBytes(3 << 20), 0, 3 << 20, (8 << 20) + 12_288);
  await file.write(Buffer.from("end"), 0, 3, (64 << 20) + 990);
  await file.close();
  content = await contentOf(original);
});
after(() => rm(dir, { recursive: true, force: true }));

const signal = new AbortController().signal;

/** Sends what the original holds. @param spoil what becomes of the bytes; throws where the connection is cut */
function source(spoil: (bytes: Buffer, piece: Piece) => Buffer = (bytes) => bytes): Source & { asked: number } {
  const made = {
    name: "other",
    asked: 0,
    async read(pieces: readonly Piece[]): Promise<AsyncIterable<Buffer>> {
      made.asked += pieces.length;
      const whole = await readFile(original);
      return (async function* () {
        for (const piece of pieces) yield spoil(whole.subarray(piece.at, piece.at + piece.length), piece);
      })();
    },
  };
  return made;
}

async function arrived(
  name: string,
  sources: Source[],
  like: string[] = [],
): Promise<{ bytes: number; known: number }> {
  const path = join(dir, name);
  const done = await receive(path, content, sources, { signal, like, pauseMs: 5 });
  assert.ok((await readFile(path)).equals(await readFile(original)));
  const [is, was] = await Promise.all([stat(path), stat(original)]);
  assert.ok(is.blocks <= was.blocks + 8, `holes stay holes: ${is.blocks} blocks of ${was.blocks}`);
  return done;
}

test("a file's content is in pieces, without its holes, and holds against the schema that others' are held to", () => {
  assert.equal(content.size, (64 << 20) + 1000);
  assert.equal(content.pieces.length, (3 << 20) / PIECE_BYTES + 2);
  assert.deepEqual(contentSchema.parse(content), content);
  const [first, second] = content.pieces as [Piece, Piece];
  for (const pieces of [[second, first], [first, first], [{ ...first, at: 2 ** 40 }], [{ ...first, at: 1 }]]) {
    assert.equal(contentSchema.safeParse({ ...content, pieces }).success, false);
  }
});

test("it arrives whole; what is here already is not asked for", async () => {
  const first = source();
  const { bytes, known } = await arrived("first", [first]);
  assert.deepEqual([first.asked, known], [content.pieces.length, 0]);
  const second = source();
  assert.deepEqual(await arrived("second", [second], [join(dir, "nothing"), join(dir, "first")]), {
    bytes: 0,
    known: bytes,
  });
  assert.equal(second.asked, 0);
  // Of one that holds other things there, the rest is.
  const other = await readFile(original);
  other.fill(7, 9 << 20, (9 << 20) + 10);
  await writeFile(join(dir, "other"), other);
  const third = source();
  await arrived("third", [third], [join(dir, "other")]);
  assert.equal(third.asked, 1);
});

test("after a cut it goes on where it was; what is not as it was said is not written", async () => {
  let cuts = 3;
  const cut = source((bytes, { at }) => {
    if (at > 9 << 20 && cuts-- > 0) throw new Error("the connection is cut");
    return bytes;
  });
  await arrived("cut", [cut]);
  let lies = 1;
  const liar = source((bytes, { at }) => (at > 9 << 20 && lies-- > 0 ? randomBytes(bytes.length) : bytes));
  await arrived("liar", [liar]);
});

test("of several sources those that fail are left out; where all do, the error says why and nothing is taken for whole", async () => {
  const dead: Source = { name: "dead", read: () => Promise.reject(new Error("nobody is there")) };
  await arrived("several", [dead, source(), source()]);
  const short: Source = { name: "short", read: async () => (async function* () {})() };
  await assert.rejects(
    receive(join(dir, "none"), content, [short], { signal, pauseMs: 5 }),
    /short stopped in the middle/,
  );
  const ended = new AbortController();
  const never: Source = {
    name: "never",
    read: (_, signal) => new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
  };
  const waiting = receive(join(dir, "ended"), content, [never], { signal: ended.signal });
  ended.abort(new Error("nobody wants it"));
  await assert.rejects(waiting, /nobody wants it/);
});

test("a rate holds over all that is sent, and 0 is none", async () => {
  const begun = performance.now();
  const rate = new Rate(1_000_000);
  await Promise.all(Array.from({ length: 10 }, () => rate.take(50_000)));
  const limited = performance.now() - begun;
  assert.ok(limited > 200, `500 kB at 1 MB/s, of which a quarter of a second's may go at once: ${limited} ms`);
  const free = new Rate(0);
  const again = performance.now();
  for (let i = 0; i < 1000; i++) await free.take(1 << 30);
  assert.ok(performance.now() - again < limited);
});
