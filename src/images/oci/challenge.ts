/** What a registry wants to be shown (RFC 9110, 11.6.1): one scheme, and its parameters. */

export interface Challenge {
  /** In small letters; empty where there is none. */
  scheme: string;
  /** By name in small letters; those that are not quoted are left out. */
  fields: Readonly<Record<string, string | undefined>>;
}

/** Takes any text; each character is looked at a few times at most. */
export function parseChallenge(header: string): Challenge {
  const scheme = /^\s*([a-z]+)/i.exec(header)?.[1]?.toLowerCase() ?? "";
  // A name begins where the one before has ended: else a long one would be read again from each of its letters.
  const fields = [...header.matchAll(/(?<![a-z_])([a-z_]+)="((?:[^"\\]|\\.)*)"/gi)];
  return { scheme, fields: Object.fromEntries(fields.map(([, name = "", value]) => [name.toLowerCase(), value])) };
}
