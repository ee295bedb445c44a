/** Work of many parties on one thing: one piece at a time, and the parties take turns, so that nobody's many pieces keep another one's single piece waiting. */
export class FairQueue {
  /** In the order of their next turn. */
  readonly #waiting = new Map<string, (() => Promise<void>)[]>();
  #busy: Promise<void> | undefined;

  /** Pieces of this party that wait. */
  waiting(party: string): number {
    return this.#waiting.get(party)?.length ?? 0;
  }

  /** @param work never rejects */
  add(party: string, work: () => Promise<void>): void {
    const pieces = this.#waiting.get(party);
    if (pieces === undefined) this.#waiting.set(party, [work]);
    else pieces.push(work);
    this.#busy ??= this.#work().finally(() => {
      this.#busy = undefined;
    });
  }

  /** Settles when nothing waits or is under way any more. */
  async idle(): Promise<void> {
    await this.#busy;
  }

  async #work(): Promise<void> {
    for (let next = this.#next(); next !== undefined; next = this.#next()) await next();
  }

  #next(): (() => Promise<void>) | undefined {
    const [first] = this.#waiting;
    if (first === undefined) return undefined;
    const [party, pieces] = first;
    const piece = pieces.shift();
    this.#waiting.delete(party);
    if (pieces.length > 0) this.#waiting.set(party, pieces);
    return piece;
  }
}
