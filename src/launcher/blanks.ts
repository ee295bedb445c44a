/**
 * Started VMMs of no shape: they know nothing of a machine until they load, so they fit whatever is asked for, and a restore on
 * demand is disk, load and handshake. Where the VMM cannot do that there are none.
 */
import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import type { BlankVmm, Vmm } from "../vmm/vmm.ts";
import { discard, machineDir } from "./launch.ts";
import { removeMachineDir } from "./machine-dir.ts";

export class Blanks {
  readonly #vmm: Vmm;
  readonly #sandboxes: string;
  readonly #wanted: number;
  readonly #waiting: BlankVmm[] = [];
  #closed = false;

  /** @param sandboxes directory of machines @param wanted how many are kept */
  constructor(vmm: Vmm, sandboxes: string, wanted: number) {
    this.#vmm = vmm;
    this.#sandboxes = sandboxes;
    this.#wanted = wanted;
  }

  get count(): number {
    return this.#waiting.length;
  }

  get lacking(): boolean {
    return !this.#closed && this.#vmm.abilities.blank && this.#waiting.length < this.#wanted;
  }

  /** It belongs to the caller from here on. */
  take(): BlankVmm | undefined {
    return this.#waiting.pop();
  }

  /** Starts one more. @throws StacyError when the VMM cannot be started */
  async add(): Promise<void> {
    await mkdir(this.#sandboxes, { recursive: true, mode: 0o700 });
    const dir = machineDir(this.#sandboxes, `pool-${randomBytes(4).toString("hex")}`);
    await mkdir(dir, { mode: 0o700 });
    let blank: BlankVmm;
    try {
      blank = await this.#vmm.prepareBlank({ dir });
    } catch (error) {
      await discard(dir, undefined);
      throw error;
    }
    if (this.#closed) return end(blank);
    this.#waiting.push(blank);
    // One that dies while it waits is nobody's.
    void blank.exited.then(() => {
      const at = this.#waiting.indexOf(blank);
      if (at >= 0) this.#waiting.splice(at, 1);
      return at >= 0 ? removeMachineDir(blank.dir).catch(() => {}) : undefined;
    });
  }

  async empty(): Promise<void> {
    await Promise.all(this.#waiting.splice(0).map(end));
  }

  close(): Promise<void> {
    this.#closed = true;
    return this.empty();
  }
}

async function end(blank: BlankVmm): Promise<void> {
  await blank.kill();
  await removeMachineDir(blank.dir);
}
