/** Which images may be used, and what else a name may stand for: the operator's table. */
import { StacyError } from "../host/error.ts";

export interface ImagePolicy {
  /** Patterns of full references; `*` matches anything but `/`, `**` anything. Empty: all are allowed. */
  allow?: string[];
  /** Decides over `allow`. */
  deny?: string[];
}

/** @throws StacyError `permission` */
export function checkPolicy(policy: ImagePolicy | undefined, reference: string): void {
  const matches = (patterns: string[] | undefined): boolean =>
    patterns?.some((pattern) => matchesPattern(pattern, reference)) ?? false;
  const listed = policy?.allow !== undefined && policy.allow.length > 0;
  if (!matches(policy?.deny) && (!listed || matches(policy?.allow))) return;
  throw new StacyError("permission", `the image ${reference} is not allowed on this host`, {
    remedy: "ask the operator to add it to `images.allow`",
  });
}

/**
 * In time that grows with both lengths, whatever the pattern: a regular expression of many wildcards would go back and forth for hours.
 * @param pattern `*` matches anything but `/`, `**` anything
 */
export function matchesPattern(pattern: string, name: string): boolean {
  /** How much of the name the parts so far can be, ascending. */
  let ends = [0];
  for (const part of pattern.split(/(\*\*|\*)/)) {
    if (part === "**" || part === "*") ends = stretched(ends, name, part === "**");
    else ends = ends.filter((at) => name.startsWith(part, at)).map((at) => at + part.length);
  }
  return ends.at(-1) === name.length;
}

function stretched(ends: readonly number[], name: string, overSlashes: boolean): number[] {
  const starts = new Set(ends);
  const all: number[] = [];
  for (let at = ends[0] ?? Infinity; at <= name.length; at++) {
    const goesOn = all.at(-1) === at - 1 && (overSlashes || name[at - 1] !== "/");
    if (starts.has(at) || goesOn) all.push(at);
  }
  return all;
}

const MAX_ALIASES = 8;

/**
 * What a name stands for in the end. @param full brings both sides to their full form
 * @throws StacyError `invalid` when aliases go round in a circle
 */
export function followAliases(
  aliases: Readonly<Record<string, string>> | undefined,
  reference: string,
  full: (name: string) => string,
): string {
  const table = new Map(Object.entries(aliases ?? {}).map(([from, to]) => [full(from), full(to)]));
  let current = full(reference);
  for (let i = 0; i <= MAX_ALIASES; i++) {
    const next = table.get(current);
    if (next === undefined) return current;
    current = next;
  }
  throw new StacyError("invalid", `the aliases of ${reference} go round in a circle`, {
    remedy: "correct `images.aliases`",
  });
}
