/** A user for each jailed machine: a uid, and the gid of the same number, that no other living machine has. */
import { randomInt } from "node:crypto";
import { readdir, stat } from "node:fs/promises";
import { StacyError } from "../../host/error.ts";

export class JailUsers {
  readonly #base: number;
  readonly #count: number;
  readonly #taken = new Set<number>();
  /** Of processes that were there before: adopted machines, and those of other daemons on the same range. */
  #found: Promise<Set<number>> = Promise.resolve(new Set());
  #next: number;
  #untilScan = 0;

  /** The uids from `base` on, `count` of them. */
  constructor(base: number, count: number) {
    this.#base = base;
    this.#count = count;
    // Not all daemons of a host begin with the same one.
    this.#next = randomInt(count);
  }

  /** @throws StacyError `limit` when all of them are in use; whatever the look at the processes throws */
  async take(): Promise<number> {
    for (let tried = 0; tried < this.#count; tried++) {
      if (this.#untilScan-- <= 0) {
        // Once per round, which also forgets machines that have ended since.
        this.#untilScan = this.#count;
        this.#found = living(this.#base, this.#count);
        this.#found.catch(() => {
          this.#untilScan = 0; // nothing was seen: who comes next looks again
        });
      }
      // All who begin at once wait for the same look, also those that came after the one who began it.
      const found = await this.#found;
      const uid = this.#base + (this.#next++ % this.#count);
      if (this.#taken.has(uid) || found.has(uid)) continue;
      this.#taken.add(uid);
      return uid;
    }
    throw new StacyError("limit", `all ${this.#count} users for jailed machines are in use`, {
      remedy: "end some sandboxes",
    });
  }

  give(uid: number): void {
    this.#taken.delete(uid);
  }
}

/** Owners of living processes within the range. */
async function living(base: number, count: number): Promise<Set<number>> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const owners = await Promise.all(
    pids.map((pid) =>
      stat(`/proc/${pid}`).then(
        ({ uid }) => uid,
        () => -1,
      ),
    ),
  );
  return new Set(owners.filter((uid) => uid >= base && uid < base + count));
}
