/**
 * Errors of volumes' files that QEMU passes on to the guest (`rerror=report`, and `werror=enospc` for what is no want of room: its
 * defaults; QEMU, docs/qemu-qmp-ref, `BLOCK_IO_ERROR`). The guest's programs see them as such.
 */
import type { VolumeFailure } from "../vmm.ts";
import type { QmpEvent } from "./qmp.ts";

export class VolumeFailures {
  readonly #told = new Set<number>();
  #listener: ((failure: VolumeFailure) => void) | undefined;

  /** The last one is told. */
  listen(listener: (failure: VolumeFailure) => void): void {
    this.#listener = listener;
  }

  /** What QEMU says. */
  heard({ event, data }: QmpEvent): void {
    if (event !== "BLOCK_IO_ERROR" || data.action !== "report") return;
    const slot = Number(/^volume-(\d)$/.exec(String(data["node-name"]))?.[1] ?? Number.NaN);
    if (Number.isNaN(slot) || this.#told.has(slot) || this.#listener === undefined) return;
    this.#told.add(slot);
    const reason = typeof data.reason === "string" ? data.reason.slice(0, 200) : "no reason given";
    this.#listener({ slot, operation: data.operation === "read" ? "read" : "write", reason });
  }

  /** There is another one in its place. */
  replaced(slot: number): void {
    this.#told.delete(slot);
  }
}
