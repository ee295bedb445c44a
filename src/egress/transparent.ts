/**
 * Connections of programs that know nothing of a proxy. The guest's agent hands each over with the address that the program asked
 * for; an address that stands for a name (names.ts) is judged and connected to as that name.
 */
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { asStacyError, type StacyError } from "../host/error.ts";
import { relay } from "../host/relay.ts";
import { Connections, type Permit, type Target } from "./connections.ts";
import type { Meter } from "./meter.ts";
import type { NameServer } from "./name-server.ts";
import type { Names } from "./names.ts";
import type { Broker } from "./secrets/broker.ts";

export const DNS_PORT = 53;

/** A connection that a program of the guest opened, and the address that it asked for. */
export interface Intercepted {
  connection: Duplex;
  address: string;
  port: number;
}

export interface TransparentOptions {
  names: Names;
  nameServer: NameServer;
  meter: Meter;
  broker: Broker;
  /** @throws StacyError when the host cannot or may not be reached */
  dial(target: Target): Promise<Socket>;
  /** Told after each attempt. */
  tell(target: Target, failure?: StacyError): void;
}

export class Transparent {
  readonly #options: TransparentOptions;
  readonly #connections = new Connections();
  readonly #clients = new Set<Duplex>();

  constructor(options: TransparentOptions) {
    this.#options = options;
  }

  /** Guests' connections that are open. */
  get open(): number {
    return this.#clients.size;
  }

  /** Takes a guest's connection over. @param done when it is gone */
  serve({ connection: client, address, port }: Intercepted, done: () => void): void {
    this.#clients.add(client);
    client.on("error", () => {});
    client.once("close", () => {
      this.#clients.delete(client);
      done();
    });
    if (port === DNS_PORT) void this.#options.nameServer.connection(client);
    else void this.#connect(client, { host: this.#options.names.name(address) ?? address, port });
  }

  cut(permit: Permit): void {
    this.#connections.cut(permit);
  }

  close(): void {
    for (const client of this.#clients) client.destroy();
    this.#connections.close();
  }

  async #connect(client: Duplex, target: Target): Promise<void> {
    const { broker } = this.#options;
    try {
      const scheme = broker.scheme(target);
      if (scheme !== undefined) return await broker.serve(client, target, scheme);
      const socket = await this.#options.dial(target);
      this.#options.tell(target);
      this.#connections.add(socket, target, client);
      // Each direction ends by itself; an error in one ends both, and the program sees a reset.
      const { meter } = this.#options;
      relay(client, socket, undefined, meter.sent);
      relay(socket, client, undefined, meter.received);
    } catch (thrown) {
      this.#options.tell(target, asStacyError(thrown));
      client.destroy();
    }
  }
}
