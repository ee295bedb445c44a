/** The guest's processes stand still while a copy of their machine is made, so that the copy wakes with them at rest. */
import { setTimeout as delay } from "node:timers/promises";
import type { Agent } from "../guest/agent.ts";
import { asStacyError, StacyError } from "../host/error.ts";
import { withTimeLimit } from "../host/time-limit.ts";

const THAW_PAUSE_MS = { first: 50, most: 5_000 };

export interface FreezeOptions {
  /** Opens a new connection by itself where one broke or was silent; one that only was slow others use. */
  agent: Agent;
  /** Freezing and thawing take milliseconds; a guest that does not answer in this time, ms, has other troubles. */
  limitMs(): number;
  /** Whether the guest runs; one that does not is thawed by whoever brings it back. */
  runs(): boolean;
  /** The guest confirmed it, maybe long after whoever waited for it had given up. */
  thawed(): void;
  /** This daemon has nothing more to do with the machine. */
  over: AbortSignal;
}

export class Freeze {
  readonly #options: FreezeOptions;
  /** They stand still, and the guest has not confirmed yet that they go on. */
  #frozen = false;
  #thawing: { done: Promise<void>; stop: AbortController } | undefined;

  constructor(options: FreezeOptions) {
    this.#options = options;
  }

  async freeze(): Promise<void> {
    this.#frozen = true; // also when the answer is lost
    const { agent, limitMs } = this.#options;
    await agentStep(agent.freeze({ limitMs: limitMs() }), "freezing the guest's processes");
  }

  /** The same of what its programs write to volumes: that is on their disks, and what comes waits for `thaw`. */
  async still(): Promise<void> {
    this.#frozen = true;
    const { agent, limitMs } = this.#options;
    await agentStep(agent.still({ limitMs: limitMs() }), "writing the guest's volumes");
  }

  /** Of one that was saved so. Rejects as `thaw` does. */
  async goOn(): Promise<void> {
    this.#frozen = true;
    await this.thaw();
  }

  /** The guest said, in whatever way, that its processes go on. */
  ended(): void {
    this.#frozen = false;
  }

  get frozen(): boolean {
    return this.#frozen;
  }

  /** Attempts that go on beside end before the next change begins. */
  async stopTrying(): Promise<void> {
    this.#thawing?.stop.abort();
    await this.#thawing?.done;
  }

  /**
   * Asks the guest to let its processes go on until it confirms it. Rejects when that takes long; the attempts go on beside, until
   * the next change or the end.
   */
  async thaw(): Promise<void> {
    if (!this.#frozen) return;
    this.#thawing ??= this.#begin();
    const late = (): StacyError =>
      new StacyError("timeout", "the guest does not let its processes go on; it is asked again and again", {
        phase: "freeze",
      });
    // So long a change waits; the attempts themselves go on.
    await withTimeLimit(this.#thawing.done, 2 * this.#options.limitMs(), late);
  }

  #begin(): { done: Promise<void>; stop: AbortController } {
    const stop = new AbortController();
    const trying = this.#try(AbortSignal.any([stop.signal, this.#options.over]));
    const done = trying.finally(() => {
      this.#thawing = undefined;
    });
    return { done, stop };
  }

  async #try(signal: AbortSignal): Promise<void> {
    const { agent, limitMs, runs, thawed } = this.#options;
    for (let pause = THAW_PAUSE_MS.first; !signal.aborted; pause = Math.min(2 * pause, THAW_PAUSE_MS.most)) {
      if (!runs()) return;
      try {
        await agentStep(agent.thaw({ limitMs: limitMs() }), "thawing the guest's processes");
        this.#frozen = false;
        thawed();
        return;
      } catch (error) {
        if (asStacyError(error).code === "not-supported") {
          this.#frozen = false; // a guest that cannot freeze has nothing to thaw
          thawed();
          return;
        }
        await delay(pause, undefined, { signal }).catch(() => {});
      }
    }
  }
}

/**
 * A call of the agent, with a limit, that belongs to a change of the machine.
 * @throws StacyError `timeout` and others, in phase `freeze`
 */
export async function agentStep<T>(work: Promise<T>, doing: string): Promise<T> {
  try {
    return await work;
  } catch (thrown) {
    const error = asStacyError(thrown);
    if (error.code !== "timeout") throw error.inPhase("freeze");
    throw new StacyError("timeout", `${doing}: ${error.message}`, { cause: error, phase: "freeze" });
  }
}
