/** Secrets of keys: how they are made, kept and judged. Only hashes are kept. */
import { createHash, randomBytes } from "node:crypto";

/** Says what it is to whoever finds one where it does not belong. */
const PREFIX = "stacyvm_";
/** 256 bits. */
const BYTES = 32;
const ENOUGH_BITS = 128;

export function newSecret(): string {
  return PREFIX + randomBytes(BYTES).toString("base64url");
}

const E2B = "e2b_";

/** The same secret as E2B's clients want one: they refuse to send what has no hexadecimal digits after `e2b_`. */
export function e2bForm(secret: string): string {
  return E2B + Buffer.from(secret, "utf8").toString("hex");
}

/** What was made, in whichever form it is presented. */
export function ownForm(presented: string): string {
  if (!/^e2b_(?:[0-9a-f]{2})+$/.test(presented)) return presented;
  const text = Buffer.from(presented.slice(E2B.length), "hex").toString("utf8");
  return text.startsWith(PREFIX) ? text : presented;
}

/** Hex. A fast hash is enough for what cannot be guessed, and `isWeak` says of what it is not. */
export function hashOf(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}

/** A configured key: `sha256:` and the hash in hex, or the secret itself. */
export function configuredHash(key: string): string {
  return /^sha256:([0-9a-f]{64})$/i.exec(key)?.[1]?.toLowerCase() ?? hashOf(key);
}

/** Too short to hold 128 bits, whatever it was made of. Of a hash nobody can tell. */
export function isWeak(key: string): boolean {
  if (/^sha256:[0-9a-f]{64}$/i.test(key)) return false;
  const perCharacter = /^[0-9a-f]*$/i.test(key) ? 4 : 6;
  return key.length * perCharacter < ENOUGH_BITS;
}
