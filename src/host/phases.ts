import { asStacyError } from "./error.ts";

/** Measures named phases in ms on the monotonic clock. A phase that fails names itself in its error. */
export class Phases {
  readonly #started = performance.now();
  readonly #ms: Record<string, number> = {};

  async phase<T>(name: string, work: () => Promise<T>): Promise<T> {
    const start = performance.now();
    try {
      return await work();
    } catch (error) {
      throw asStacyError(error).inPhase(name);
    } finally {
      this.#ms[name] = round((this.#ms[name] ?? 0) + performance.now() - start);
    }
  }

  /** ms by name, in the order in which they were first measured. */
  get ms(): Record<string, number> {
    return { ...this.#ms };
  }

  /** ms since this object was made. */
  get total(): number {
    return round(performance.now() - this.#started);
  }
}

function round(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
