/**
 * Connections of programs that know nothing of a proxy. The guest's agent hands each over with the address that the program asked
 * for; an address that stands for a name (names.ts) is judged and connected to as that name.
 */
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { asStacyError, type StacyError } from "../host/error.ts";
import { relay } from "../host/relay.ts";
import type { Connections, Target } from "./connections.ts";
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
  connections: Connections;
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

  constructor(options: TransparentOptions) {
    this.#options = options;
  }

  serve({ connection: client, address, port }: Intercepted): void {
    if (port === DNS_PORT) void this.#options.nameServer.connection(client);
    else void this.#connect(client, { host: this.#options.names.name(address) ?? address, port });
  }

  async #connect(client: Duplex, target: Target): Promise<void> {
    const { broker } = this.#options;
    try {
      const scheme = broker.scheme(target);
      if (scheme !== undefined) return await broker.serve(client, target, scheme);
      const socket = await this.#options.dial(target);
      this.#options.tell(target);
      this.#options.connections.join(client, socket, target);
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
