/** The processes that clients started, by sandbox and pid: their output for all who follow them, their input. */
import { Code, ConnectError } from "@connectrpc/connect";
import type { Agent, Command, ExitStatus } from "../../guest/agent.ts";
import { FanOut } from "./fan-out.ts";
import type { ProcessConfig } from "./gen/process/process_pb.ts";

export type ProcessOutput = { kind: "stdout" | "stderr" | "pty"; data: Uint8Array } | { kind: "end"; exit: ExitStatus };

export interface RunningProcess {
  readonly pid: number;
  readonly command: Command;
  readonly config: Pick<ProcessConfig, "cmd" | "args" | "envs" | "cwd">;
  readonly tag: string | undefined;
  readonly pty: boolean;
  /** Its input is open. */
  readonly stdin: boolean;
  readonly output: FanOut<ProcessOutput>;
}

export class RunningProcesses {
  readonly #all = new Map<string, Map<number, RunningProcess>>();

  /** Follows a command until it ends. @param done called then: what it needs is needed no longer */
  add(sandboxId: string, process: Omit<RunningProcess, "output" | "pid">, done: () => void): RunningProcess {
    const { pid } = process.command;
    const added: RunningProcess = { ...process, pid, output: new FanOut() };
    const own = this.#all.get(sandboxId) ?? new Map<number, RunningProcess>();
    this.#all.set(sandboxId, own);
    own.set(pid, added);
    void this.#follow(added).finally(() => {
      if (own.get(pid) === added) own.delete(pid);
      if (own.size === 0 && this.#all.get(sandboxId) === own) this.#all.delete(sandboxId);
      done();
    });
    return added;
  }

  async #follow({ command, output, pty }: RunningProcess): Promise<void> {
    try {
      // The first reader is there before the first byte.
      await Promise.resolve();
      for await (const event of command.output()) {
        if (event.type !== "lost") await output.publish({ kind: pty ? "pty" : event.type, data: event.data });
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
    const known = this.list(sandboxId).find((each) => (tag === undefined ? each.pid === pid : each.tag === tag));
    if (known !== undefined) return known;
    const left =
      pid === undefined ? undefined : (await agent.processes()).find((each) => each.pid === pid && each.running);
    if (left === undefined) {
      const what = tag === undefined ? `pid ${pid}` : `tag ${tag}`;
      throw new ConnectError(`process with ${what} not found`, Code.NotFound);
    }
    const command = await agent.attach(left.id);
    const config = { cmd: left.command, args: [], envs: {} };
    return this.add(sandboxId, { command, config, tag: undefined, pty: false, stdin: true }, adopted());
  }
}
