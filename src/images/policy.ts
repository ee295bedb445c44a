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

/** @param pattern `*` matches anything but `/`, `**` anything */
export function matchesPattern(pattern: string, name: string): boolean {
  const source = pattern
    .split(/(\*\*|\*)/)
    .map((part) => (part === "**" ? ".*" : part === "*" ? "[^/]*" : part.replace(/[.+?^${}()|[\]\\]/g, "\\$&")))
    .join("");
  return new RegExp(`^${source}$`).test(name);
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
