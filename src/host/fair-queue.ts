/**
 * Work of many parties on one thing: some pieces at a time, and the parties take turns, so that nobody's many pieces keep another one's
 * single piece waiting. Where several are done at a time, one party has half of the places at most unless it is said otherwise: pieces may take long. A piece that
 * itself waits for something, and works at nothing meanwhile, lets others have its place.
 */

/** What waits without its place. What comes after it has one at once: it may hold what others wait for. */
export type Resting = <T>(wait: () => Promise<T>) => Promise<T>;

export class FairQueue {
  readonly #places: number;
  readonly #most: number;
  /** In the order of their next turn. */
  readonly #waiting = new Map<string, (() => Promise<void>)[]>();
  /** Pieces of each party that are under way. */
  readonly #active = new Map<string, number>();
  /** Of those that wait without their places: of each party, at most as many as there are places. */
  readonly #resting = new Map<string, number>();
  #busy = 0;
  #idle = Promise.withResolvers<void>();

  /** @param places how many pieces are done at a time @param most of one party */
  constructor(places = 1, most = Math.ceil(places / 2)) {
    this.#places = places;
    this.#most = most;
    this.#idle.resolve();
  }

  /** Pieces of this party that wait. */
  waiting(party: string): number {
    return this.#waiting.get(party)?.length ?? 0;
  }

  /** @param work never rejects */
  add(party: string, work: () => Promise<void>): void {
    if (this.#nothing) this.#idle = Promise.withResolvers<void>();
    const pieces = this.#waiting.get(party);
    if (pieces === undefined) this.#waiting.set(party, [work]);
    else pieces.push(work);
    this.#advance();
  }

  /** The same for one that somebody waits for. @param signal leaves the queue; of a piece under way it is the work's own matter */
  run<T>(party: string, signal: AbortSignal, work: (resting: Resting) => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const leave = (): void => reject(signal.reason);
      if (signal.aborted) return leave();
      signal.addEventListener("abort", leave, { once: true });
      this.add(party, async () => {
        signal.removeEventListener("abort", leave);
        if (signal.aborted) return;
        await work((wait) => this.#rest(party, wait)).then(resolve, reject);
      });
    });
  }

  /** Settles when nothing waits or is under way any more. */
  idle(): Promise<void> {
    return this.#idle.promise;
  }

  #advance(): void {
    while (this.#busy < this.#places) {
      const next = this.#next();
      if (next === undefined) break;
      void this.#work(next.party, next.piece);
    }
    if (this.#nothing) this.#idle.resolve();
  }

  get #nothing(): boolean {
    return this.#busy === 0 && this.#waiting.size === 0 && this.#resting.size === 0;
  }

  async #work(party: string, piece: () => Promise<void>): Promise<void> {
    this.#enter(party);
    try {
      await piece();
    } finally {
      this.#leave(party);
      this.#advance();
    }
  }

  async #rest<T>(party: string, wait: () => Promise<T>): Promise<T> {
    if ((this.#resting.get(party) ?? 0) >= this.#places) return await wait();
    add(this.#resting, party, 1);
    this.#leave(party);
    this.#advance();
    try {
      return await wait();
    } finally {
      add(this.#resting, party, -1);
      this.#enter(party);
    }
  }

  #enter(party: string): void {
    this.#busy += 1;
    add(this.#active, party, 1);
  }

  #leave(party: string): void {
    this.#busy -= 1;
    add(this.#active, party, -1);
  }

  #next(): { party: string; piece: () => Promise<void> } | undefined {
    for (const [party, pieces] of this.#waiting) {
      if ((this.#active.get(party) ?? 0) >= this.#most) continue;
      const piece = pieces.shift();
      this.#waiting.delete(party);
      if (pieces.length > 0) this.#waiting.set(party, pieces);
      if (piece !== undefined) return { party, piece };
    }
    return undefined;
  }
}

function add(counts: Map<string, number>, party: string, more: number): void {
  const count = (counts.get(party) ?? 0) + more;
  if (count === 0) counts.delete(party);
  else counts.set(party, count);
}
