/** Encrypting what is kept: AES-256-GCM, each text with a nonce of its own, bound to what it belongs to. */
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { StacyError } from "../host/error.ts";

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const VERSION = 1;

export class Seal {
  readonly #key: Buffer;

  /** @param key 32 bytes, in hex or base64 @throws StacyError `invalid` */
  constructor(key: string) {
    const text = key.trim();
    this.#key = /^[0-9a-f]{64}$/i.test(text) ? Buffer.from(text, "hex") : Buffer.from(text, "base64");
    if (this.#key.length !== KEY_BYTES) {
      throw new StacyError("invalid", "secrets.key: it must be 32 random bytes, in hex or base64", {
        remedy: "make one: openssl rand -hex 32",
      });
    }
  }

  /** @param about what it belongs to: it opens for nothing else */
  close(text: string, about: string): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(Buffer.from(about));
    const closed = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
    return Buffer.concat([Buffer.of(VERSION), nonce, cipher.getAuthTag(), closed]).toString("base64");
  }

  /** @returns `undefined` when it was closed with another key, for something else, or was changed */
  open(sealed: string, about: string): string | undefined {
    const bytes = Buffer.from(sealed, "base64");
    if (bytes[0] !== VERSION || bytes.length < 1 + NONCE_BYTES + TAG_BYTES) return undefined;
    const tagAt = 1 + NONCE_BYTES;
    try {
      const decipher = createDecipheriv("aes-256-gcm", this.#key, bytes.subarray(1, tagAt), {
        authTagLength: TAG_BYTES,
      });
      decipher.setAAD(Buffer.from(about));
      decipher.setAuthTag(bytes.subarray(tagAt, tagAt + TAG_BYTES));
      return Buffer.concat([decipher.update(bytes.subarray(tagAt + TAG_BYTES)), decipher.final()]).toString("utf8");
    } catch {
      return undefined;
    }
  }
}
