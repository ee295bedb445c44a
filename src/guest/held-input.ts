/**
 * Memory for what clients send that is read as a whole, or waits until a program of a guest takes it. How long that is, a guest that never
 * reads and a client that sends slowly decide; so all of it in this process has one bound, of which one owner has half at most. What goes
 * on piece by piece, at the pace of whoever takes it, needs none of it.
 */
import { GUEST_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import { OutputBudget } from "./output-budget.ts";

/** Of this process. */
const budget = new OutputBudget(GUEST_BOUNDS.inputBytes, GUEST_BOUNDS.inputBytes);

/** What one call holds; given back when this is disposed of, after which it may hold something else. */
export class HeldInput implements Disposable {
  readonly #room;
  #bytes = 0;

  /** @param owner whose call it is */
  constructor(owner: string) {
    this.#room = budget.open(owner);
  }

  /** @throws StacyError `limit` when there is no room for so many more bytes; what was held before stays held */
  add(bytes: number): void {
    const { inputFreeBytes: free } = GUEST_BOUNDS;
    const before = Math.max(0, this.#bytes - free);
    const more = Math.max(0, this.#bytes + bytes - free) - before;
    if (more > 0 && this.#room.take(more) < more) {
      throw new StacyError("limit", "too much input waits for programs that do not take it, or is being sent", {
        phase: "input",
        remedy: "wait until they do, send less at a time, or write a file and let the program read that",
      });
    }
    this.#bytes += bytes;
  }

  [Symbol.dispose](): void {
    this.#room[Symbol.dispose]();
    this.#bytes = 0;
  }
}
