/**
 * `.dockerignore` (docs.docker.com, "Build context"): which files of a directory a build does not get to see. A pattern is one of Go's
 * filepath.Match, with `**` for any number of directories; what it says of a directory it says of all in it.
 */
import { posix } from "node:path";
import { BUILD_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import { anything, Glob, type Token } from "./glob.ts";
import { readToken } from "./match.ts";

export interface Ignores {
  /** @param path relative to the context, without `./` */
  (path: string): boolean;
  /** The same, a rule in each step: there may be many, and others want to be served between them. */
  steps(path: string): Generator<undefined, boolean>;
}

/**
 * @param text of the file; later lines win, `!` keeps
 * @throws StacyError `invalid` for a pattern that is none, `limit`
 */
export function ignoreRules(text: string, file = ".dockerignore"): Ignores {
  const rules: { keeps: boolean; glob: Glob }[] = [];
  const lines = (text.startsWith("\uFEFF") ? text.slice(1) : text).split(/\r?\n/);
  for (const [i, line] of lines.entries()) {
    const pattern = line.trim();
    if (pattern === "" || line.startsWith("#")) continue;
    const keeps = pattern.startsWith("!");
    const tokens = readRule(keeps ? pattern.slice(1).trim() : pattern);
    if (tokens === undefined) {
      throw new StacyError("invalid", `line ${i + 1} of ${file}: ${pattern} is no pattern`, {
        remedy: "write a backslash before a character that means itself",
      });
    }
    if (rules.length === BUILD_BOUNDS.ignoreRules) {
      throw new StacyError("limit", `${file} has more than ${BUILD_BOUNDS.ignoreRules} rules`, {
        remedy: "name directories in place of their files",
      });
    }
    const glob = new Glob(tokens);
    if (glob.wildcards > BUILD_BOUNDS.ignoreWildcards) {
      throw new StacyError(
        "limit",
        `line ${i + 1} of ${file} has more than ${BUILD_BOUNDS.ignoreWildcards} wildcards`,
        {
          remedy: "name directories in place of their files",
        },
      );
    }
    if (glob.wildcards > 0 && glob.length > BUILD_BOUNDS.ignoreLetters) {
      throw new StacyError("limit", `line ${i + 1} of ${file} has more than ${BUILD_BOUNDS.ignoreLetters} letters`, {
        remedy: "a rule without wildcards may be longer",
      });
    }
    rules.push({ keeps, glob });
  }
  rules.reverse();
  function* steps(path: string): Generator<undefined, boolean> {
    const characters = [...path];
    for (const { keeps, glob } of rules) {
      if (meets(glob, characters)) return !keeps;
      yield;
    }
    return false;
  }
  const ignores = (path: string): boolean => {
    const looking = steps(path);
    for (;;) {
      const { done, value } = looking.next();
      if (done === true) return value;
    }
  };
  return Object.assign(ignores, { steps });
}

/** The path itself, or a directory above it. */
function meets(glob: Glob, path: readonly string[]): boolean {
  for (const end of glob.ends(path)) if (end > 0 && (end === path.length || path[end] === "/")) return true;
  return false;
}

/** @returns `undefined`: it is no pattern */
function readRule(rule: string): Token[] | undefined {
  if (rule === "") return undefined;
  const clean = posix.normalize(rule);
  const pattern = [
    ...clean.slice(clean.startsWith("/") ? 1 : 0, clean.length > 1 && clean.endsWith("/") ? -1 : undefined),
  ];
  const tokens: Token[] = [];
  for (let at = 0; at < pattern.length; ) {
    if (pattern[at] === "*" && pattern[at + 1] === "*") {
      at += pattern[at + 2] === "/" ? 3 : 2;
      tokens.push(at >= pattern.length ? { is: "run", fits: anything } : { is: "directories" });
      continue;
    }
    const read = readToken(pattern, at);
    if (read === undefined) return undefined;
    tokens.push(read.token);
    at = read.end;
  }
  return tokens;
}
