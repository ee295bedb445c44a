/** Who calls, and what they may do. */

export type Scope = "read" | "use" | "admin";

export const SCOPES: readonly Scope[] = ["read", "use", "admin"];

export interface Identity {
  /** Of the key, or of the token's subject. Safe to log. */
  name: string;
  /** Whose everything is that it makes, and what it sees. */
  owner: string;
  scopes: ReadonlySet<Scope>;
  /** Its sandboxes may connect to no others (egress/host-rules.ts); absent: no limit of its own. */
  hosts?: readonly string[];
  /** Of a key that this server has made. */
  keyId?: string;
  /** Whether what was shown is still good: absent for what ends with the server only. Asked again while a call lasts. */
  holds?: () => boolean;
}

/** Each scope includes the lesser ones. */
export function scopesUpTo(given: readonly Scope[]): ReadonlySet<Scope> {
  const highest = Math.max(...given.map((scope) => SCOPES.indexOf(scope)));
  return new Set(SCOPES.slice(0, highest + 1));
}
