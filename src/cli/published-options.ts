/** Options that the published StacyVM's command line takes and ours does not show. */
import { type Command, Option } from "commander";
import { note } from "./output.ts";

/** `stacyvm --server URL --api-key KEY COMMAND`: there they stand before the command too. */
export function acceptPublishedOptions(program: Command): void {
  program
    .addOption(new Option("--server <url>", "which server").hideHelp())
    .addOption(apiKeyOption())
    .hook("preAction", (_, action) => {
      for (const name of ["server", "apiKey"]) {
        const given = program.getOptionValue(name);
        if (given !== undefined && action.getOptionValue(name) === undefined) action.setOptionValue(name, given);
      }
      if (action.getOptionValue("apiKey") !== undefined) {
        note("note: others on this host can see a key in a command line; STACYVM_API_KEY or --api-key-file hides it");
      }
    });
}

export function apiKeyOption(): Option {
  return new Option("--api-key <key>", "the server's key").hideHelp();
}

/** What was typed is done, and said once by its name here. */
export function noteForm(theirs: string, ours: string): void {
  note(`note: \`${theirs}\` is \`${ours}\` here`);
}
