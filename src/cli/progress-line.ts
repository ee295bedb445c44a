/** Progress on stderr: one line that is rewritten on a terminal, one line per step elsewhere. */
interface Progress {
  step: string;
  done?: number | undefined;
  total?: number | undefined;
  unit?: string | undefined;
}

export class ProgressLine implements Disposable {
  readonly #prefix: string;
  readonly #tty = process.stderr.isTTY === true;
  #last = "";
  #drawn = 0;

  constructor(prefix = "") {
    this.#prefix = prefix;
  }

  readonly show = (progress: Progress): void => {
    if (!this.#tty) {
      if (progress.step !== this.#last) process.stderr.write(`${this.#prefix}${progress.step}\n`);
      this.#last = progress.step;
      return;
    }
    const now = performance.now();
    const finished = progress.total !== undefined && progress.done === progress.total;
    if (progress.step === this.#last && now - this.#drawn < 50 && !finished) return;
    this.#last = progress.step;
    this.#drawn = now;
    process.stderr.write(`\r\x1b[2K${this.#prefix}${progress.step}${amount(progress)}`);
  };

  /** Other output on stderr, above the line. */
  print(text: Uint8Array): void {
    this[Symbol.dispose]();
    process.stderr.write(text);
  }

  /** Removes the line. */
  [Symbol.dispose](): void {
    if (this.#tty && this.#last !== "") process.stderr.write("\r\x1b[2K");
    this.#last = "";
  }
}

function amount({ done, total, unit }: Progress): string {
  if (done === undefined) return "";
  const shown = (value: number): string => (unit === "bytes" ? `${(value / 1e6).toFixed(1)} MB` : String(value));
  if (total === undefined || total === 0) return `  ${shown(done)}`;
  const share = Math.min(1, done / total);
  const filled = Math.round(share * 24);
  return `  ${"█".repeat(filled)}${"░".repeat(24 - filled)} ${shown(done)} / ${shown(total)}`;
}
