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
