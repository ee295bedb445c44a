/** Programs that go on between calls, and the ports on which they listen. */
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import {
  type ExitStatus,
  listeningPorts,
  type Process,
  type Sandbox,
  type SignalName,
} from "../../../sdk/src/index.ts";
import type { Call } from "./call.ts";
import { ending } from "./command-tools.ts";
import type { Session } from "./session.ts";
import { Shortened, sections } from "./shortened.ts";
import { Advice, sandboxArgument, type Tools } from "./tool.ts";

const MOST_WAIT_S = 50;
/** What is there already arrives in this time. */
const RECENT_MS = 300;
const PORT_WAIT_MS = 40_000;
/** Each look runs a command in the guest: soon at first, then ever less often. */
const PORT_POLL_MS = 200;
const PORT_POLL_MOST_MS = 1_000;
const TERM_MS = 3_000;

const processArgument = z.string().regex(/^\d+$/).describe("Its number, as start_process and list_processes give it");
const port = z.int().min(1).max(65_535);
const wait = z.number().min(0).max(MOST_WAIT_S);

export function addProcessTools(tools: Tools, session: Session): void {
  tools.add({
    name: "start_process",
    title: "Start a process",
    description:
      "Start a command that goes on between calls: a server, a watcher, long work. Gives its number and its first output. " +
      "With port it waits until something listens there. Later: read_process, write_process, stop_process.",
    kind: "runs",
    fields: {
      command: z.string().min(1).describe("For sh -c"),
      workdir: z.string().optional().describe("Default: the image's working directory"),
      port: port.optional().describe("Wait until it is listened on, at most 40 seconds"),
      wait_seconds: wait.default(1).describe("How long to wait for output before answering"),
      sandbox: sandboxArgument,
    },
    work: ({ command, workdir, port, wait_seconds, sandbox }, call) =>
      session.use(sandbox, call, async (machine) => {
        const { signal } = call;
        const process = await machine.start(command, { workdir, stdin: true, signal });
        call.say(port === undefined ? command : `waiting for port ${port}`);
        const listens = port === undefined ? undefined : await waitForPort(machine, process, port, signal);
        const told = await outputOf(machine, process, port === undefined ? wait_seconds : 0, call);
        const where =
          listens === undefined ? "" : listens ? `; port ${port} is open` : `; nothing listens on port ${port} yet`;
        return sections(`process ${process} ${told.how}${where} (sandbox ${machine.id})`, told.output);
      }),
  });
  tools.add({
    name: "read_process",
    title: "Read a process's output",
    description:
      "The recent output of a process that was started with start_process, and whether it runs. It may wait for more, or for its end.",
    kind: "looks",
    fields: {
      process: processArgument,
      wait_seconds: wait.default(0).describe("How long to wait for its end"),
      sandbox: sandboxArgument,
    },
    work: ({ process, wait_seconds, sandbox }, call) =>
      session.use(sandbox, call, async (machine) => {
        const { how, output } = await outputOf(machine, process, wait_seconds, call);
        return sections(`process ${process} ${how} (sandbox ${machine.id})`, output);
      }),
  });
  tools.add({
    name: "write_process",
    title: "Write to a process",
    description:
      "Write to the standard input of a process, then give what it says. A line ends with \\n; close ends the input.",
    kind: "runs",
    fields: {
      process: processArgument,
      input: z.string(),
      close: z.boolean().default(false).describe("The end of its input, after this"),
      wait_seconds: wait.default(1).describe("How long to wait for output before answering"),
      sandbox: sandboxArgument,
    },
    work: ({ process, input, close, wait_seconds, sandbox }, call) =>
      session.use(sandbox, call, async (machine) => {
        const { how, output } = await outputOf(machine, process, wait_seconds, call, { input, close });
        return sections(`process ${process} ${how} (sandbox ${machine.id})`, output);
      }),
  });
  tools.add({
    name: "stop_process",
    title: "Stop a process",
    description: "End a process: it is asked to, and killed when it does not within three seconds.",
    kind: "replaces",
    fields: { process: processArgument, sandbox: sandboxArgument },
    work: ({ process, sandbox }, call) =>
      session.use(sandbox, call, async (machine) => {
        const gone = `process ${process} has ended (sandbox ${machine.id})`;
        await known(machine, process, call.signal);
        for (const name of ["SIGTERM", "SIGKILL"] as const) {
          if (!(await signalled(machine, process, name, call.signal))) return gone;
          if ((await outputOf(machine, process, TERM_MS / 1_000, call)).exit !== undefined) return gone;
        }
        throw new Advice(`process ${process} was killed and has not ended yet`, "look again with read_process");
      }),
  });
  tools.add({
    name: "list_processes",
    title: "List processes",
    description:
      "Commands that were started in a sandbox: which run, how the others ended, and the ports that are open.",
    kind: "looks",
    fields: { sandbox: sandboxArgument },
    work: ({ sandbox }, call) =>
      session.use(sandbox, call, async (machine) => {
        const { signal } = call;
        // One after the other: the look at the ports is a command too.
        const ports = await listeningPorts(machine, signal);
        const lines = shown(await machine.processes({ signal })).map(({ id, running, exitCode, command }) => {
          return `${id}  ${running ? "runs" : `exit code ${exitCode ?? "?"}`}  ${command}`;
        });
        return [...(lines.length === 0 ? ["none"] : lines), `open ports: ${ports.join(", ") || "none"}`].join("\n");
      }),
  });
  tools.add({
    name: "open_port",
    title: "Open a port to the user",
    description:
      "Make a port of a sandbox reachable for the user, for example a web page that a process serves: gives its address on the user's machine. It works until the session ends.",
    kind: "adds",
    fields: { port, sandbox: sandboxArgument },
    work: ({ port, sandbox }, call) =>
      session.use(sandbox, call, async (machine) => {
        const ports = await listeningPorts(machine, call.signal);
        if (!ports.includes(port)) {
          const open = ports.length === 0 ? "no port is open" : `open are ${ports.join(", ")}`;
          throw new Advice(
            `nothing listens on port ${port} of ${machine.id}; ${open}`,
            "start the server first, with start_process and its port",
          );
        }
        const local = await session.open(machine, port);
        return `port ${port} of ${machine.id} is http://127.0.0.1:${local}/ on the machine that runs \`stacyvm mcp\`: give the user this address`;
      }),
  });
}

async function known(machine: Sandbox, process: string, signal: AbortSignal) {
  const all = await machine.processes({ signal });
  const found = all.find(({ id }) => id === process);
  if (found !== undefined) return found;
  const there =
    shown(all)
      .map(({ id }) => id)
      .join(", ") || "none";
  throw new Advice(`sandbox ${machine.id} has no process ${process}; it has ${there}`, "see list_processes");
}

/** Not each command that was waited for: whoever ran it has its end already. */
function shown(all: Process[]): Process[] {
  return all.filter(({ running, detached }) => running || detached !== false);
}

/** Also false of one that is forgotten. */
async function runs(machine: Sandbox, process: string, signal: AbortSignal): Promise<boolean> {
  return (await machine.processes({ signal })).some(({ id, running }) => id === process && running);
}

/** @returns false when it has ended already */
async function signalled(machine: Sandbox, process: string, name: SignalName, signal: AbortSignal): Promise<boolean> {
  if (!(await runs(machine, process, signal))) return false;
  try {
    await machine.kill(process, name, { signal });
    return true;
  } catch (error) {
    // It has ended between the two.
    if (await runs(machine, process, signal)) throw error;
    return false;
  }
}

interface Told {
  how: string;
  exit: ExitStatus | undefined;
  output: Record<string, Shortened>;
}

/** Recent output, and what comes until it ends or the time is over. */
async function outputOf(
  machine: Sandbox,
  id: string,
  seconds: number,
  call: Call,
  write?: { input: string; close: boolean },
): Promise<Told> {
  const { running } = await known(machine, id, call.signal);
  if (write !== undefined && !running) throw new Advice(`process ${id} has ended`, "start it again");
  const output = { stdout: new Shortened(), stderr: new Shortened() };
  const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
  call.say(() => output.stderr.lastLine || output.stdout.lastLine);
  // Going away leaves it running.
  const process = await machine.attach(id, call.signal);
  let exit: ExitStatus | undefined;
  const ended = (async () => {
    for await (const { stream, data } of process) output[stream].add(decoders[stream].decode(data, { stream: true }));
    exit = await process.exited;
  })();
  ended.catch(() => {}); // we went away
  const leave = new AbortController();
  try {
    if (write !== undefined) {
      await process.write(write.input);
      if (write.close) process.closeStdin();
    }
    const time = delay(Math.max(seconds * 1_000, RECENT_MS), undefined, { signal: leave.signal }).catch(() => {});
    await Promise.race([ended, time]);
    call.signal.throwIfAborted();
    // Of one that has ended, all that it has left comes, and then its exit: however slowly.
    if (exit === undefined && !(await runs(machine, id, call.signal))) await ended;
  } finally {
    leave.abort();
    process.detach();
    await process[Symbol.asyncDispose]();
  }
  return { how: exit === undefined ? "runs" : `has ended: ${ending(exit, undefined)}`, exit, output };
}

/** @returns false when nobody does in time, or the process has ended */
async function waitForPort(machine: Sandbox, process: string, port: number, signal: AbortSignal): Promise<boolean> {
  const deadline = performance.now() + PORT_WAIT_MS;
  let pause = PORT_POLL_MS;
  while (performance.now() < deadline) {
    if ((await listeningPorts(machine, signal)).includes(port)) return true;
    if (!(await runs(machine, process, signal))) return false;
    await delay(pause, undefined, { signal });
    pause = Math.min(1.5 * pause, PORT_POLL_MOST_MS);
  }
  return false;
}
