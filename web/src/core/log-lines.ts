/** A program's output as lines with their times. Lines of its two streams are not mixed; what is older than `most` characters goes. */
import type { LogPiece } from "../../../sdk/src/index.ts";

interface Line {
  /** Of its first piece. */
  time: string | undefined;
  text: string;
  /** Its end has come. */
  whole: boolean;
}

export class LogLines {
  readonly #most: number;
  readonly #lines: Line[] = [];
  readonly #open = new Map<LogPiece["stream"], Line>();
  #length = 0;

  constructor(most: number) {
    this.#most = most;
  }

  add({ stream, text, time }: LogPiece): void {
    for (const part of text.split(/(?<=\n)/)) {
      if (part === "") continue;
      let line = this.#open.get(stream);
      if (line === undefined) {
        line = { time, text: "", whole: false };
        this.#lines.push(line);
        this.#open.set(stream, line);
        this.#length += 1; // its end, so that empty lines count too
      }
      // A line without an end is bounded as all of them together are.
      const kept = (line.text + part.replace(/\r?\n$/, "")).slice(-this.#most);
      this.#length += kept.length - line.text.length;
      line.text = kept;
      if (part.endsWith("\n")) {
        line.whole = true;
        this.#open.delete(stream);
      }
    }
    let gone = 0;
    while (this.#length > this.#most && gone < this.#lines.length - 1) {
      const line = this.#lines[gone] as Line;
      this.#length -= line.text.length + 1;
      gone += 1;
      if (line.whole) continue;
      // One that has no end yet is no exception: what comes of it is a line anew.
      for (const [stream, open] of this.#open) if (open === line) this.#open.delete(stream);
    }
    this.#lines.splice(0, gone);
  }

  /** @param say how a time is written, if at all */
  text(say?: (time: string) => string): string {
    return this.#lines
      .map(({ time, text }) => (say === undefined || time === undefined ? text : `${say(time)}  ${text}`))
      .join("\n");
  }
}
