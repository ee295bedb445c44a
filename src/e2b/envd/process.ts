/** `process.Process`: commands and terminals of a sandbox. */
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import type { ExitStatus } from "../../guest/agent.ts";
import { HeldInput } from "../../guest/held-input.ts";
import { GUEST_BOUNDS } from "../../host/bounds.ts";
import { StacyError } from "../../host/error.ts";
import { connectError } from "../error.ts";
import {
  type Process,
  type ProcessEvent,
  ProcessEventSchema,
  type ProcessInput,
  type ProcessSelector,
  Signal,
  type StartRequest,
} from "./gen/process/process_pb.ts";
import type { Guest } from "./guest.ts";
import { withKeepAlive } from "./keep-alive.ts";
import { noteLost } from "./lost.ts";
import { noteOf } from "./process-note.ts";
import { type ProcessOutput, type RunningProcess, type RunningProcesses, startedBefore } from "./running.ts";
import { pathOf } from "./users.ts";

/** E2B's clients run everything by it; where an image has none, its `sh` understands the same options. */
const BASH = "/bin/bash";
const SH = "/bin/sh";

interface Started {
  process: RunningProcess;
  output: AsyncGenerator<ProcessOutput>;
}

type Guests = (context: HandlerContext) => Promise<Guest>;

/** @param ownerOf whose the sandbox of a call is */
export function processService(
  guestOf: Guests,
  running: RunningProcesses,
  ownerOf: (context: HandlerContext) => string,
): Partial<ServiceImpl<typeof Process>> {
  const find = async (context: HandlerContext, selector: ProcessSelector | undefined): Promise<RunningProcess> => {
    const guest = await guestOf(context);
    try {
      return await findIn(guest, selector);
    } finally {
      guest.free();
    }
  };
  const findIn = (guest: Guest, selector: ProcessSelector | undefined): Promise<RunningProcess> => {
    const { case: by, value } = selector?.selector ?? {};
    if (by === undefined) throw new ConnectError("no process was named", Code.InvalidArgument);
    const wanted = by === "pid" ? { pid: value as number } : { tag: value as string };
    return running.find(guest.id, guest.agent, wanted, () => guest.hold());
  };
  const write = async (process: RunningProcess, input: ProcessInput | undefined, owner: string): Promise<void> => {
    if (input?.input.value === undefined) throw new ConnectError("there is no input", Code.InvalidArgument);
    if (!process.stdin) throw new ConnectError("its standard input is not open", Code.FailedPrecondition);
    if (input.input.case === "pty" && !process.pty)
      throw new ConnectError("it has no terminal", Code.FailedPrecondition);
    const { value } = input.input;
    try {
      using held = new HeldInput(owner);
      held.add(value.length);
      await process.command.write(value, { withinMs: GUEST_BOUNDS.inputMs });
    } catch (error) {
      throw connectError(error);
    }
  };

  return {
    async list(_request, context) {
      const guest = await guestOf(context);
      try {
        const known = running.list(guest.id);
        const pids = new Set(known.map(({ pid }) => pid));
        const others = startedBefore(await guest.agent.processes()).filter(({ pid }) => !pids.has(pid));
        return {
          processes: [
            ...[...known, ...others].map(({ pid, config, tag }) => {
              return { pid, config, ...(tag === undefined ? {} : { tag }) };
            }),
          ],
        };
      } catch (error) {
        throw connectError(error);
      } finally {
        guest.free();
      }
    },

    async *start(request, context) {
      const guest = await guestOf(context);
      const { process, output } = await begin(guest, request, context).catch((error) => {
        guest.free();
        throw error;
      });
      yield* events(process, output, context);
    },

    async *connect({ process: selector }, context) {
      const process = await find(context, selector);
      const output = process.output.read(context.signal);
      yield* events(process, output, context);
    },

    async update({ process: selector, pty }, context) {
      const process = await find(context, selector);
      if (!process.pty) throw new ConnectError("it has no terminal", Code.FailedPrecondition);
      if (pty?.size !== undefined) await process.command.resize(pty.size.rows, pty.size.cols);
      return {};
    },

    async sendInput({ process: selector, input }, context) {
      await write(await find(context, selector), input, ownerOf(context));
      return {};
    },

    async streamInput(requests, context) {
      let process: RunningProcess | undefined;
      for await (const { event } of requests) {
        if (event.case === "start") process = await find(context, event.value.process);
        else if (event.case === "data") {
          if (process === undefined) throw new ConnectError("no process was named first", Code.InvalidArgument);
          await write(process, event.value.input, ownerOf(context));
        }
      }
      return {};
    },

    async sendSignal({ process: selector, signal }, context) {
      if (signal !== Signal.SIGKILL && signal !== Signal.SIGTERM) {
        throw new ConnectError(`signal ${signal} cannot be sent`, Code.Unimplemented);
      }
      const { command } = await find(context, selector);
      await command.kill(signal);
      return {};
    },

    async closeStdin({ process: selector }, context) {
      const process = await find(context, selector);
      if (process.pty) throw new ConnectError("a terminal's input cannot be closed", Code.FailedPrecondition);
      await process.command.closeStdin();
      return {};
    },
  };

  async function begin(guest: Guest, request: StartRequest, context: HandlerContext): Promise<Started> {
    const { agent } = guest;
    const { process: config, pty, tag, stdin = true } = request;
    if (config === undefined || config.cmd === "") throw new ConnectError("no command was named", Code.InvalidArgument);
    const users = await guest.users();
    const user = users.find(guest.userName);
    const cwd = pathOf(config.cwd ?? "", user);
    const isThere = await agent.stat(cwd).then(
      ({ kind }) => kind === "directory",
      () => false,
    );
    // A home directory need not be there; a directory that somebody names must.
    if (!isThere && config.cwd !== undefined) {
      throw new ConnectError(`cwd '${config.cwd}' does not exist`, Code.InvalidArgument);
    }
    const cmd = config.cmd === BASH && !(await exists(guest, BASH)) ? SH : config.cmd;
    const timeoutMs = context.timeoutMs();
    const size = pty?.size;
    const term = config.envs.TERM;
    const described = { config, tag, pty: size !== undefined, stdin: stdin || size !== undefined };
    try {
      const command = await agent.start({
        argv: [cmd, ...config.args],
        env: { HOME: user.home, USER: user.name, LOGNAME: user.name, E2B_SANDBOX_ID: guest.id, ...config.envs },
        cwd: isThere ? cwd : "/",
        user: user.name === String(user.uid) ? `${user.uid}:${user.gid}` : user.name,
        // As envd: what a shell has left behind may go on to write.
        untilClosed: true,
        note: noteOf(described),
        ...(size === undefined
          ? { stdin }
          : {
              stdin: true,
              pty: { rows: size.rows || 24, cols: size.cols || 80, ...(term === undefined ? {} : { term }) },
            }),
        ...(timeoutMs === undefined || timeoutMs <= 0 ? {} : { timeoutMs, stopSignal: 9 }),
      });
      const added = running.add(guest.id, { command, ...described }, guest.free);
      // At once: what comes before anybody reads is lost.
      return { process: added, output: added.output.read(context.signal) };
    } catch (error) {
      if (error instanceof StacyError && error.code === "not-found") {
        throw new ConnectError(`error starting process '${config.cmd}': ${error.message}`, Code.InvalidArgument);
      }
      throw connectError(error);
    }
  }
}

async function exists({ agent }: Guest, path: string): Promise<boolean> {
  return agent.stat(path).then(
    () => true,
    () => false,
  );
}

async function* events(
  process: RunningProcess,
  output: AsyncGenerator<ProcessOutput>,
  context: HandlerContext,
): AsyncGenerator<{ event: ProcessEvent }> {
  const event = (event: ProcessEvent["event"]): { event: ProcessEvent } => ({
    event: create(ProcessEventSchema, { event: event as never }),
  });
  yield event({ case: "start", value: { pid: process.pid } as never });
  try {
    for await (const next of withKeepAlive(output, context.requestHeader)) {
      if (next === undefined) yield event({ case: "keepalive", value: {} as never });
      else if (next.kind === "end") {
        if (next.exit.reason === "timeout") throw new ConnectError("the process took too long", Code.DeadlineExceeded);
        yield event({ case: "end", value: endOf(next.exit) as never });
      } else yield event({ case: "data", value: { output: { case: next.kind, value: next.data } } as never });
    }
  } catch (error) {
    noteLost(context, error);
    throw connectError(error);
  }
  context.signal.throwIfAborted();
}

/** As Go says how a process ended. */
function endOf({ exitCode, signal }: ExitStatus): {
  exitCode: number;
  exited: boolean;
  status: string;
  error?: string;
} {
  if (signal !== undefined) {
    const status = `signal: ${{ 9: "killed", 15: "terminated", 2: "interrupt", 11: "segmentation fault" }[signal] ?? signal}`;
    return { exitCode: -1, exited: false, status, error: status };
  }
  const status = `exit status ${exitCode}`;
  return { exitCode, exited: true, status, ...(exitCode === 0 ? {} : { error: status }) };
}
