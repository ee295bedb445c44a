/** Output with the time before each line, which is that of the line's first piece; lines of the two streams are not mixed. */
import type { LogPiece } from "../../sdk/src/index.ts";

type Stream = LogPiece["stream"];

export class TimedLines {
  readonly #write: (stream: Stream, text: string) => Promise<void>;
  /** Lines whose end has not come yet, with their times before them. */
  readonly #open: Record<Stream, string> = { stdout: "", stderr: "" };

  constructor(write: (stream: Stream, text: string) => Promise<void>) {
    this.#write = write;
  }

  async add({ stream, text, time = "" }: LogPiece): Promise<void> {
    let whole = "";
    for (const part of text.split(/(?<=\n)/)) {
      this.#open[stream] ||= `${time} `;
      this.#open[stream] += part;
      if (!part.endsWith("\n")) continue;
      whole += this.#open[stream];
      this.#open[stream] = "";
    }
    if (whole !== "") await this.#write(stream, whole);
  }

  /** Nothing more comes: lines without an end are shown as they are. */
  async end(): Promise<void> {
    for (const stream of ["stdout", "stderr"] as const) {
      if (this.#open[stream] !== "") await this.#write(stream, `${this.#open[stream]}\n`);
      this.#open[stream] = "";
    }
  }
}
