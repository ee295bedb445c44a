/**
 * A guest that writes what the host's disk has no room for. QEMU stops it and keeps the write (`werror=enospc`, its default; QEMU,
 * docs/qemu-qmp-ref, `BLOCK_IO_ERROR`), so nothing is lost: it is let go on again and again, and does as soon as there is room.
 */
import { StacyError } from "../../host/error.ts";
import type { QmpEvent } from "./qmp.ts";

const AGAIN_MS = 1_000;

export class Starvation {
  /** Settles the first time. Never rejects. */
  readonly noticed: Promise<StacyError>;
  readonly #dir: () => string;
  readonly #goOn: () => Promise<unknown>;
  readonly #notice: (error: StacyError) => void;
  #again: NodeJS.Timeout | undefined;
  #over = false;

  /** @param goOn lets the guest run, unless somebody wants it to stand still */
  constructor(dir: () => string, goOn: () => Promise<unknown>) {
    const { promise, resolve } = Promise.withResolvers<StacyError>();
    this.noticed = promise;
    this.#notice = resolve;
    this.#dir = dir;
    this.#goOn = goOn;
  }

  /** What QEMU says. */
  heard({ event, data }: QmpEvent): void {
    // Of every other error the guest is told.
    if (event !== "BLOCK_IO_ERROR" || data.action !== "stop") return;
    this.#notice(
      new StacyError("no-space", `the disk of ${this.#dir()} has no room for what the guest writes`, {
        remedy: "free some space: `stacyvm snapshot gc`, `stacyvm image gc`",
      }),
    );
    this.#later();
  }

  /** Nobody here looks after it any more. */
  end(): void {
    this.#over = true;
    clearTimeout(this.#again);
  }

  #later(): void {
    if (this.#over) return;
    clearTimeout(this.#again);
    this.#again = setTimeout(() => {
      // Should there still be no room, QEMU says so again. What could not be asked now is asked again.
      this.#goOn().catch(() => this.#later());
    }, AGAIN_MS);
    this.#again.unref();
  }
}
