/** What one sandbox sent to hosts and received from them, how much it may, and how fast. */
import { setTimeout as delay } from "node:timers/promises";
import { StacyError } from "../host/error.ts";
import type { Passed } from "../host/relay.ts";

/** 0 in each: no limit. */
export interface TrafficLimits {
  /** Both directions together, since this server has the sandbox. */
  maxBytes: number;
  /** Both directions together, on average over a second. */
  bytesPerSecond: number;
  connectionsPerMinute: number;
}

export const NO_LIMITS: TrafficLimits = { maxBytes: 0, bytesPerSecond: 0, connectionsPerMinute: 0 };

/** Bytes. */
export interface Traffic {
  sent: number;
  received: number;
}

export class Meter {
  readonly traffic: Traffic = { sent: 0, received: 0 };
  readonly #limits: TrafficLimits;
  readonly #all: Traffic | undefined;
  readonly #bytes: Bucket;
  readonly #connections: Bucket;

  /** @param all what all sandboxes together sent and received */
  constructor(limits: TrafficLimits, all?: Traffic, now: () => number = () => performance.now()) {
    this.#limits = limits;
    this.#all = all;
    this.#bytes = new Bucket(limits.bytesPerSecond, 1_000, now);
    this.#connections = new Bucket(limits.connectionsPerMinute, 60_000, now);
  }

  /** Before a connection is made. @throws StacyError `limit` */
  connection(): void {
    this.assertLeft();
    if (this.#connections.take(1)) return;
    const { connectionsPerMinute: most } = this.#limits;
    throw new StacyError("limit", `this sandbox makes more than ${most} connections a minute`, {
      remedy: "wait a little, or ask the operator to raise `network.connections_per_minute`",
    });
  }

  /** For `relay`: what goes to a host, or comes from one. */
  readonly sent: Passed = (bytes) => this.#passed("sent", bytes);
  readonly received: Passed = (bytes) => this.#passed("received", bytes);

  /**
   * Before the head of a request goes on. That of an answer only counts: whoever waits for it has waited with its request.
   * @param gone whoever asks has left: it is waited for no longer @throws as the others; an AbortError
   */
  async paced(bytes: number, gone: AbortSignal): Promise<void> {
    const ms = this.sent(bytes);
    if (ms > 0) await delay(ms, undefined, { signal: gone, ref: false });
  }

  /** For what may be lost: whether so much goes on now, which counts it. @throws as the others */
  lets(direction: keyof Traffic, bytes: number): boolean {
    // As far behind as one second's worth, or what is always behind would let nothing of this kind through.
    if (this.#bytes.owed() > 1_000) return false;
    this.#passed(direction, bytes);
    return true;
  }

  /** While nothing is sent that says how much it is. @throws StacyError `limit` when the bytes are spent */
  assertLeft(): void {
    const { maxBytes } = this.#limits;
    if (maxBytes === 0 || this.traffic.sent + this.traffic.received <= maxBytes) return;
    throw new StacyError("limit", `this sandbox has sent and received more than ${maxBytes} bytes`, {
      remedy: "start another one, or ask the operator to raise `network.max_bytes`",
    });
  }

  #passed(direction: keyof Traffic, bytes: number): number {
    this.traffic[direction] += bytes;
    if (this.#all !== undefined) this.#all[direction] += bytes;
    this.assertLeft();
    return this.#bytes.owe(bytes);
  }
}

/** Of a timer. */
const LONGEST_MS = 2 ** 31 - 1;

/** So much in so many ms, on average; as much at once. 0: any number. */
class Bucket {
  readonly #most: number;
  readonly #ms: number;
  readonly #now: () => number;
  #level: number;
  #at: number;

  constructor(most: number, ms: number, now: () => number) {
    this.#most = most;
    this.#ms = ms;
    this.#now = now;
    this.#level = most;
    this.#at = now();
  }

  /** If there is so much. */
  take(count: number): boolean {
    if (this.#most === 0) return true;
    this.#fill();
    if (this.#level < count) return false;
    this.#level -= count;
    return true;
  }

  /** In any case. @returns ms until it is paid back */
  owe(count: number): number {
    if (this.#most === 0) return 0;
    this.#fill();
    this.#level -= count;
    return this.owed();
  }

  /** ms until it is paid back. */
  owed(): number {
    if (this.#most === 0) return 0;
    this.#fill();
    return this.#level >= 0 ? 0 : Math.min((-this.#level * this.#ms) / this.#most, LONGEST_MS);
  }

  #fill(): void {
    const now = this.#now();
    this.#level = Math.min(this.#most, this.#level + ((now - this.#at) * this.#most) / this.#ms);
    this.#at = now;
  }
}
