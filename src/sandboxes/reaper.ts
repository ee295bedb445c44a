/**
 * Ends what has run out: sandboxes over their TTL, idle ones, and machines whose end failed before. It only starts the work
 * and never waits for it, so one stuck machine holds up nobody.
 */
import type { Clock } from "./clock.ts";
import type { Sandbox } from "./sandbox.ts";

const TICK_MS = 1_000;

export interface ReaperActions {
  all(): Iterable<Sandbox>;
  expire(sandbox: Sandbox): void;
  idle(sandbox: Sandbox): void;
  /** Tries again to end machines that did not end. */
  retry(): void;
}

export class Reaper {
  readonly #clock: Clock;
  readonly #actions: ReaperActions;
  #cancel: () => void = () => {};
  #running = false;

  constructor(clock: Clock, actions: ReaperActions) {
    this.#clock = clock;
    this.#actions = actions;
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#schedule();
  }

  stop(): void {
    this.#running = false;
    this.#cancel();
  }

  /** One round now. @returns how many sandboxes were over their time */
  sweep(): Sandbox[] {
    const now = this.#clock.now();
    const expired: Sandbox[] = [];
    for (const sandbox of this.#actions.all()) {
      // The time of one that is still being made has not begun.
      if (!sandbox.visible || sandbox.state === "creating") continue;
      const { expiresAt, idleTimeoutMs, state } = sandbox.record;
      if (expiresAt <= now) {
        expired.push(sandbox);
        this.#actions.expire(sandbox);
      } else if (
        idleTimeoutMs > 0 &&
        state === "running" &&
        // Nobody can use one that does not answer: that says nothing about whether it is wanted.
        sandbox.unreachable === undefined &&
        !sandbox.inUse &&
        now - sandbox.lastUsedAt >= idleTimeoutMs
      ) {
        this.#actions.idle(sandbox);
      }
    }
    return expired;
  }

  #schedule(): void {
    this.#cancel = this.#clock.after(TICK_MS, () => {
      if (!this.#running) return;
      this.sweep();
      this.#actions.retry();
      this.#schedule();
    });
  }
}
