/** A node gives away what it has, a few sandboxes at a time, and says how far it is and what stays, with why. */
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import type { DrainView } from "../../api/fleet-nodes.ts";
import { asStacyError } from "../../host/error.ts";
import type { Log } from "../../sandboxes/observer.ts";
import type { Sandboxes } from "../../sandboxes/sandboxes.ts";

const AT_ONCE = 2;
/** What another node could not have now may work in a moment: how often it is tried, and the pause between, ms. */
const ROUNDS = 3;
const PAUSE_MS = 2_000;
const LATER: ReadonlySet<string> = new Set(["unavailable", "limit", "disconnected", "timeout"]);
const WAITS = "it waits for its turn";

export const drainSchema = z.object({
  moving: z.boolean(),
  moved: z.int(),
  left: z.array(z.object({ id: z.string(), reason: z.string() })),
});

interface Mover {
  /** Wherever it fits. */
  move(id: string, to: undefined): Promise<unknown>;
}

export class Draining {
  readonly #moves: Mover;
  readonly #sandboxes: Pick<Sandboxes, "list">;
  readonly #log: Log;
  readonly #pauseMs: number;
  readonly #reasons = new Map<string, string>();
  #moved = 0;
  #under: AbortController | undefined;

  constructor(moves: Mover, sandboxes: Pick<Sandboxes, "list">, log: Log, pauseMs = PAUSE_MS) {
    this.#pauseMs = pauseMs;
    this.#moves = moves;
    this.#sandboxes = sandboxes;
    this.#log = log;
  }

  /** Begins, unless it is under way. */
  start(): void {
    if (this.#under !== undefined) return;
    const under = new AbortController();
    this.#under = under;
    this.#reasons.clear();
    this.#moved = 0;
    void this.#run(under.signal).finally(() => {
      if (this.#under === under) this.#under = undefined;
    });
  }

  /** What is on its way goes on. */
  stop(): void {
    this.#under?.abort();
    this.#under = undefined;
  }

  status(): DrainView {
    const left = this.#sandboxes.list().map(({ id }) => ({ id, reason: this.#reasons.get(id) ?? WAITS }));
    return { moving: this.#under !== undefined, moved: this.#moved, left };
  }

  async #run(signal: AbortSignal): Promise<void> {
    for (let round = 0; round < ROUNDS && !signal.aborted; round++) {
      const waiting = this.#sandboxes.list().filter(({ id }) => round === 0 || this.#reasons.get(id) === WAITS);
      if (waiting.length === 0) return;
      if (round > 0) await delay(this.#pauseMs, undefined, { signal }).catch(() => {});
      const last = round === ROUNDS - 1;
      const work = async (): Promise<void> => {
        for (let next = waiting.shift(); next !== undefined && !signal.aborted; next = waiting.shift()) {
          await this.#move(next.id, last);
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
    }
  }

  async #move(id: string, last: boolean): Promise<void> {
    this.#reasons.set(id, "it is on its way");
    try {
      await this.#moves.move(id, undefined);
      this.#moved += 1;
      this.#reasons.delete(id);
    } catch (thrown) {
      const { code, message } = asStacyError(thrown);
      this.#reasons.set(id, !last && LATER.has(code) ? WAITS : message);
      this.#log.info(
        { sandbox: id, phase: "drain", reason: message },
        "a sandbox stays on a node that is being drained",
      );
    }
  }
}
