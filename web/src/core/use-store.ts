import { useEffect, useState } from "preact/hooks";
import type { Store } from "./store.ts";

/** Draws again whenever it changes. */
export function useStore<S extends Store>(store: S): S {
  const [, again] = useState(0);
  useEffect(() => store.onChange(() => again((n) => n + 1)), [store]);
  return store;
}
