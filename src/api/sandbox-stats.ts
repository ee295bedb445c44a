/** What every sandbox uses: for lists that show all of them every few seconds, to however many people. */
import type { MachineStats } from "../providers/provider.ts";
import type { Sandbox } from "../sandboxes/sandbox.ts";

/** One reading of a machine serves everybody for this long; the kernel walks its pages for it. */
const FRESH_MS = 1_000;
/** Machines that are read at once. */
const AT_ONCE = 8;

export class SandboxSampler {
  readonly #read = new WeakMap<object, { at: number; stats: Promise<MachineStats> }>();

  /** Those that have a machine and can be asked, by id. */
  async read(sandboxes: readonly Sandbox[]): Promise<Map<string, MachineStats>> {
    const found = new Map<string, MachineStats>();
    const left = sandboxes.filter(({ machine, state }) => machine !== undefined && state !== "error");
    const next = async (): Promise<void> => {
      for (let sandbox = left.pop(); sandbox !== undefined; sandbox = left.pop()) {
        const stats = await this.#one(sandbox).catch(() => undefined); // it has just ended
        if (stats !== undefined) found.set(sandbox.id, stats);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, next));
    return found;
  }

  async #one({ machine }: Sandbox): Promise<MachineStats | undefined> {
    if (machine === undefined) return undefined;
    const now = performance.now();
    const last = this.#read.get(machine);
    if (last !== undefined && now - last.at < FRESH_MS) return last.stats;
    const stats = machine.stats();
    this.#read.set(machine, { at: now, stats });
    return stats;
  }
}
