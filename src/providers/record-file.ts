/**
 * `sandbox.json` of a machine, which says what the next daemon makes of it. A write that failed may have reached the disk all the same, so
 * a change that is taken back puts the record right too: at once, or as soon as that can be done, and before the next change.
 */
import { attempts } from "../host/attempts.ts";
import { SerialQueue } from "../host/serial-queue.ts";
import { type MachineRecord, writeRecord } from "../launcher/machine-dir.ts";

type State = MachineRecord["state"];

export interface RecordFileOptions {
  record: MachineRecord;
  /** Where the machine is now. */
  dir(): string;
  /** Of its monitor now. */
  process(): MachineRecord["process"];
  /** This daemon has nothing more to do with the machine. */
  over: AbortSignal;
}

export class RecordFile {
  readonly #options: RecordFileOptions;
  readonly #writes = new SerialQueue();
  /** What it has to say, and maybe does not. */
  #due: State | undefined;
  /** What waits until it does. */
  #afterwards: (() => Promise<void>)[] = [];
  #trying = false;

  constructor(options: RecordFileOptions) {
    this.#options = options;
  }

  /** As things are; on disk before it resolves. Whoever goes back after a failure has to `correct` it. */
  write(state: State): Promise<void> {
    return this.#writes.run(() => this.#write(state));
  }

  /** Whether it says what is, for all that is known. */
  get right(): boolean {
    return this.#due === undefined;
  }

  /** A change was taken back. @returns whether the record says so; if not, that is tried until it does */
  async correct(state: State): Promise<boolean> {
    this.#due = state;
    try {
      await this.settle();
      return true;
    } catch {
      void this.#keepTrying();
      return false;
    }
  }

  /** Before a change, so that it begins with what is. @throws what the write fails with */
  settle(): Promise<void> {
    if (this.right) return Promise.resolve();
    return this.#writes.run(async () => {
      if (this.#due !== undefined) await this.#write(this.#due);
    });
  }

  /** Removes what the record may still name, when it does not any more. */
  whenRight(work: () => Promise<void>): Promise<void> {
    if (this.right) return work();
    this.#afterwards.push(work);
    return Promise.resolve();
  }

  /** Nothing is written any more. Settles when nothing is under way. */
  close(reason: Error): Promise<void> {
    return this.#writes.close(reason);
  }

  async #write(state: State): Promise<void> {
    const { record, dir, process } = this.#options;
    const before = { process: record.process, state: record.state };
    record.process = process();
    record.state = state;
    try {
      await writeRecord(dir(), record);
    } catch (error) {
      Object.assign(record, before);
      throw error;
    }
    this.#due = undefined;
    for (const work of this.#afterwards.splice(0)) await work().catch(() => {}); // what is left goes with the machine
  }

  async #keepTrying(): Promise<void> {
    if (this.#trying) return;
    this.#trying = true;
    try {
      for await (const _ of attempts(this.#options.over)) {
        const written = await this.settle().then(
          () => true,
          () => false,
        );
        if (written) return;
      }
    } finally {
      this.#trying = false;
    }
  }
}
