/** Permission bits as `chmod` takes them: in octal, or as letters that change what is there (POSIX, `chmod`, "mode"). */
import type { FileStat } from "../guest/agent.ts";

/** From what a file has to what it shall have. */
export type ModeChange = (file: Pick<FileStat, "mode" | "kind">) => number;

const OCTAL = /^(0o?)?[0-7]{1,4}$/;
const CLAUSE = /^[ugoa]*(?:[-+=][rwxXst]*)+$/;
/** Without `u`, `g`, `o` or `a`, the bits that this mask has are left alone. */
const UMASK = 0o022;
const SHIFT = { u: 6, g: 3, o: 0 } as const;

/** @returns bits, a change, or `undefined` when it is neither */
export function parseMode(text: string): number | ModeChange | undefined {
  if (OCTAL.test(text)) return Number.parseInt(text.replace(/^0o/, ""), 8);
  const clauses = text.split(",");
  if (!clauses.every((clause) => CLAUSE.test(clause))) return undefined;
  return ({ mode, kind }) => clauses.reduce((bits, clause) => apply(clause, bits, kind === "directory"), mode);
}

function apply(clause: string, before: number, directory: boolean): number {
  const who = /^[ugoa]*/.exec(clause)?.[0] ?? "";
  const classes = (["u", "g", "o"] as const).filter((each) => who === "" || who.includes("a") || who.includes(each));
  let bits = before;
  for (const [, operator, letters = ""] of clause.slice(who.length).matchAll(/([-+=])([rwxXst]*)/g)) {
    const execute = letters.includes("x") || (letters.includes("X") && (directory || (before & 0o111) !== 0));
    const three = (letters.includes("r") ? 4 : 0) | (letters.includes("w") ? 2 : 0) | (execute ? 1 : 0);
    let named = 0;
    let all = 0;
    for (const each of classes) {
      named |= three << SHIFT[each];
      all |= 7 << SHIFT[each];
      if (each !== "o") {
        all |= each === "u" ? 0o4000 : 0o2000;
        if (letters.includes("s")) named |= each === "u" ? 0o4000 : 0o2000;
      }
    }
    if (letters.includes("t")) named |= 0o1000;
    if (who === "") named &= ~UMASK;
    // A directory keeps its set-id bits unless they are named, as GNU's chmod does.
    if (operator === "=") bits = (bits & ~(directory ? all & 0o777 : all)) | named;
    else bits = operator === "+" ? bits | named : bits & ~named;
  }
  return bits;
}
