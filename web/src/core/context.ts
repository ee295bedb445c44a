import { createContext } from "preact";
import { useContext } from "preact/hooks";
import type { Live } from "./live.ts";
import { useStore } from "./use-store.ts";

export const LiveContext = createContext<Live | undefined>(undefined);

/** The server's state; the caller is drawn again when it changes. */
export function useLive(): Live {
  return useStore(theLive());
}

/** The same, to use: its changes draw nothing. */
export function theLive(): Live {
  const live = useContext(LiveContext);
  if (live === undefined) throw new Error("there is no server here");
  return live;
}
