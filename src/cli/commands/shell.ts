import type { Command } from "commander";
import { parseVariable } from "../arguments.ts";
import { type ClientOptions, clientCommand, findSandbox, withServer } from "../client-command.ts";
import { asOwnFailure, asStartFailure } from "../error-output.ts";
import { conversationOf, endProcess } from "../process-conversation.ts";
import { converse, terminalSize } from "../terminal.ts";

interface ShellOptions extends ClientOptions {
  env?: Record<string, string>;
  workdir?: string;
  user?: string;
}

/** `stacyvm shell ID`: the user's shell in this terminal. */
export function shellCommand(): Command {
  return clientCommand("shell", "open a shell in a sandbox; ~. at the beginning of a line leaves it")
    .argument("<id>", "the sandbox, or the beginning of its id")
    .option("-e, --env <K=V>", "environment, or K alone for its value here; may be repeated", parseVariable)
    .option("-w, --workdir <path>", "working directory")
    .option("-u, --user <user>", "name, uid or uid:gid")
    .action((id: string, { env, workdir, user, ...options }: ShellOptions) =>
      withServer(options, async ({ client, signal, interrupts }) => {
        try {
          const pty = terminalSize();
          const sandbox = await findSandbox(client, id, signal);
          const shell = await sandbox.shell({ env, workdir, user, pty }).catch((error: unknown) => {
            throw asStartFailure(error);
          });
          try {
            process.exitCode = await converse(conversationOf(shell), { tty: true, stdin: true, interrupts });
          } finally {
            await endProcess(shell, true);
          }
        } catch (error) {
          throw signal.aborted ? error : asOwnFailure(error);
        }
      }),
    );
}
