import { type Command, Option } from "commander";
import { commandWords, parseDuration, parseVariable } from "../arguments.ts";
import { type ClientOptions, clientCommand, findSandbox, type Session, withServer } from "../client-command.ts";
import { asOwnFailure, asStartFailure } from "../error-output.ts";
import { printJson, printLine } from "../output.ts";
import { conversationOf, endProcess } from "../process-conversation.ts";
import { noteForm } from "../published-options.ts";
import { collectJson, converse, terminalSize } from "../terminal.ts";

interface ExecOptions extends ClientOptions {
  /** As the published StacyVM takes it. */
  shell?: boolean;
  interactive?: boolean;
  tty?: boolean;
  detach?: boolean;
  env?: Record<string, string>;
  workdir?: string;
  user?: string;
  timeout?: string;
}

/** `stacyvm exec ID -- COMMAND`: exit code, output and signals are the command's. */
export function execCommand(): Command {
  return clientCommand("exec", "run a command in a sandbox")
    .argument("<id>", "the sandbox, or the beginning of its id")
    .argument("<command...>", "program and arguments; for a line of shell: sh -c '...'")
    .option("-i, --interactive", "pass standard input on")
    .option("-t, --tty", "give the command a terminal")
    .option("-d, --detach", "leave it running and print its number, for `logs`, `ps` and `kill`")
    .option("-e, --env <K=V>", "environment, or K alone for its value here; may be repeated", parseVariable)
    .option("-w, --workdir <path>", "working directory")
    .option("-u, --user <user>", "name, uid or uid:gid")
    .option("--timeout <time>", "end the command after this time, for example 30s (exit code 124)", parseDuration)
    .addOption(new Option("--shell", "the words are a line for the shell").hideHelp())
    .passThroughOptions()
    .action((id: string, words: string[], _options: ExecOptions, command: Command) => {
      const given = commandWords(words, command);
      const options = command.opts<ExecOptions>();
      if (options.shell === true) noteForm("exec ID --shell -- LINE", "exec ID -- sh -c LINE");
      const argv = options.shell === true ? ["sh", "-c", given.join(" ")] : given;
      return withServer(options, async (session) => {
        try {
          process.exitCode = await exec(session, id, argv, options);
        } catch (error) {
          throw session.signal.aborted ? error : asOwnFailure(error);
        }
      });
    });
}

async function exec(session: Session, id: string, argv: string[], options: ExecOptions): Promise<number> {
  const { client, signal, interrupts } = session;
  const { env, workdir, user, timeout, tty = false, interactive = false } = options;
  const pty = tty && options.detach !== true ? terminalSize() : undefined;
  const sandbox = await findSandbox(client, id, signal);
  const common = { env, workdir, user, timeout, signal };
  const stdin = interactive || tty;
  const failed = (error: unknown): never => {
    throw asStartFailure(error);
  };
  if (options.detach === true) {
    const process = await sandbox.start(argv, common).catch(failed);
    if (options.json === true) printJson({ id: process });
    else printLine(process);
    return 0;
  }
  const running = await sandbox.spawn(argv, { ...common, signal: undefined, pty: pty ?? false, stdin }).catch(failed);
  const talk = options.json === true ? collectJson : converse;
  try {
    return await talk(conversationOf(running), { tty, stdin, interrupts });
  } finally {
    await endProcess(running, tty);
  }
}
