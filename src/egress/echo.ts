/**
 * ICMP echo of a guest: a host that the rules permit, on whatever port, is asked by this host in its place. Each question costs a
 * process, so a host is asked once a second at most, and few at a time.
 */
import { asStacyError, type StacyError } from "../host/error.ts";
import type { Target } from "./connections.ts";

/** One answer of a host counts for so long, ms. */
const FRESH_MS = 1_000;
/** Hosts that are being asked, or were a moment ago. What goes beyond is lost, as on a network. */
const MOST = 8;

export interface EchoOptions {
  /** @returns an address of the host that may be asked. @throws StacyError when there is none */
  find(host: string): Promise<string>;
  /** @returns whether it answered. @throws StacyError when nobody can be asked */
  ping(address: string): Promise<boolean>;
  /** Told of what is refused, and of what cannot be asked. */
  tell(target: Target, failure: StacyError): void;
  freshMs?: number;
}

export class Echoes {
  readonly #options: EchoOptions;
  readonly #asked = new Map<string, Promise<boolean | undefined>>();

  constructor(options: EchoOptions) {
    this.#options = options;
  }

  /** @returns whether it may be told that the host answered; `undefined`: no word at all, as from a host that is silent */
  ask(host: string): Promise<boolean | undefined> {
    const known = this.#asked.get(host);
    if (known !== undefined) return known;
    if (this.#asked.size >= MOST) return Promise.resolve(undefined);
    const answer = this.#ask(host).finally(() => {
      setTimeout(() => this.#asked.delete(host), this.#options.freshMs ?? FRESH_MS).unref();
    });
    this.#asked.set(host, answer);
    return answer;
  }

  /** Other rules from now on. */
  forget(): void {
    this.#asked.clear();
  }

  async #ask(host: string): Promise<boolean | undefined> {
    try {
      return (await this.#options.ping(await this.#options.find(host))) ? true : undefined;
    } catch (thrown) {
      this.#options.tell({ host, port: 0 }, asStacyError(thrown));
      return false;
    }
  }
}
