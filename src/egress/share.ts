import { StacyError } from "../host/error.ts";

/** What is open until it says "close". */
export interface Closing {
  once(event: "close", listener: () => void): unknown;
  /** Absent: it cannot be told, and it has only just been opened. */
  readonly closed?: boolean;
}

/** One sandbox's connections to hosts, those that are being made too: whoever asked for one may have gone long before it is there. */
export class Share {
  readonly #most: number;
  readonly #whither: string;
  #taken = 0;

  /** @param whither what they lead to, for people */
  constructor(most: number, whither: string) {
    this.#most = most;
    this.#whither = whither;
  }

  /** @throws StacyError `limit` when there is no place left, or what `open` throws */
  async take<T extends Closing>(open: () => Promise<T>): Promise<T> {
    if (this.#taken >= this.#most) {
      throw new StacyError(
        "limit",
        `this sandbox has ${this.#most} connections to ${this.#whither}, which is the most`,
      );
    }
    this.#taken += 1;
    return untilClosed(open, () => {
      this.#taken -= 1;
    });
  }
}

/** @param free is called once: when it has failed, or when the connection is gone */
export async function untilClosed<T extends Closing>(open: () => Promise<T>, free: () => void): Promise<T> {
  try {
    const socket = await open();
    if (socket.closed === true) free();
    else socket.once("close", free);
    return socket;
  } catch (error) {
    free();
    throw error;
  }
}
