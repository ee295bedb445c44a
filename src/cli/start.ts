import { type Command, CommanderError } from "commander";
import { boundJsonLevels } from "../host/json-bounds.ts";
import { EXIT, errorLabel, exitCodeOf, printError } from "./error-output.ts";
import { teach } from "./habits.ts";
import { unheardIsNoError } from "./output.ts";
import { ownArguments } from "./own-arguments.ts";
import { createProgram } from "./program.ts";

/** Parses, runs, and sets the exit code. */
export async function main(): Promise<void> {
  boundJsonLevels();
  const program = createProgram();
  let chosen: Command = program;
  program.hook("preAction", (_, command) => {
    chosen = command;
  });
  reportUsage(program, program.name());
  // Outside of a command's work (help, a list) there is nothing to stop: a reader that has had enough is no error.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE" && process.stdout.listenerCount("error") === 1) process.exit(process.exitCode ?? 0);
  });
  unheardIsNoError(process.stderr);
  try {
    await program.parseAsync(await ownArguments());
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

/** Wrong usage looks like every other error, names the help to read, and is thrown instead of ending the process here. */
function reportUsage(command: Command, path: string): void {
  const help = `see \`${path} --help\``;
  const words = (text: string): string => teach(text, path).replace(/^error:/, errorLabel());
  const json = asksForJson();
  command
    .exitOverride()
    .showHelpAfterError(json ? false : `hint: ${help}`)
    .configureOutput({ outputError: (text, write) => write(json ? usageJson(teach(text, path), help) : words(text)) });
  for (const each of command.commands) reportUsage(each, `${path} ${each.name()}`);
}

/** Of the words before `--`: commander has not understood them yet, or never will. */
function asksForJson(): boolean {
  const words = process.argv.slice(2);
  const end = words.indexOf("--");
  return words.slice(0, end === -1 ? undefined : end).includes("--json");
}

function usageJson(text: string, help: string): string {
  const [message = "", ...hints] = text.trim().split("\nhint: ");
  const hint = [...hints, help].join("; ");
  return `${JSON.stringify({ error: { code: "usage", message: message.replace(/^error: /, ""), hint } })}\n`;
}
