/** An answer of the server for a page: asked when the page opens, and again when somebody wants it. */
import { useEffect, useRef, useState } from "preact/hooks";
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
  // Answers may come in another order than they were asked for: an older one than what is shown is dropped.
  const turns = useRef({ asked: 0, shown: 0 });
  const again = async (): Promise<void> => {
    const turn = ++turns.current.asked;
    const show = (next: Parameters<typeof set>[0]): void => {
      if (turn < turns.current.shown) return;
      turns.current.shown = turn;
      set(next);
    };
    try {
      show({ value: await ask() });
    } catch (error) {
      show((last) => ({ ...last, error: textOf(error) }));
    }
  };
  useEffect(() => {
    set({});
    void again();
    const timer =
      every === undefined
        ? undefined
        : setInterval(() => {
            if (document.visibilityState === "visible") void again();
          }, every);
    return () => {
      turns.current.shown = ++turns.current.asked;
      clearInterval(timer);
    };
  }, about);
  return { value: state.value, error: state.error, again };
}
