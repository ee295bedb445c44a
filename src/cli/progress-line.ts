import { StringDecoder } from "node:string_decoder";
import { printable, printableLines } from "../host/printable.ts";

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
  readonly #words = new StringDecoder("utf8");
  #last = "";
  #drawn = 0;
  #later: NodeJS.Timeout | undefined;

  constructor(prefix = "") {
    this.#prefix = prefix;
  }

  readonly show = (progress: Progress): void => {
    clearTimeout(this.#later);
    if (!this.#tty) {
      if (progress.step !== this.#last) process.stderr.write(`${this.#prefix}${printable(progress.step)}\n`);
      this.#last = progress.step;
      return;
    }
    const now = performance.now();
    const finished = progress.total !== undefined && progress.done === progress.total;
    if (progress.step === this.#last && now - this.#drawn < 50 && !finished) return;
    this.#last = progress.step;
    this.#drawn = now;
    // What is longer than the terminal's line would go on in the next one, and only that one would be cleared.
    const columns = (process.stderr.columns || 80) - 1;
    const line = [...`${this.#prefix}${printable(progress.step)}${amount(progress)}`].slice(0, columns).join("");
    process.stderr.write(`\r\x1b[2K${line}`);
  };

  /** On a terminal, should it take this long (ms) until there is something else to say. */
  showAfter(wait: number, progress: Progress): void {
    clearTimeout(this.#later);
    if (this.#tty) this.#later = setTimeout(() => this.show(progress), wait).unref();
  }

  /** A program's output on stderr, above the line: its lines, and no orders to the terminal. */
  print(text: Uint8Array): void {
    this[Symbol.dispose]();
    const words = this.#words.write(text).replaceAll(/\r+\n?/g, "\n");
    process.stderr.write(printableLines(words));
  }

  /** Removes the line. */
  [Symbol.dispose](): void {
    clearTimeout(this.#later);
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
