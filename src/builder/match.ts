/** Patterns of COPY and ADD: what Go's filepath.Match says of one name, since that is what Docker asks. */
import { StacyError } from "../host/error.ts";
import { butSlash, bySteps, type Fits, Glob, literal, readSet, type Token } from "./glob.ts";

const SPECIAL = /[*?[\\]/;

export function isPattern(name: string): boolean {
  return SPECIAL.test(name);
}

/**
 * @param pattern of one component of a path: `*`, `?`, `[a-z]`, `[^a]`, a backslash before what means itself
 * @throws StacyError `invalid` for a bracket that is not closed, or holds nothing, `limit`
 */
export function namePattern(pattern: string): Fits {
  if (!isPattern(pattern))
    // biome-ignore lint/correctness/useYield: it takes one step
    return bySteps(function* (name) {
      return name === pattern;
    });
  const characters = [...pattern];
  const tokens: Token[] = [];
  for (let at = 0; at < characters.length; ) {
    const read = readToken(characters, at);
    if (read === undefined) throw bad(pattern);
    tokens.push(read.token);
    at = read.end;
  }
  const glob = new Glob(tokens);
  glob.assertShort(() => pattern.slice(0, 100));
  return bySteps((name) => {
    const text = [...name];
    return glob.meets(text, (end) => end === text.length);
  });
}

/** @returns `undefined`: it is no pattern */
export function readToken(pattern: readonly string[], at: number): { token: Token; end: number } | undefined {
  const c = pattern[at];
  if (c === "*") return { token: { is: "run", fits: butSlash }, end: at + 1 };
  if (c === "?") return { token: { is: "one", fits: butSlash }, end: at + 1 };
  if (c === "[") return readSet(pattern, at + 1);
  const meant = c === "\\" ? pattern[at + 1] : c;
  return meant === undefined ? undefined : { token: literal(meant), end: at + (c === "\\" ? 2 : 1) };
}

function bad(pattern: string): StacyError {
  return new StacyError("invalid", `${pattern} is no pattern`, {
    remedy: "close its brackets, or write a backslash before a character that means itself",
  });
}
