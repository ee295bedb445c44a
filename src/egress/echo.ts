/**
 * ICMP echo of a guest: a host that the rules permit, on whatever port, is asked by this host in its place. Each question costs a
 * process, so a host is asked once a second at most, and few at a time.
 */
import { DATAGRAM_BOUNDS } from "../host/bounds.ts";
import { asStacyError, type StacyError } from "../host/error.ts";
import type { Target } from "./connections.ts";
import { Held } from "./held.ts";

/** One answer of a host counts for so long, ms. */
const FRESH_MS = 1_000;

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
  readonly #held = new Held();
  /** Hosts that are being asked, or were a moment ago, those that were forgotten too. */
  #places = 0;

  constructor(options: EchoOptions) {
    this.#options = options;
  }

  /**
   * @param reply told whether the host answered, or may not be asked, with a copy of the payload. A host that is silent, and what finds
   * no room, get no word at all, as on a network
   */
  async send(host: string, payload: Buffer, reply: (answered: boolean, payload: Buffer) => void): Promise<void> {
    const asked = this.#asked.get(host) ?? this.#begin(host);
    if (asked === undefined) return;
    const held = this.#held.take(payload);
    if (held === undefined) return;
    const answered = await asked;
    this.#held.giveBack(held);
    if (answered !== undefined && this.#asked.get(host) === asked) reply(answered, held);
  }

  /** Other rules from now on: answers that are on their way are lost. What asks for them goes on to its end, and keeps its place. */
  forget(): void {
    this.#asked.clear();
  }

  #begin(host: string): Promise<boolean | undefined> | undefined {
    if (this.#places >= DATAGRAM_BOUNDS.echoHosts) return undefined;
    this.#places += 1;
    const asked = this.#ask(host).finally(() => {
      setTimeout(() => {
        this.#places -= 1;
        if (this.#asked.get(host) === asked) this.#asked.delete(host);
      }, this.#options.freshMs ?? FRESH_MS).unref();
    });
    this.#asked.set(host, asked);
    return asked;
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
