#!/usr/bin/env node
/** The command line. One file per command; this one only puts them together. */
import { Command, CommanderError } from "commander";
import { benchCommand } from "./commands/bench.ts";
import { doctorCommand } from "./commands/doctor.ts";
import { imageCommand } from "./commands/image.ts";
import { runCommand } from "./commands/run.ts";
import { serveCommand } from "./commands/serve.ts";
import { setupCommand } from "./commands/setup.ts";
import { snapshotCommand } from "./commands/snapshot.ts";
import { EXIT, exitCodeOf, printError } from "./error-output.ts";

const program = new Command("stacyvm")
  .description("microVM sandboxes that restore from a snapshot in milliseconds")
  .option("--verbose", "show the causes of errors")
  .enablePositionalOptions()
  .exitOverride()
  .showSuggestionAfterError();
for (const command of [
  runCommand(),
  serveCommand(),
  setupCommand(),
  doctorCommand(),
  benchCommand(),
  snapshotCommand(),
  imageCommand(),
]) {
  program.addCommand(command.exitOverride());
}

// A reader that has had enough (`| head`) is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(process.exitCode ?? 0);
});

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : EXIT.usage;
  else {
    printError(error, program.opts<{ verbose?: boolean }>().verbose === true);
    process.exitCode = exitCodeOf(error);
  }
}
