/**
 * The connection that is open through every save (guest/protocol.ts, LOADING): the guest learns by its end that a load's reset
 * of all connections is behind it. On a port of the agent's own, because a new Firecracker numbers the host's ends from the
 * start: on one port the first new connection could have the numbers of an old one.
 */
import type { Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { FirecrackerProcess } from "./process.ts";

/** A guest that does not answer for so long is saved without one. */
const OPEN_LIMIT_MS = 15_000;
/** Firecracker gives up a request that a slow guest has not answered after 2 s; a guest without such a port refuses it at once. */
const REFUSED_MS = 1_000;
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

  /**
   * `undefined` when the guest's agent has no such port, or does not answer: it is saved all the same.
   * @param limits.byteMs after which one that has been connected is given up: a reset has taken it, and nobody says so
   */
  static async open(
    process: FirecrackerProcess,
    { limitMs = OPEN_LIMIT_MS, byteMs = limitMs }: { limitMs?: number; byteMs?: number } = {},
  ): Promise<Sentinel | undefined> {
    const began = performance.now();
    for (let asked = began; ; asked = performance.now()) {
      const left = limitMs - (asked - began);
      if (left <= 0) return undefined;
      const socket = await process.dialSentinel(left).catch(() => undefined);
      if (socket !== undefined && (await firstByte(socket, Math.min(left, byteMs)))) return new Sentinel(socket);
      socket?.destroy();
      if (performance.now() - asked < REFUSED_MS) return undefined;
    }
  }

  close(): void {
    clearTimeout(this.#linger);
    this.#socket.destroy();
  }

  /** The machine was saved and goes on. */
  linger(forMs = LINGER_MS): void {
    this.#linger ??= setTimeout(() => this.close(), forMs).unref();
  }

  /** The machine goes on and was not saved. One that lingers waits for the reset of an earlier save. */
  notNeeded(): void {
    if (this.#linger === undefined) this.close();
  }

  /**
   * Waits until the reset that it lingers for has taken it, then ends it. The guest tells nobody by itself: its kernel answers what is
   * said on the connection after that.
   */
  async outlived(limitMs: number): Promise<void> {
    const deadline = performance.now() + limitMs;
    const closed = new Promise<void>((settle) => this.#socket.once("close", () => settle()));
    for (let pauseMs = 1; this.#linger !== undefined && !this.#socket.destroyed; pauseMs *= 2) {
      if (performance.now() >= deadline) break;
      this.#socket.write("\x00");
      await Promise.race([closed, delay(pauseMs)]);
    }
    this.close();
  }
}

/** The agent has taken the connection, and knows what it is. */
function firstByte(socket: Socket, limitMs: number): Promise<boolean> {
  return new Promise((settle) => {
    const finish = (came: boolean): void => {
      clearTimeout(timer);
      socket.off("data", arrived);
      socket.off("close", ended);
      settle(came);
    };
    const arrived = (): void => finish(true);
    const ended = (): void => finish(false);
    const timer = setTimeout(ended, limitMs);
    socket.on("data", arrived);
    socket.on("close", ended);
  });
}
