/** A request that a client sends again with the same key, because it has not seen the answer, is one request. */
import { createHash } from "node:crypto";
import { StacyError } from "../../host/error.ts";

const KEPT_MS = 24 * 3_600_000;
/** Of one owner: nobody's are forgotten for another's. */
const MAX_KEYS = 1_000;
const MAX_KEY = 256;

interface Known<T> {
  digest: string;
  result: Promise<T>;
  at: number;
}

/** What of a request is kept with what it made. */
export interface KeptRequest {
  /** The client's. */
  key: string;
  /** Of what it asked for. */
  digest: string;
}

export interface Asked {
  owner: string;
  /** What the client has chosen; `undefined`: each request is one of its own. */
  key: string | undefined;
  /** What has to be the same. */
  request: unknown;
}

/** Here are those of this server; what an earlier one made says itself which request it was made for. */
export class Idempotency<T> {
  /** By owner and key. */
  readonly #known = new Map<string, Map<string, Known<T>>>();

  /**
   * @param work what it makes keeps the request
   * @param made what an earlier server has made for a key, ms since 1970 when
   * @throws StacyError `conflict` when the key was used for another request
   */
  async once(
    { owner, key, request }: Asked,
    work: (kept: { request?: KeptRequest }) => Promise<T>,
    made: (key: string) => (KeptRequest & { at: number; result: T }) | undefined,
  ): Promise<T> {
    if (key === undefined) return await work({});
    if (key === "" || key.length > MAX_KEY) throw new StacyError("invalid", "Idempotency-Key: is empty, or too long");
    const now = Date.now();
    for (const [each, keys] of this.#known) {
      for (const [old, { at }] of keys) {
        const full = each === owner && keys.size >= MAX_KEYS;
        if (at > now - KEPT_MS && !full) break;
        keys.delete(old); // the oldest come first
      }
      if (keys.size === 0) this.#known.delete(each);
    }
    const own = this.#known.get(owner) ?? new Map<string, Known<T>>();
    const digest = createHash("sha256").update(JSON.stringify(request)).digest("hex");
    const known = own.get(key) ?? made(key);
    if (known !== undefined && known.at > now - KEPT_MS) {
      if (known.digest === digest) return await known.result;
      throw new StacyError("conflict", "this idempotency key was used for another request");
    }
    const result = work({ request: { key, digest } });
    own.set(key, { digest, result, at: now });
    this.#known.set(owner, own);
    // What failed may be tried again.
    result.catch(() => own.delete(key));
    return await result;
  }
}
