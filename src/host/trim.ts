/** Ends of texts from outside. */

/**
 * Without the character at its end, however often it is there. A pattern such as `/\/+$/` looks at each run of it anew from each of its places:
 * seconds for 64 KiB of slashes with something behind them.
 */
export function withoutEnd(text: string, character: string): string {
  let end = text.length;
  while (end > 0 && text[end - 1] === character) end -= 1;
  return text.slice(0, end);
}
