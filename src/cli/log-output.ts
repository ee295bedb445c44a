/**
 * Where a server's log lines go: a descriptor of whoever started it, which may lie on a full disk or be a pipe that nobody reads any more.
 * A line that cannot be written is dropped and counted, since a log is no reason to stop; the next one that can be written is preceded by
 * one that says how many are missing.
 */
import { writeSync } from "node:fs";
import { hostname } from "node:os";
import { errno } from "../host/error.ts";

/** A pipe that does not block (EAGAIN) has so long to be read, unless lines are being dropped already. */
const PATIENCE_MS = 1_000;
const STEP_MS = 10;
/** pino's number for it. */
const WARN = 40;

export class LogOutput {
  readonly #fd: number;
  readonly #format: (line: string) => string;
  #dropped = 0;
  #why = "";
  /** The last thing that reached the descriptor is a part of a line. */
  #torn = false;

  /** @param format of a line of JSON, for people who read it; without: as it is */
  constructor(fd: number, format: (line: string) => string = (line) => line) {
    this.#fd = fd;
    this.#format = format;
  }

  /** Of lines, since the last one that was written. */
  get dropped(): number {
    return this.#dropped;
  }

  /** @param line one line of JSON with its end. Never throws */
  write(line: string): void {
    if ((this.#dropped > 0 && !this.#put(this.#missing())) || !this.#put(this.#format(line))) {
      this.#dropped += 1;
    }
  }

  #missing(): string {
    const [lines, were] = this.#dropped === 1 ? ["line", "was"] : ["lines", "were"];
    const msg = `${this.#dropped} ${lines} of this log could not be written here (${this.#why}), and ${were} dropped`;
    const about = { level: WARN, time: Date.now(), pid: process.pid, hostname: hostname() };
    return this.#format(`${JSON.stringify({ ...about, phase: "log", dropped: this.#dropped, msg })}\n`);
  }

  /** Whether all of it was written; what was dropped before it counts as said then. */
  #put(text: string): boolean {
    let left = Buffer.from(this.#torn ? `\n${text}` : text);
    let patienceMs = this.#dropped > 0 ? 0 : PATIENCE_MS;
    while (left.length > 0) {
      try {
        const written = writeSync(this.#fd, left);
        if (written > 0) this.#torn = left[written - 1] !== 0x0a;
        left = left.subarray(written);
      } catch (error) {
        const code = errno(error) ?? "";
        if (code === "EAGAIN" && patienceMs > 0) {
          patienceMs -= STEP_MS;
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, STEP_MS);
          continue;
        }
        this.#why = code;
        return false;
      }
    }
    this.#dropped = 0;
    return true;
  }
}
