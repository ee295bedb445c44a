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
    while (this.#length > this.#most && this.#lines[gone]?.whole) {
      this.#length -= this.#lines[gone]?.text.length ?? 0;
      gone += 1;
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
