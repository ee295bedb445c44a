/** A running command on the host's side. */
import type { Command, ExitStatus, OutputEvent } from "./agent.ts";
import { exitStatus, sizeFields } from "./methods.ts";
import { Channel, type FieldReader, FieldWriter, Tag } from "./protocol.ts";
import type { Call } from "./session.ts";

export class RunningCommand implements Command {
  readonly id: string;
  readonly pid: number;
  readonly exited: Promise<ExitStatus>;
  readonly #call: Call;
  readonly #lost: () => number;
  readonly #detach: () => Promise<void>;

  constructor(call: Call, started: FieldReader, lost: () => number, detach: () => Promise<void>) {
    this.#call = call;
    this.#lost = lost;
    this.#detach = detach;
    this.id = (started.bigint(Tag.PROCESS_ID) ?? 0n).toString();
    this.pid = started.number(Tag.PID) ?? 0;
    this.exited = call.ended.then(exitStatus);
    // Nobody has to wait for it: a caller that only reads output meets a failure there.
    this.exited.catch(() => {});
  }

  async *output(): AsyncGenerator<OutputEvent> {
    for await (const { channel, data } of this.#call.chunks()) {
      const bytes = this.#lost();
      if (bytes > 0) yield { type: "lost", bytes };
      yield { type: channel === Channel.STDERR ? "stderr" : "stdout", data };
    }
  }

  write(data: Uint8Array): Promise<void> {
    return this.#call.send(data);
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
    return this.#detach();
  }
}
