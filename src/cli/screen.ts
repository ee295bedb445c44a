import { printable } from "../host/printable.ts";

/** A live view on the terminal: its own screen, drawn from the top left, and the old one back afterwards. */
export class Screen implements Disposable {
  readonly #restore: () => void;

  /** @param quit called for `q` and Ctrl-C @param redraw called when the size has changed */
  constructor(quit: () => void, redraw: () => void) {
    const { stdin, stdout } = process;
    const key = (data: Buffer): void => {
      if (data.includes(3) || data.includes("q") || data.includes("Q")) quit();
    };
    if (stdin.isTTY) stdin.setRawMode(true).on("data", key);
    stdout.on("resize", redraw);
    stdout.write("\x1b[?1049h\x1b[?25l");
    this.#restore = () => {
      stdout.off("resize", redraw);
      if (stdin.isTTY) stdin.off("data", key).setRawMode(false).pause();
      stdout.write("\x1b[?25h\x1b[?1049l");
    };
  }

  /** Lines that are too long or too many are cut. */
  draw(lines: string[]): void {
    const { rows = 24, columns = 80 } = process.stdout;
    const shown = lines.slice(0, rows).map((line) => `${[...printable(line)].slice(0, columns).join("")}\x1b[K`);
    process.stdout.write(`\x1b[H${shown.join("\r\n")}\x1b[J`);
  }

  [Symbol.dispose](): void {
    this.#restore();
  }
}

const BARS = "▁▂▃▄▅▆▇█";

/** One character per value, from 0 to the largest; the last `width` of them. */
export function sparkline(values: readonly number[], width: number): string {
  const shown = values.slice(-width);
  const most = Math.max(...shown, Number.MIN_VALUE);
  return shown.map((value) => BARS[Math.min(BARS.length - 1, Math.floor((value / most) * BARS.length))]).join("");
}
