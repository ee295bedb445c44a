/** Something that changes, and what draws it. */
import { useEffect, useState } from "preact/hooks";

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

/** Draws again whenever it changes. */
export function useStore<S extends Store>(store: S): S {
  const [, again] = useState(0);
  useEffect(() => store.onChange(() => again((n) => n + 1)), [store]);
  return store;
}
