/** Sandboxes whose time is over: they end, or are suspended and kept, as each was asked for. */
import type { Clock } from "./clock.ts";
import type { Log } from "./observer.ts";
import type { ExpiryPause } from "./record.ts";
import type { Sandbox } from "./sandbox.ts";
import type { StateChanges } from "./state-changes.ts";

export interface ExpiryParts {
  clock: Clock;
  log: Log;
  changes: StateChanges;
  /** Begins its end. */
  end(sandbox: Sandbox): void;
}

export class Expiry {
  readonly #parts: ExpiryParts;

  constructor(parts: ExpiryParts) {
    this.#parts = parts;
  }

  expire(sandbox: Sandbox): void {
    const { record, state, unreachable } = sandbox;
    if (record.onExpiry === undefined || state !== "running" || unreachable !== undefined) this.#parts.end(sandbox);
    else this.#suspend(sandbox, record.onExpiry);
  }

  /** One that cannot be suspended ends, as others do. */
  #suspend(sandbox: Sandbox, { keepMs }: ExpiryPause): void {
    const { clock, log, changes } = this.#parts;
    const { id, record } = sandbox;
    const { expiresAt } = record;
    const kept = clock.now() + keepMs;
    record.expiresAt = kept; // from now on: the next round has nothing to do here
    const stopping = changes.to(sandbox, "suspended", { reason: "ttl" }).then(
      () => {},
      (error: unknown) => {
        log.warn({ sandbox: id, err: error }, "a sandbox whose time was over could not be suspended");
        // Who has given it more time meanwhile finds it as it was.
        if (record.expiresAt !== kept) return;
        record.expiresAt = expiresAt;
        delete record.onExpiry;
      },
    );
    sandbox.autoStopsDuring(stopping);
  }
}
