/**
 * What helpers may take of the host's `inotify`, of which each user has a limited amount for all programs: half of it together, so that editors and
 * services of the same user still have some. Who comes when it is used up serves all the same, and tells its guest nothing of changes by the host.
 */
import { readFile } from "node:fs/promises";

/** Directories that one helper watches at most. */
export const MOST_WATCHES = 2_048;
/** Fewer are given only where no more are left. */
const LEAST_WATCHES = 64;

export interface InotifyLimits {
  instances: number;
  watches: number;
}

export interface WatchGrant extends Disposable {
  /** Directories that may be watched; 0: none at all. */
  readonly watches: number;
}

export class WatchBudget {
  readonly #limits: () => Promise<InotifyLimits>;
  /** By the host's user. */
  readonly #taken = new Map<number, InotifyLimits>();

  constructor(limits: () => Promise<InotifyLimits> = hostLimits) {
    this.#limits = limits;
  }

  /** @param uid whom the helper runs as */
  async take(uid: number): Promise<WatchGrant> {
    const limits = await this.#limits();
    const taken = this.#taken.get(uid) ?? { instances: 0, watches: 0 };
    // A part of what is left, so that there is some for many.
    const left = Math.floor(limits.watches / 2) - taken.watches;
    const watches = Math.min(MOST_WATCHES, left, Math.max(LEAST_WATCHES, Math.floor(left / 8)));
    if (taken.instances + 1 > limits.instances / 2 || watches <= 0) return { watches: 0, [Symbol.dispose]() {} };
    this.#add(uid, 1, watches);
    let held = true;
    return {
      watches,
      [Symbol.dispose]: () => {
        if (held) this.#add(uid, -1, -watches);
        held = false;
      },
    };
  }

  #add(uid: number, instances: number, watches: number): void {
    const taken = this.#taken.get(uid) ?? { instances: 0, watches: 0 };
    const now = { instances: taken.instances + instances, watches: taken.watches + watches };
    if (now.instances === 0) this.#taken.delete(uid);
    else this.#taken.set(uid, now);
  }
}

/** Of this process: every guest's helpers count, whatever its monitor. */
export const watchBudget = new WatchBudget();

async function hostLimits(): Promise<InotifyLimits> {
  const read = async (name: string): Promise<number> =>
    Number(await readFile(`/proc/sys/fs/inotify/${name}`, "latin1").catch(() => "0"));
  const [instances, watches] = await Promise.all([read("max_user_instances"), read("max_user_watches")]);
  return { instances, watches };
}
