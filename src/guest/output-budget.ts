/**
 * Memory for output that is collected until its command ends. Guests decide how much they print, so one call has a limit, and all
 * calls together have one too; what does not fit is dropped, and the result says so.
 */
export class OutputBudget {
  readonly #perCall: number;
  #left: number;

  /** @param perCall bytes @param total bytes, of all calls together */
  constructor(perCall: number, total: number) {
    this.#perCall = perCall;
    this.#left = total;
  }

  /** For one call: what it took is given back when this is disposed of. */
  open(): CollectedOutput {
    let taken = 0;
    return {
      take: (bytes) => {
        const granted = Math.max(0, Math.min(bytes, this.#perCall - taken, this.#left));
        taken += granted;
        this.#left -= granted;
        return granted;
      },
      [Symbol.dispose]: () => {
        this.#left += taken;
        taken = 0;
      },
    };
  }
}

export interface CollectedOutput extends Disposable {
  /** @returns how many of these bytes may be kept */
  take(bytes: number): number;
}
