/**
 * Words and names from guests, registries and archives, for people: in a message, a table, a log line. Whatever a terminal would take for an
 * order (control characters, escape sequences), whatever makes a line look like several or puts it in another order (line and
 * paragraph separators, marks for the direction of text) and what is invisible stands as its number.
 */

/** Cc, Cf, Zl, Zp, lone surrogates, private use and what no character has. */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}]/gu;

export function printable(text: string): string {
  return text.replace(UNSAFE, escaped);
}

/** The same for several lines, which stay lines: a program's words, an error with a list. */
export function printableLines(text: string): string {
  return text.replace(UNSAFE, (character) =>
    character === "\n" || character === "\t" ? character : escaped(character),
  );
}

/** JSON text with the same characters as JSON's own escapes: nothing else of it changes. */
export function printableJson(text: string): string {
  return text.replace(UNSAFE, (character) => {
    if (character === "\n" || character === "\t") return character;
    const units = Array.from({ length: character.length }, (_, i) => character.charCodeAt(i));
    return units.map((unit) => `\\u${unit.toString(16).padStart(4, "0")}`).join("");
  });
}

/** A line that a program of ours has coloured: its colours stay. */
export function printableColoured(text: string): string {
  return text.replace(/\x1b\[[0-9;]*m|[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}]/gu, (match) =>
    match.length > 2 || match === "\n" || match === "\t" ? match : escaped(match),
  );
}

function escaped(character: string): string {
  const unit = character.codePointAt(0) ?? 0;
  // A byte of a name that is not UTF-8 (byte-name.ts).
  const code = unit >= 0xdc80 && unit <= 0xdcff ? unit - 0xdc00 : unit;
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, "0")}`;
  return `\\u{${code.toString(16)}}`;
}
