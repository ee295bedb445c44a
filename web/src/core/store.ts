/** Something that changes, and tells those who listen; use-store.ts draws it. */

export class Store {
  readonly #listeners = new Set<() => void>();
  #told = false;

  /** @returns stops telling */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Many changes in one turn are told once. */
  protected changed(): void {
    if (this.#told) return;
    this.#told = true;
    queueMicrotask(() => {
      this.#told = false;
      for (const listener of this.#listeners) listener();
    });
  }
}
