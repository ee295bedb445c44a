import type { Live } from "./live.ts";

/** A view puts itself into the page and gives what ends it. */
export type View = (live: Live, root: HTMLElement) => () => void;
