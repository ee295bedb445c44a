/**
 * The connection that is open through every save (guest/protocol.ts, LOADING): the guest learns by its end that a load's reset
 * of all connections is behind it. On a port of the agent's own, because a new Firecracker numbers the host's ends from the
 * start: on one port the first new connection could have the numbers of an old one.
 */
import type { Socket } from "node:net";
import type { FirecrackerProcess } from "./process.ts";

/** A guest that does not answer is saved without one. */
const OPEN_LIMIT_MS = 5_000;
/**
 * After the save the machine itself goes on, and its guest gets the same reset. Until then the connection must not be closed from
 * here, which the guest would take for it; long after, nobody needs it.
 */
const LINGER_MS = 60_000;

export class Sentinel {
  readonly #socket: Socket;
  #linger: NodeJS.Timeout | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.unref();
  }

  /** `undefined` when the guest's agent has no such port, or does not answer: it is saved all the same. */
  static async open(process: FirecrackerProcess): Promise<Sentinel | undefined> {
    const socket = await process.dialSentinel(OPEN_LIMIT_MS).catch(() => undefined);
    if (socket === undefined) return undefined;
    if (await firstByte(socket)) return new Sentinel(socket);
    socket.destroy();
    return undefined;
  }

  close(): void {
    clearTimeout(this.#linger);
    this.#socket.destroy();
  }

  /** The machine was saved and goes on. */
  linger(): void {
    this.#linger ??= setTimeout(() => this.close(), LINGER_MS).unref();
  }
}

/** The agent has taken the connection, and knows what it is. */
function firstByte(socket: Socket): Promise<boolean> {
  return new Promise((settle) => {
    const finish = (came: boolean): void => {
      clearTimeout(timer);
      socket.off("data", arrived);
      socket.off("close", ended);
      settle(came);
    };
    const arrived = (): void => finish(true);
    const ended = (): void => finish(false);
    const timer = setTimeout(ended, OPEN_LIMIT_MS);
    socket.on("data", arrived);
    socket.on("close", ended);
  });
}
