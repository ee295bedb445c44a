/**
 * Memory for output that is collected until its command ends. Guests decide how much they print, so one call has a limit, and all
 * calls together have one too; what does not fit is dropped, and the result says so.
 */
export class OutputBudget {
  readonly #perCall: number;
  #left: number;
  /** By party, what its calls have. */
  readonly #taken = new Map<string, number>();

  /** @param perCall bytes @param total bytes, of all calls together */
  constructor(perCall: number, total: number) {
    this.#perCall = perCall;
    this.#left = total;
  }

  /**
   * For one call: what it took is given back when this is disposed of.
   * @param party its calls together never have more than is free, so that the others always find some; absent: as much as there is
   */
  open(party?: string): CollectedOutput {
    let taken = 0;
    return {
      take: (bytes) => {
        const granted = Math.max(0, Math.min(bytes, this.#perCall - taken, this.#free(party)));
        taken += granted;
        this.#count(party, granted);
        return granted;
      },
      [Symbol.dispose]: () => {
        this.#count(party, -taken);
        taken = 0;
      },
    };
  }

  #free(party: string | undefined): number {
    if (party === undefined) return this.#left;
    return Math.floor((this.#left - (this.#taken.get(party) ?? 0)) / 2);
  }

  #count(party: string | undefined, bytes: number): void {
    this.#left -= bytes;
    if (party === undefined) return;
    const sum = (this.#taken.get(party) ?? 0) + bytes;
    if (sum === 0) this.#taken.delete(party);
    else this.#taken.set(party, sum);
  }
}

export interface CollectedOutput extends Disposable {
  /** @returns how many of these bytes may be kept */
  take(bytes: number): number;
}
