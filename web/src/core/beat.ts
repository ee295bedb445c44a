/** How soon a server that is gone is seen to be: together less than two seconds. */

/** From one sign of life to the next question for it, ms. */
export const BEAT_MS = 900;
/** An answer that takes longer is none, ms. */
export const BEAT_LIMIT_MS = 950;
