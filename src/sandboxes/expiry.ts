/** Sandboxes whose time is over: they end, or are suspended and kept, as each was asked for. */
import { asStacyError } from "../host/error.ts";
import type { Clock } from "./clock.ts";
import type { Log } from "./observer.ts";
import type { ExpiryPause } from "./record.ts";
import type { Sandbox } from "./sandbox.ts";
import { holdsMachine } from "./state.ts";
import type { StateChanges } from "./state-changes.ts";

/** What cannot be suspended now, for want of room or an answer, is tried again after this time. */
const AGAIN_MS = 60_000;

export interface ExpiryParts {
  clock: Clock;
  log: Log;
  changes: StateChanges;
  save(sandbox: Sandbox): Promise<void>;
  /** Begins its end. */
  end(sandbox: Sandbox): void;
}

export class Expiry {
  readonly #parts: ExpiryParts;

  constructor(parts: ExpiryParts) {
    this.#parts = parts;
  }

  expire(sandbox: Sandbox): void {
    const { clock, end } = this.#parts;
    const { record, state } = sandbox;
    const { onExpiry } = record;
    const now = clock.now();
    const { over = now, keepMs = 0 } = onExpiry ?? {};
    if (onExpiry === undefined || !holdsMachine(state) || now >= over + keepMs) {
      end(sandbox);
      return;
    }
    record.onExpiry = { ...onExpiry, over };
    if (sandbox.unreachable !== undefined) record.expiresAt = this.#again(record.onExpiry);
    else sandbox.autoStopsDuring(this.#keep(sandbox, record.onExpiry));
  }

  /** Never rejects. One that can never be suspended ends, as others do. */
  async #keep(sandbox: Sandbox, onExpiry: ExpiryPause): Promise<void> {
    const { changes, save, log } = this.#parts;
    const { id, record, state } = sandbox;
    const { expiresAt } = record;
    const { keeps } = onExpiry;
    const kept = endOf(onExpiry);
    record.expiresAt = kept; // from now on: the next round has nothing to do here
    try {
      await (state === "suspended"
        ? save(sandbox)
        : changes.to(sandbox, "suspended", { reason: "ttl", ...(keeps === undefined ? {} : { keeps }) }));
    } catch (error) {
      log.warn({ sandbox: id, err: error }, "a sandbox whose time was over could not be suspended");
      // Who has given it more time meanwhile finds it as it was; and what is suspended the store goes on recording.
      if (record.expiresAt !== kept || sandbox.state === "suspended") return;
      if (asStacyError(error).code === "not-supported") {
        record.expiresAt = expiresAt;
        delete record.onExpiry;
      } else record.expiresAt = this.#again(onExpiry);
    }
  }

  #again(onExpiry: ExpiryPause): number {
    return Math.min(this.#parts.clock.now() + AGAIN_MS, endOf(onExpiry));
  }
}

function endOf({ over = 0, keepMs }: ExpiryPause): number {
  return over + keepMs;
}
