import { type Command, CommanderError } from "commander";
import { EXIT, exitCodeOf, printError } from "./error-output.ts";
import { createProgram } from "./program.ts";

/** Parses, runs, and sets the exit code. */
export async function main(): Promise<void> {
  const program = createProgram();
  let chosen: Command = program;
  program.hook("preAction", (_, command) => {
    chosen = command;
  });
  overrideExit(program);
  // Outside of a command's work (help, a list) there is nothing to stop: a reader that has had enough is no error.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE" && process.stdout.listenerCount("error") === 1) process.exit(process.exitCode ?? 0);
  });
  try {
    await program.parseAsync();
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? 0 : EXIT.usage;
      return;
    }
    const { verbose = false, json = false } = chosen.optsWithGlobals<{ verbose?: boolean; json?: boolean }>();
    printError(error, { verbose, json });
    process.exitCode = exitCodeOf(error);
  }
}

function overrideExit(command: Command): void {
  command.exitOverride();
  for (const each of command.commands) overrideExit(each);
}
