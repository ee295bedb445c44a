/** When a command's output was written: the guest says it by position, ahead of the output itself. */

/** A guest that says more times than its ring has pieces is not believed further. */
const MOST = 65_536;

export class OutputTimes {
  readonly #times: { from: number; ms: number }[] = [];
  #now: number | undefined;

  /** @param from position of the first byte @param ms since 1970 */
  add(from: number, ms: number): void {
    if (this.#times.length < MOST) this.#times.push({ from, ms });
  }

  /** Positions are asked for in ascending order. @returns ms since 1970; `undefined` where nothing was said */
  at(position: number): number | undefined {
    let past = 0;
    for (const { from, ms } of this.#times) {
      if (from > position) break;
      this.#now = ms;
      past += 1;
    }
    this.#times.splice(0, past);
    return this.#now;
  }
}
