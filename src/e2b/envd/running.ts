/** The processes that clients started, by sandbox and pid: their output for all who follow them, their input. */
import { Code, ConnectError } from "@connectrpc/connect";
import type { Agent, Command, ExitStatus, ProcessInfo } from "../../guest/agent.ts";
import { contextsAmong } from "../../interpreter/context.ts";
import { FanOut } from "./fan-out.ts";
import { type Described, readNote } from "./process-note.ts";

export type ProcessOutput = { kind: "stdout" | "stderr" | "pty"; data: Uint8Array } | { kind: "end"; exit: ExitStatus };

export interface RunningProcess extends Described {
  readonly pid: number;
  readonly command: Command;
  readonly output: FanOut<ProcessOutput>;
}

export class RunningProcesses {
  readonly #all = new Map<string, Map<number, RunningProcess>>();

  /**
   * Follows a command until it ends.
   * @param before bytes of its output that are nobody's any more
   * @param done called then: what it needs is needed no longer */
  add(
    sandboxId: string,
    process: Omit<RunningProcess, "output" | "pid">,
    done: () => void,
    before = 0,
  ): RunningProcess {
    const { pid } = process.command;
    const added: RunningProcess = { ...process, pid, output: new FanOut() };
    const own = this.#all.get(sandboxId) ?? new Map<number, RunningProcess>();
    this.#all.set(sandboxId, own);
    own.set(pid, added);
    void this.#follow(added, before).finally(() => {
      if (own.get(pid) === added) own.delete(pid);
      if (own.size === 0 && this.#all.get(sandboxId) === own) this.#all.delete(sandboxId);
      done();
    });
    return added;
  }

  async #follow({ command, output, pty }: RunningProcess, before: number): Promise<void> {
    try {
      // The first reader is there before the first byte.
      await Promise.resolve();
      for await (const event of command.output()) {
        const bytes = event.type === "lost" ? event.bytes : event.data.length;
        const data = event.type === "lost" ? EMPTY : event.data.subarray(before);
        before = Math.max(0, before - bytes);
        if (event.type !== "lost" && data.length > 0) await output.publish({ kind: pty ? "pty" : event.type, data });
      }
      await output.publish({ kind: "end", exit: await command.exited });
      output.end();
    } catch (error) {
      output.end(error);
    }
  }

  list(sandboxId: string): RunningProcess[] {
    return [...(this.#all.get(sandboxId)?.values() ?? [])];
  }

  /** One by its pid or tag; also one that an earlier server had started. @throws ConnectError `not_found` */
  async find(
    sandboxId: string,
    agent: Agent,
    selector: { pid?: number; tag?: string },
    adopted: () => () => void,
  ): Promise<RunningProcess> {
    const { pid, tag } = selector;
    const isIt = (each: { pid: number; tag: string | undefined }): boolean =>
      tag === undefined ? each.pid === pid : each.tag === tag;
    const known = this.list(sandboxId).find(isIt);
    if (known !== undefined) return known;
    const left = startedBefore(await agent.processes()).find(isIt);
    if (left === undefined) {
      const what = tag === undefined ? `pid ${pid}` : `tag ${tag}`;
      throw new ConnectError(`process with ${what} not found`, Code.NotFound);
    }
    const command = await agent.attach(left.id);
    const { config, pty, stdin } = left;
    // As for one that it has followed all the time: whoever connects gets what comes from now on.
    return this.add(sandboxId, { command, config, tag: left.tag, pty, stdin }, adopted(), command.written);
  }
}

const EMPTY = Buffer.alloc(0);

/** Processes that clients may have started and that nobody here follows. Contexts of the code interpreter are no commands of theirs. */
export function startedBefore(processes: readonly ProcessInfo[]): (Described & { id: string; pid: number })[] {
  const ours = new Set(contextsAmong(processes).map(({ process }) => process));
  return processes
    .filter(({ id, running }) => running && !ours.has(id))
    .map(({ id, pid, command, note }) => ({ id, pid, ...(readNote(note) ?? plain(command)) }));
}

function plain(command: string): Described {
  return { config: { cmd: command, args: [], envs: {} }, tag: undefined, pty: false, stdin: true };
}
