/** Who calls, and what they may do. */

export type Scope = "read" | "use" | "admin";

export const SCOPES: readonly Scope[] = ["read", "use", "admin"];

/** What somebody has shown, for what is made on it and has to end with it: tokens of sandboxes, links. */
export interface Credential {
  /** Safe to show. Letters, digits and `-`. */
  id: string;
  /** Of the secret behind the id, which another may take the place of. Not to be shown. */
  bound: string;
}

export interface Identity {
  /** A command of the server's own user, with the key that only that user can read. */
  local?: true;
  /** Of the key, or of the token's subject. Safe to log. */
  name: string;
  /** Whose everything is that it makes, and what it sees. */
  owner: string;
  scopes: ReadonlySet<Scope>;
  /** Its sandboxes may connect to no others (egress/host-rules.ts); absent: no limit of its own. */
  hosts?: readonly string[];
  /** Of a key that this server has made. */
  keyId?: string;
  credential: Credential;
  /** Whether what was shown is still good: absent for what ends with the server only. Asked again while a call lasts. */
  holds?: () => boolean;
}

/** Each scope includes the lesser ones. */
export function scopesUpTo(given: readonly Scope[]): ReadonlySet<Scope> {
  return new Set(SCOPES.slice(0, SCOPES.indexOf(highestOf(given)) + 1));
}

/** @param given at least one */
export function highestOf(given: readonly Scope[]): Scope {
  return SCOPES.findLast((scope) => given.includes(scope)) ?? "read";
}
