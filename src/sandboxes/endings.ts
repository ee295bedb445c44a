/**
 * Ends of sandboxes. An end takes the machine away from whatever change is under way, waits for that to settle, and leaves nothing.
 * What fails on the way (a monitor that does not die, a database that cannot be written) is tried again until it is done.
 */
import { asStacyError, StacyError } from "../host/error.ts";
import { withTimeLimit } from "../host/time-limit.ts";
import type { Events } from "./events.ts";
import type { Log } from "./observer.ts";
import type { Sandbox } from "./sandbox.ts";
import { mayBecome } from "./state.ts";

/**
 * What an end's answer says. `gone`: nothing of it is left. `stopped`: its row says that it is destroyed, and its machine cannot run any more;
 * what it had is removed beside, by the next daemon if this one dies.
 */
export type EndAnswer = "gone" | "stopped";

/** How long an end may take before the answer stops waiting for it; the work goes on. */
const WAIT_MS = 30_000;
/** Between two attempts, of the reaper. */
const MOST_ROUNDS = 64;

/** What calls fail with that were under way; `data.ended` tells programs. */
const WHY: Record<string, string> = {
  ttl: "its time to live was over",
  idle: "nobody had used it for its idle time",
  requested: "it was deleted",
  shutdown: "the server ends its sandboxes",
};

function endedError(id: string, reason: string): StacyError {
  if (reason === MOVED) {
    return new StacyError("unavailable", `sandbox ${id} has moved to another node`, {
      phase: "move",
      remedy: "ask again: where it is now is known",
    });
  }
  return new StacyError("not-found", `sandbox ${id} was ended: ${WHY[reason] ?? reason}`, { data: { ended: reason } });
}

/** Why it ends here: it goes on elsewhere. */
export const MOVED = "moved";

export interface EndingsParts {
  events: Events;
  log: Log;
  save(sandbox: Sandbox): Promise<void>;
  /** Everything of it is gone. */
  ended(sandbox: Sandbox): void;
}

export class Endings {
  readonly #parts: EndingsParts;
  /** Whose end has begun and not succeeded yet: why, how often it was tried, and how many rounds it waits. */
  readonly #unfinished = new Map<Sandbox, { reason: string; attempts: number; rounds: number }>();
  readonly #done = new WeakSet<Sandbox>();
  /** By sandbox whose end has begun: settles when its machine cannot run any more, or never. */
  readonly #stopped = new WeakMap<Sandbox, PromiseWithResolvers<void>>();
  /** Ends that have been answered and go on. */
  readonly #answered = new Set<Promise<unknown>>();

  constructor(parts: EndingsParts) {
    this.#parts = parts;
  }

  /** Everyone who asks waits for the same end. Nobody sees the sandbox from now on. */
  end(sandbox: Sandbox, as: "destroyed" | "expired", reason: string, answer: EndAnswer = "gone"): Promise<void> {
    const late = (): StacyError =>
      new StacyError("timeout", `sandbox ${sandbox.id} takes long to end; it goes on in the background`, {
        phase: "destroy",
      });
    const gone = this.#attempt(sandbox, as, reason);
    if (answer === "gone") return withTimeLimit(gone, WAIT_MS, late);
    const going = gone.catch(() => {}); // logged, and tried again
    this.#answered.add(going);
    void going.then(() => this.#answered.delete(going));
    return withTimeLimit(Promise.race([gone, this.#stops(sandbox).promise]), WAIT_MS, late);
  }

  /** Settles when what ends hold that were answered while they go on is free: places, snapshots, images. Never rejects. */
  async freed(): Promise<void> {
    await Promise.all(this.#answered);
  }

  #stops(sandbox: Sandbox): PromiseWithResolvers<void> {
    const stops = this.#stopped.get(sandbox) ?? Promise.withResolvers<void>();
    this.#stopped.set(sandbox, stops);
    return stops;
  }

  /** One round: another attempt for those that failed, less and less often. It only starts them. */
  retry(): void {
    for (const [sandbox, unfinished] of this.#unfinished) {
      if (sandbox.ending !== undefined || --unfinished.rounds > 0) continue;
      this.#attempt(sandbox, "destroyed", unfinished.reason).catch(() => {}); // logged
    }
  }

  /** Settles when no end is under way. */
  async settled(sandboxes: Iterable<Sandbox>): Promise<void> {
    await Promise.allSettled([...sandboxes].map(({ ending }) => ending));
  }

  #attempt(sandbox: Sandbox, as: "destroyed" | "expired", reason: string): Promise<void> {
    if (this.#done.has(sandbox)) return Promise.resolve();
    if (mayBecome(sandbox.state, as)) sandbox.record.state = as;
    sandbox.ending ??= this.#end(sandbox, this.#unfinished.get(sandbox)?.reason ?? reason).finally(() => {
      sandbox.ending = undefined;
    });
    return sandbox.ending;
  }

  async #end(sandbox: Sandbox, reason: string): Promise<void> {
    const { events, log, save, ended } = this.#parts;
    const { id } = sandbox;
    const attempts = (this.#unfinished.get(sandbox)?.attempts ?? 0) + 1;
    this.#unfinished.set(sandbox, { reason, attempts, rounds: Math.min(2 ** (attempts - 1), MOST_ROUNDS) });
    try {
      // No change begins any more, and the one under way is told (a spawn too: its pull, its boot).
      const gone = new StacyError("not-found", `sandbox ${id} is gone`);
      const settled = sandbox.changes.close(reason === MOVED ? endedError(id, reason) : gone);
      // First the row: should we die here, the next daemon removes the machine. One that cannot be written is no reason to let a
      // machine live: the store tries it again, and the end says so.
      const written = await save(sandbox).then(
        () => true,
        () => false,
      );
      const stopped = written && isAlone(sandbox) ? (): void => this.#stops(sandbox).resolve() : undefined;
      await Promise.all([sandbox.machine?.destroy(endedError(id, reason), stopped), sandbox.unreachable?.destroy()]);
      await settled;
      // What that change has brought in the meantime.
      await Promise.all([sandbox.machine?.destroy(), sandbox.unreachable?.destroy()]);
    } catch (thrown) {
      const error = asStacyError(thrown).inPhase("destroy");
      log.error({ sandbox: id, err: error }, "the sandbox did not end; trying again");
      events.emit("operation.failed", id, { operation: "destroy", message: error.message });
      throw error;
    }
    this.#unfinished.delete(sandbox);
    this.#done.add(sandbox);
    sandbox.record.state = "destroyed";
    const saved = save(sandbox);
    log.info(
      { sandbox: id, reason },
      reason === MOVED ? "nothing of the sandbox is here any more" : "sandbox destroyed",
    );
    if (reason !== MOVED) events.emit("sandbox.destroyed", id, { reason });
    ended(sandbox);
    await saved;
  }
}

/** Its machine is all that there is of it: no change may bring another one, and nothing that others wait for is in its hands. */
function isAlone({ changes, unreachable, record }: Sandbox): boolean {
  const holds = (record.volumes?.length ?? 0) + (record.directories?.length ?? 0);
  return !changes.busy && unreachable === undefined && holds === 0;
}
