/** Something that takes long and that several calls may wait for, each in turn. */
export class Work<T> {
  readonly done: Promise<T>;
  #step: () => string = () => "";

  constructor(begin: (say: (step: string | (() => string)) => void) => Promise<T>) {
    this.done = begin((step) => {
      this.#step = typeof step === "string" ? () => step : step;
    });
    // Whoever waits meets the failure.
    this.done.catch(() => {});
  }

  /** How far it is. */
  readonly step = (): string => this.#step();
}
