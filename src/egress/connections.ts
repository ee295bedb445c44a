/** A guest's connections, by whichever way they came, each with the host's side of it: what is counted, cut when rules change, and closed. */
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";

export interface Target {
  /** A name, or an address. */
  host: string;
  port: number;
}

/** @param address what the host of the target is, where that is known */
export type Permit = (target: Target, address: string | undefined) => boolean;

export class Connections {
  readonly #clients = new Set<Duplex>();
  readonly #hosts = new Map<Socket, { target: Target; client: Duplex }>();

  /** Guests' connections that are open. */
  get open(): number {
    return this.#clients.size;
  }

  /** Takes a guest's connection, until it is gone. @param done is called then */
  take(client: Duplex, done: () => void): void {
    this.#clients.add(client);
    client.on("error", () => {});
    client.once("close", () => {
      this.#clients.delete(client);
      done();
    });
  }

  /** Where it leads, until either side is gone. */
  join(client: Duplex, socket: Socket, target: Target): void {
    this.#hosts.set(socket, { target, client });
    socket.once("close", () => this.#hosts.delete(socket));
    if (client.destroyed) socket.destroy();
  }

  /** Cuts those that `permit` no longer permits. */
  cut(permit: Permit): void {
    for (const [socket, { target, client }] of this.#hosts) {
      if (permit(target, socket.remoteAddress)) continue;
      socket.destroy();
      client.destroy();
    }
  }

  close(): void {
    for (const client of this.#clients) client.destroy();
    for (const socket of this.#hosts.keys()) socket.destroy();
  }
}
