/**
 * Node's parser hands over each chunk of a body by itself: a peer that sends chunks of one byte makes ten thousand objects of one read, and
 * each of them then goes through every stream behind it. Here what came is passed on in one piece, in the turn of this body (turns.ts), and
 * no more is read before that.
 */
import type { IncomingMessage } from "node:http";
import { turns } from "./turns.ts";

/** Bytes. A piece of so many costs little for what it carries. */
const LARGE = 4096;
/** That wait for their turn before reading stops. */
const MOST_PIECES = 256;

/** Before anything of the body came: in the handler of "request" or "response". */
export function mergeBody(message: IncomingMessage): void {
  const push = message.push.bind(message);
  let held: Buffer[] = [];
  let waiting = false;
  const flush = (): boolean => {
    const pieces = held;
    held = [];
    if (pieces.length === 0 || message.destroyed) return true;
    return push(pieces.length === 1 ? pieces[0] : Buffer.concat(pieces));
  };
  const turn = (): boolean => {
    waiting = false;
    flush();
    return false;
  };
  message.push = (piece: Buffer | null): boolean => {
    if (piece === null) {
      flush();
      return push(null);
    }
    if (held.length === 0 && piece.length >= LARGE) return push(piece);
    held.push(piece);
    if (!waiting) {
      waiting = true;
      turns.add(turn);
    }
    return held.length < MOST_PIECES && message.readableLength < message.readableHighWaterMark;
  };
}
