/** Patterns of COPY and ADD: what Go's filepath.Match says of one name, since that is what Docker asks. */
import { Minimatch } from "minimatch";
import { StacyError } from "../host/error.ts";

const SPECIAL = /[*?[\\]/;

export function isPattern(name: string): boolean {
  return SPECIAL.test(name);
}

/**
 * @param pattern of one component of a path: `*`, `?`, `[a-z]`, `[^a]`, a backslash before what means itself
 * @throws StacyError `invalid` for a bracket that is not closed, or holds nothing
 */
export function namePattern(pattern: string): (name: string) => boolean {
  if (!isPattern(pattern)) return (name) => name === pattern;
  const known = pattern.replace(/\\[\s\S]|\[(\^?)((?:\\[\s\S]|[^\]\\])*)\]/g, (found, not: string, inside?: string) => {
    if (inside === undefined) return found;
    if (inside === "") throw bad(pattern);
    // `!` and `[:` mean something to others, and themselves to Go.
    return `[${not}${inside.replace(/^!/, "\\!").replace(/\[/g, "\\[")}]`;
  });
  if (/(?:^|[^\\])(?:\\\\)*\[(?!(?:\\[\s\S]|[^\]\\])*\])/.test(known) || /(?:^|[^\\])(?:\\\\)*\\$/.test(known)) {
    throw bad(pattern);
  }
  const options = { dot: true, nobrace: true, noext: true, nocomment: true, nonegate: true, noglobstar: true } as const;
  const matcher = new Minimatch(known, options);
  return (name) => matcher.match(name);
}

function bad(pattern: string): StacyError {
  return new StacyError("invalid", `${pattern} is no pattern`, {
    remedy: "close its brackets, or write a backslash before a character that means itself",
  });
}
