/** The idle action of sandboxes that nobody uses: they are destroyed, paused or suspended, as each was asked for. */
import { countContexts } from "../interpreter/contexts.ts";
import type { Clock } from "./clock.ts";
import type { Log } from "./observer.ts";
import type { Sandbox } from "./sandbox.ts";
import type { StateChanges } from "./state-changes.ts";

export interface IdlenessParts {
  clock: Clock;
  log: Log;
  changes: StateChanges;
  /** Begins its end. */
  end(sandbox: Sandbox): void;
}

export class Idleness {
  readonly #parts: IdlenessParts;
  /** Those that are being asked whether something runs in them. */
  readonly #asked = new WeakSet<Sandbox>();

  constructor(parts: IdlenessParts) {
    this.#parts = parts;
  }

  /** Nobody uses it from outside. What still runs in it, a server say, is use too. */
  consider(sandbox: Sandbox): void {
    if (sandbox.unreachable !== undefined || this.#asked.has(sandbox)) return;
    this.#asked.add(sandbox);
    const asked = sandbox.lastUsedAt;
    void runsSomething(sandbox).then((busy) => {
      this.#asked.delete(sandbox);
      if (sandbox.inUse || sandbox.lastUsedAt !== asked || sandbox.state !== "running") return;
      if (busy) sandbox.lastUsedAt = this.#parts.clock.now();
      else this.#act(sandbox);
    });
  }

  #act(sandbox: Sandbox): void {
    const { clock, log, changes, end } = this.#parts;
    const { idleAction } = sandbox.record;
    if (idleAction === "destroy") {
      end(sandbox);
      return;
    }
    // Counts as a use, so that a failing suspend is tried again after the same time and not every second.
    const now = clock.now();
    sandbox.lastUsedAt = now;
    const state = idleAction === "pause" ? "paused" : "suspended";
    const stopping = changes.to(sandbox, state, { reason: "idle", idleSince: now }).then(
      () => {},
      (error: unknown) => log.warn({ sandbox: sandbox.id, err: error }, `an idle sandbox: ${idleAction} failed`),
    );
    sandbox.autoStopsDuring(stopping);
  }
}

async function runsSomething({ machine, record }: Sandbox): Promise<boolean> {
  if (record.idleCounts === "calls") return false;
  try {
    if (machine === undefined) return false;
    const { commands } = await machine.agent.info();
    return commands > 0 && commands > (await countContexts(machine.agent));
  } catch {
    return true; // nobody can say that it does nothing; it is asked again after the same time
  }
}
