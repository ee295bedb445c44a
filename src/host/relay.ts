/**
 * Passing bytes on from a reader to a writer that may be slow. Node's own pipe counts what waits in bytes only: a peer that sends single ones
 * fills the writer's queue with tens of thousands of objects. Here a few pieces wait, and the rest where it comes from.
 */
import type { Readable, Writable } from "node:stream";

const PIECES = 16;

/** Told of each piece. @returns ms to wait before it goes on, and any other after it @throws to end it */
export type Passed = (bytes: number) => number;

/**
 * Until `from` ends, which ends `to`. An error of either destroys both.
 * @param done once, when this direction is over
 */
export function relay(
  from: Readable,
  to: Writable,
  done: (error?: Error) => void = () => {},
  passed: Passed = () => 0,
): void {
  let waiting = 0;
  let over = false;
  let held: NodeJS.Timeout | undefined;
  /** It ended while its last piece is held. */
  let ended = false;
  const finish = (error?: Error): void => {
    if (over) return;
    over = true;
    clearTimeout(held);
    from.off("data", pass).off("end", end).off("error", fail).off("close", closed);
    to.off("error", fail).off("close", closedTo).off("finish", finished);
    from.on("error", () => {});
    to.on("error", () => {});
    if (error !== undefined) {
      from.destroy(error);
      to.destroy(error);
    }
    done(error);
  };
  const fail = (error: Error): void => finish(error);
  const written = (error?: Error | null): void => {
    waiting -= 1;
    if (error != null) finish(error);
    else goOn();
  };
  const goOn = (): void => {
    if (!over && held === undefined && waiting < PIECES && from.isPaused()) from.resume();
  };
  const write = (piece: Buffer): void => {
    if (to.destroyed || to.writableEnded) {
      finish(new Error("the writer is closed"));
      return;
    }
    waiting += 1;
    const more = to.write(piece, written);
    if (!more || waiting >= PIECES) from.pause();
    else goOn();
  };
  const hold = (piece: Buffer, ms: number): void => {
    from.pause();
    held = setTimeout(() => {
      held = undefined;
      write(piece);
      if (ended) to.end();
    }, ms).unref();
  };
  const pass = (piece: Buffer): void => {
    let wait: number;
    try {
      wait = passed(piece.length);
    } catch (error) {
      finish(error as Error);
      return;
    }
    if (wait > 0) hold(piece, wait);
    else write(piece);
  };
  const end = (): void => {
    if (held === undefined) to.end();
    else ended = true;
  };
  const finished = (): void => finish();
  const closed = (): void => {
    if (!from.readableEnded) finish(new Error("the reader was closed before its end"));
  };
  const closedTo = (): void => finish(to.writableFinished ? undefined : new Error("the writer was closed"));
  from.on("data", pass).on("end", end).on("error", fail).on("close", closed);
  to.on("error", fail).on("close", closedTo).on("finish", finished);
}
