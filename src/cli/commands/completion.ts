import { Argument, Command } from "commander";
import { completionScript, SHELLS, type Shell } from "../completion.ts";
import { wrappedNote } from "../help-text.ts";

/** `stacyvm completion SHELL`: a script for the shell, made from the commands and options themselves. */
export function completionCommand(): Command {
  return new Command("completion")
    .description("print the completion script of a shell")
    .addArgument(new Argument("<shell>", "which one").choices(SHELLS))
    .option("--json", "the commands and options as JSON instead")
    .addHelpText("after", wrappedNote("For bash: source <(stacyvm completion bash)"))
    .action((shell: Shell, options: { json?: boolean }, command: Command) => {
      let root = command;
      while (root.parent !== null) root = root.parent;
      process.stdout.write(completionScript(root, options.json === true ? "json" : shell));
    });
}
