/** A running command on the host's side. */
import type { Command, ExitStatus, OutputEvent } from "./agent.ts";
import { exitStatus, sizeFields } from "./methods.ts";
import type { OutputTimes } from "./output-times.ts";
import { Channel, type FieldReader, FieldWriter, Tag } from "./protocol.ts";
import type { Call } from "./session.ts";

export interface FollowParts {
  /** Bytes that the ring had dropped, each told once. */
  takeLost(): number;
  times: OutputTimes;
  detach(): Promise<void>;
}

export class RunningCommand implements Command {
  readonly id: string;
  readonly pid: number;
  readonly exited: Promise<ExitStatus>;
  readonly #call: Call;
  readonly written?: number;
  readonly #parts: FollowParts;

  constructor(call: Call, started: FieldReader, parts: FollowParts) {
    this.#call = call;
    this.#parts = parts;
    const written = started.number(Tag.OUTPUT);
    if (written !== undefined) this.written = written;
    this.id = (started.bigint(Tag.PROCESS_ID) ?? 0n).toString();
    this.pid = started.number(Tag.PID) ?? 0;
    this.exited = call.ended.then(exitStatus);
    // Nobody has to wait for it: a caller that only reads output meets a failure there.
    this.exited.catch(() => {});
  }

  async *output(): AsyncGenerator<OutputEvent> {
    const { takeLost, times } = this.#parts;
    let at = 0;
    for await (const { channel, data } of this.#call.chunks()) {
      const bytes = takeLost();
      if (bytes > 0) yield { type: "lost", bytes };
      at += bytes;
      const time = times.at(at);
      yield { type: channel === Channel.STDERR ? "stderr" : "stdout", data, ...(time === undefined ? {} : { time }) };
      at += data.length;
    }
  }

  write(data: Uint8Array, { withinMs }: { withinMs?: number } = {}): Promise<void> {
    return this.#call.send(data, false, withinMs);
  }

  closeStdin(): Promise<void> {
    return this.#call.send(new Uint8Array(0), true);
  }

  async kill(signal: number): Promise<void> {
    this.#call.control(new FieldWriter().u8(Tag.SIGNAL, signal).u8(Tag.GROUP, 1));
  }

  async resize(rows: number, cols: number): Promise<void> {
    this.#call.control(sizeFields({ rows, cols }));
  }

  detach(): Promise<void> {
    return this.#parts.detach();
  }
}
