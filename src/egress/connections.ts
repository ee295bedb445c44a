/** Connections to hosts that are open, each with where it leads and the guest's side of it: what changed rules cut. */
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
  readonly #open = new Map<Socket, { target: Target; client: Duplex }>();

  /** Until either side is gone. */
  add(socket: Socket, target: Target, client: Duplex): void {
    this.#open.set(socket, { target, client });
    socket.once("close", () => this.#open.delete(socket));
    if (client.destroyed) socket.destroy();
  }

  /** Cuts those that `permit` no longer permits. */
  cut(permit: Permit): void {
    for (const [socket, { target, client }] of this.#open) {
      if (permit(target, socket.remoteAddress)) continue;
      socket.destroy();
      client.destroy();
    }
  }

  close(): void {
    for (const socket of this.#open.keys()) socket.destroy();
  }
}
