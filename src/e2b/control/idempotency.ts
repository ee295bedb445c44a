/** A request that a client sends again with the same key, because it has not seen the answer, is one request. */
import { createHash } from "node:crypto";
import { StacyError } from "../../host/error.ts";

const KEPT_MS = 24 * 3_600_000;
const MAX_KEYS = 10_000;
const MAX_KEY = 256;

interface Known<T> {
  digest: string;
  result: Promise<T>;
  at: number;
}

/** In memory: after a restart of the server a key is new. */
export class Idempotency<T> {
  readonly #known = new Map<string, Known<T>>();

  /**
   * @param key what the client has chosen; `undefined`: each request is one of its own
   * @param request what has to be the same
   * @throws StacyError `conflict` when it is not
   */
  async once(owner: string, key: string | undefined, request: unknown, work: () => Promise<T>): Promise<T> {
    if (key === undefined) return await work();
    if (key === "" || key.length > MAX_KEY) throw new StacyError("invalid", "Idempotency-Key: is empty, or too long");
    const now = Date.now();
    for (const [old, { at }] of this.#known) {
      if (at > now - KEPT_MS && this.#known.size < MAX_KEYS) break;
      this.#known.delete(old); // the oldest come first
    }
    const name = JSON.stringify([owner, key]);
    const digest = createHash("sha256").update(JSON.stringify(request)).digest("hex");
    const known = this.#known.get(name);
    if (known !== undefined) {
      if (known.digest === digest) return await known.result;
      throw new StacyError("conflict", "this idempotency key was used for another request");
    }
    const result = work();
    this.#known.set(name, { digest, result, at: now });
    // What failed may be tried again.
    result.catch(() => this.#known.delete(name));
    return await result;
  }
}
