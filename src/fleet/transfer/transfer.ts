/**
 * Files that come from other nodes, piece by piece. Each piece is held against its checksum before it is written; what was cut off is
 * asked for again, of another node that has it or of the same one, and what is there already is not asked for. A file is whole and on disk
 * when this is done with it; its name is its owner's business.
 */
import { type FileHandle, open } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { asStacyError, StacyError } from "../../host/error.ts";
import { type Content, digestOf, PIECE_BYTES, type Piece, readPiece, writePiece } from "./pieces.ts";

/** Pieces of one question. */
const AT_ONCE = 32;
/** Questions to a node in a row that bring nothing, before it is asked no more, and the pause after the first, ms; it doubles. */
const ATTEMPTS = 6;
const PAUSE_MS = 200;

/** Somebody who has the file. */
export interface Source {
  /** For people. */
  name: string;
  /** The pieces' bytes, one after another. */
  read(pieces: readonly Piece[], signal: AbortSignal): Promise<AsyncIterable<Buffer>>;
}

export interface Received {
  /** Bytes that came from others. */
  bytes: number;
  /** That were here already. */
  known: number;
}

export interface ReceiveOptions {
  signal: AbortSignal;
  /** Files of this host that may hold the same at the same places. */
  like?: readonly string[];
  /** After a question that brings nothing; default: 200. */
  pauseMs?: number;
}

/**
 * Fills a new file, which is on disk for good then.
 * @throws StacyError `unavailable` when no source has brought all of it, `corrupt` when what they send is something else
 */
export async function receive(
  path: string,
  content: Content,
  sources: readonly Source[],
  { signal, like = [], pauseMs = PAUSE_MS }: ReceiveOptions,
): Promise<Received> {
  const file = await open(path, "wx", 0o600);
  try {
    await file.truncate(content.size);
    const missing = await copyKnown(file, content.pieces, like, signal);
    const known = sum(content.pieces) - sum(missing);
    await fetchAll(file, missing, sources, signal, pauseMs);
    await file.sync();
    return { bytes: sum(missing), known };
  } finally {
    await file.close();
  }
}

/** @returns the pieces that no file here has */
async function copyKnown(
  file: FileHandle,
  pieces: readonly Piece[],
  like: readonly string[],
  signal: AbortSignal,
): Promise<Piece[]> {
  let missing = [...pieces];
  for (const path of like) {
    const known = await open(path, "r").catch(() => undefined);
    if (known === undefined) continue;
    try {
      const left: Piece[] = [];
      for (const piece of missing) {
        signal.throwIfAborted();
        const data = await readPiece(known, piece).catch(() => undefined);
        if (data !== undefined && digestOf(data) === piece.sha256) await writePiece(file, piece.at, data);
        else left.push(piece);
      }
      missing = left;
    } finally {
      await known.close();
    }
  }
  return missing;
}

async function fetchAll(
  file: FileHandle,
  missing: readonly Piece[],
  sources: readonly Source[],
  signal: AbortSignal,
  pauseMs: number,
): Promise<void> {
  const waiting = [...missing];
  let under = 0;
  let last: StacyError | undefined;
  const whole = new AbortController();
  const either = AbortSignal.any([signal, whole.signal]);
  const work = async (source: Source): Promise<void> => {
    for (let failures = 0; failures < ATTEMPTS && !whole.signal.aborted; ) {
      signal.throwIfAborted();
      const batch = waiting.splice(0, AT_ONCE);
      const wanted = batch.length;
      under += 1;
      try {
        if (wanted > 0) await fetchSome(file, batch, source, signal);
      } catch (error) {
        signal.throwIfAborted();
        last = asStacyError(error, "unavailable");
        // What it has brought until then is there.
        waiting.unshift(...batch);
      }
      under -= 1;
      if (waiting.length === 0 && under === 0) return whole.abort();
      failures = batch.length < wanted ? 0 : failures + (wanted > 0 ? 1 : 0);
      // Another source may fail at what it has under way.
      if (batch.length > 0 || wanted === 0)
        await delay(pauseMs * 2 ** failures, undefined, { signal: either }).catch(() => {});
    }
  };
  await Promise.all(sources.map(work));
  if (waiting.length === 0) return;
  const names = sources.map(({ name }) => name).join(", ") || "no node";
  const code = last?.code === "corrupt" ? "corrupt" : "unavailable";
  throw new StacyError(code, `the file did not come from ${names}: ${last?.message ?? "nobody has it"}`, {
    phase: "transfer",
    cause: last,
    remedy: "see whether these nodes reach one another (`stacyvm node ls`), and try again",
  });
}

/** @param batch what is there is taken from it */
async function fetchSome(file: FileHandle, batch: Piece[], source: Source, signal: AbortSignal): Promise<void> {
  const piece = Buffer.allocUnsafe(PIECE_BYTES);
  let filled = 0;
  for await (const bytes of await source.read([...batch], signal)) {
    for (let taken = 0; taken < bytes.length; ) {
      const [next] = batch;
      if (next === undefined) throw new StacyError("corrupt", `${source.name} sends more than it was asked for`);
      const more = Math.min(next.length - filled, bytes.length - taken);
      bytes.copy(piece, filled, taken, taken + more);
      filled += more;
      taken += more;
      if (filled < next.length) continue;
      const data = piece.subarray(0, filled);
      if (digestOf(data) !== next.sha256) {
        throw new StacyError("corrupt", `what ${source.name} sends is not what was asked for`);
      }
      await writePiece(file, next.at, data);
      batch.shift();
      filled = 0;
    }
  }
  if (batch.length > 0) throw new StacyError("disconnected", `${source.name} stopped in the middle`);
}

function sum(pieces: readonly Piece[]): number {
  return pieces.reduce((bytes, { length }) => bytes + length, 0);
}
