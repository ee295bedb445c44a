/** An answer of the server for a page: asked when the page opens, and again when somebody wants it. */
import { useEffect, useState } from "preact/hooks";
import { textOf } from "./notes.ts";

export interface Asked<T> {
  value: T | undefined;
  /** Why there is none. */
  error: string | undefined;
  again: () => Promise<void>;
}

/** @param every ms; absent: once. What fails is tried again with the next turn. */
export function useAsked<T>(ask: () => Promise<T>, about: readonly unknown[], every?: number): Asked<T> {
  const [state, set] = useState<{ value?: T; error?: string }>({});
  const again = async (): Promise<void> => {
    try {
      set({ value: await ask() });
    } catch (error) {
      set((last) => ({ ...last, error: textOf(error) }));
    }
  };
  useEffect(() => {
    let over = false;
    const turn = async (): Promise<void> => {
      try {
        const value = await ask();
        if (!over) set({ value });
      } catch (error) {
        if (!over) set((last) => ({ ...last, error: textOf(error) }));
      }
    };
    set({});
    void turn();
    const timer =
      every === undefined
        ? undefined
        : setInterval(() => {
            if (document.visibilityState === "visible") void turn();
          }, every);
    return () => {
      over = true;
      clearInterval(timer);
    };
  }, about);
  return { value: state.value, error: state.error, again };
}
