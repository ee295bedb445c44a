/**
 * `.dockerignore` (docs.docker.com, "Build context"): which files of a directory a build does not get to see. A pattern is one of Go's
 * filepath.Match, with `**` for any number of directories; what it says of a directory it says of all in it.
 */
import { posix } from "node:path";
import { BUILD_BOUNDS } from "../host/bounds.ts";
import { StacyError } from "../host/error.ts";
import { anything, bySteps, type Fits, Glob, type Token } from "./glob.ts";
import { readToken } from "./match.ts";

/**
 * @param text of the file; later lines win, `!` keeps
 * @returns whether a path, relative to the context and without `./`, is hidden
 * @throws StacyError `invalid` for a pattern that is none, `limit`
 */
export function ignoreRules(text: string, file = ".dockerignore"): Fits {
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
    glob.assertShort(() => `line ${i + 1} of ${file}`);
    rules.push({ keeps, glob });
  }
  rules.reverse();
  return bySteps(function* (path) {
    const characters = [...path];
    // The path itself, or a directory above it.
    const mayEnd = (end: number): boolean => end > 0 && (end === characters.length || characters[end] === "/");
    for (const { keeps, glob } of rules) {
      if (yield* glob.meets(characters, mayEnd)) return !keeps;
      yield;
    }
    return false;
  });
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
