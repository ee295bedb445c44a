/**
 * The certificates with which the host speaks in the place of a sandbox's hosts. A secret for `*.example.com` lets a guest connect to any number
 * of names, each of which needs one of its own, and milliseconds of this process: so they are kept, made one at a time in the whole
 * process, and a sandbox has a few at once and then some a second.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { StacyError } from "../../host/error.ts";
import { SerialQueue } from "../../host/serial-queue.ts";
import { turns } from "../../host/turns.ts";
import { type Authority, certify, type HostCertificate } from "./authority.ts";

/** Kept of one sandbox; the one used longest ago goes. A few KB each. */
const MOST = 256;
/** So many at once, then one each so many ms, for which so many wait. */
const AT_ONCE = 32;
const EVERY_MS = 250;
const MOST_WAITING = 32;

/** Of this process: two sandboxes' are not made beside each other either. */
const making = new SerialQueue();

export class Certificates {
  readonly #authority: Authority;
  readonly #now: () => number;
  readonly #wait: (ms: number) => Promise<unknown>;
  /** By host, the one used longest ago first. */
  readonly #kept = new Map<string, Promise<HostCertificate>>();
  /** When all that were given out would have been, had they come evenly, ms. */
  #evenly = Number.NEGATIVE_INFINITY;
  #waiting = 0;

  constructor(
    authority: Authority,
    now: () => number = () => performance.now(),
    wait: (ms: number) => Promise<unknown> = (ms) => sleep(ms, undefined, { ref: false }),
  ) {
    this.#authority = authority;
    this.#now = now;
    this.#wait = wait;
  }

  /** @param host a name or an address. @throws StacyError `limit` when too many others wait */
  of(host: string): Promise<HostCertificate> {
    const known = this.#kept.get(host);
    if (known !== undefined) {
      this.#kept.delete(host);
      this.#kept.set(host, known);
      return known;
    }
    const [oldest] = this.#kept.keys();
    if (oldest !== undefined && this.#kept.size >= MOST) this.#kept.delete(oldest);
    const made = this.#make(host);
    this.#kept.set(host, made);
    made.catch(() => {
      if (this.#kept.get(host) === made) this.#kept.delete(host);
    });
    return made;
  }

  async #make(host: string): Promise<HostCertificate> {
    const now = this.#now();
    const early = Math.max(this.#evenly, now) + EVERY_MS - now - AT_ONCE * EVERY_MS;
    if (early > 0 && this.#waiting >= MOST_WAITING) {
      throw new StacyError("limit", "this sandbox has asked for too many hosts of its secrets at once", {
        remedy: "connect to fewer names, or wait a while",
      });
    }
    this.#evenly = Math.max(this.#evenly, now) + EVERY_MS;
    if (early > 0) {
      this.#waiting += 1;
      await this.#wait(early).finally(() => {
        this.#waiting -= 1;
      });
    }
    return await making.run(async () => {
      await turns.next();
      return await certify(this.#authority, host);
    });
  }
}
